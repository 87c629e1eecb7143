"""Chat Completions as a source of events, one ``chat.completion.chunk`` each.

The provider keeps nothing of a chat completion that is under way: when its connection breaks, the stream ends
``failed`` with what came before. (An opening that was refused is tried again by the client: ``max_retries``.)
"""

from collections.abc import AsyncGenerator, Iterable
from typing import Any

from openai import APIConnectionError, AsyncOpenAI, OpenAI, OpenAIError
from openai.lib.streaming.chat import ChatCompletionStreamState
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from playhead.adapters.provider_errors import ProviderError, provider_error, secrets_of
from playhead.model import Draft, Event, event

PROVIDER = "OpenAI"
CHUNK = "chat.completion.chunk"


def openai_chat(client: AsyncOpenAI, **params: Any) -> AsyncGenerator[Draft]:
    """Ask for a chat completion; a source for ``Playhead.start``.

    Nothing is asked before the source is run, so a start that is repeated asks once.

    Args:
        client: the app's own; it stays open.
        params: of ``client.chat.completions.create``. The token usage is asked for (``stream_options``); servers that
            do not know that need ``stream_options=openai.omit``.
    Cancel: the request is closed before the source ends; OpenAI then stops generating.
    Raises: ProviderError, also when the answer ends without a reason to. At once: TypeError.
    """
    check_client(client)
    return _chat(client, {"stream_options": {"include_usage": True}, **params, "stream": True})


async def _chat(client: AsyncOpenAI, params: dict[str, Any]) -> AsyncGenerator[Draft]:
    unfinished: set[int] = set()
    finished = False
    try:
        async with await client.chat.completions.create(**params) as chunks:
            async for chunk in chunks:
                yield event(CHUNK, chunk.to_dict(mode="json", warnings=False))
                for choice in chunk.choices or ():
                    if choice.finish_reason is None:
                        unfinished.add(choice.index)
                    else:
                        finished = True
                        unfinished.discard(choice.index)
    except (OpenAIError, ValueError) as error:
        raise told(error, secrets_of(client, params.get("extra_headers"))) from None
    if unfinished or not finished:
        raise ProviderError(f"{PROVIDER} ended the answer in the middle, without a finish reason", provider=PROVIDER)


def check_client(client: object) -> None:
    """Raises: TypeError."""
    if isinstance(client, OpenAI):
        raise TypeError("a source needs an AsyncOpenAI client; OpenAI would block the event loop")


def told(error: Exception, secrets: Iterable[str]) -> ProviderError:
    """What the client raised, for people."""
    return provider_error(PROVIDER, error, secrets, lost=isinstance(error, APIConnectionError))


def chunk_of(recorded: Event) -> ChatCompletionChunk:
    """The client's object, as it was when it came; fields that this client does not know included."""
    return ChatCompletionChunk.model_construct(**recorded.json())


def chat_completion_of(events: Iterable[Event]) -> ChatCompletion:
    """What these events make together, joined by the client's own code: text, tool calls, finish reason, usage.

    Of a stream that ended early it is what there was. Raises: ValueError when there is no chunk among them.
    """
    state: ChatCompletionStreamState[None] = ChatCompletionStreamState()
    chunks = [chunk_of(each) for each in events if each.type == CHUNK]
    if not chunks:
        raise ValueError(f"there is no {CHUNK} among these events")
    for chunk in chunks:
        state.handle_chunk(chunk)
    made: dict[str, Any] = state.current_completion_snapshot.to_dict()
    return ChatCompletion.model_construct(**made)
