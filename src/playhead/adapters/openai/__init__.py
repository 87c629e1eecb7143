"""Durable streams from OpenAI's official client: each event of the answer, as it came, in a stream of its own.

    from playhead.adapters.openai import openai_chat, text_of

    info = await playhead.start(openai_chat(client, model="gpt-4.1-mini", messages=[...]))
    async for event in playhead.tail(info.stream_id):
        print(text_of(event), end="")

``openai_chat`` speaks Chat Completions, ``openai_responses`` the Responses API; both work with every server that
speaks them. An event's type is the provider's own name for it (``chat.completion.chunk``,
``response.output_text.delta`` …), its data the JSON that came. ``chunk_of`` and ``response_event_of`` give back the
client's own objects, ``chat_completion_of`` the whole answer; ``text_of`` and ``usage_of`` what most readers want.

A response in background mode (``background=True``) outlives its connection: see ``openai_responses``.
"""

try:
    import openai as _openai  # noqa: F401 - is it there?
except ImportError as missing:
    raise ImportError(
        "playhead.adapters.openai needs OpenAI's client, which is not installed: pip install 'playhead[openai]'"
    ) from missing

from playhead.adapters.provider_errors import ProviderError

from .background import resume_response
from .chat import chat_completion_of, chunk_of, openai_chat
from .reading import text_of, usage_of
from .responses import openai_responses, response_event_of

__all__ = [
    "ProviderError",
    "chat_completion_of",
    "chunk_of",
    "openai_chat",
    "openai_responses",
    "response_event_of",
    "resume_response",
    "text_of",
    "usage_of",
]
