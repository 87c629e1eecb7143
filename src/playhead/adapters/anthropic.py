"""Durable streams from Anthropic's official client: each event of a message, as it came, in a stream of its own.

    from playhead.adapters.anthropic import anthropic_messages, text_of

    info = await playhead.start(anthropic_messages(client, model="claude-…", max_tokens=1024, messages=[...]))
    async for event in playhead.tail(info.stream_id):
        print(text_of(event), end="")

An event's type is the provider's own name for it (``message_start``, ``content_block_delta`` …), its data the JSON
that came: text, thinking and its signature, the input of tools as it grows, the stop reason, the usage. ``message_of``
makes the whole message of them, ``message_event_of`` gives back the client's own objects.

Anthropic keeps nothing of a message that is under way: there is no event to start after, so a connection that breaks
fails the stream with what came before. To go on, ask anew with that as the beginning of the assistant's turn.
"""

from collections.abc import AsyncGenerator, Iterable
from functools import cache
from typing import Any, cast, get_args

try:
    import httpx2
    from anthropic import Anthropic, AnthropicError, APIConnectionError, AsyncAnthropic, BaseModel
    from anthropic.types import Message, ParsedMessage, RawMessageStreamEvent
except ImportError as missing:
    raise ImportError(
        "playhead.adapters.anthropic needs Anthropic's client, which is not there: pip install 'playhead[anthropic]'"
    ) from missing

from playhead.adapters.provider_errors import ProviderError, provider_error, secrets_of
from playhead.model import Draft, Event, event

__all__ = ["ProviderError", "anthropic_messages", "message_event_of", "message_of", "text_of", "usage_of"]

PROVIDER = "Anthropic"


def anthropic_messages(client: AsyncAnthropic, **params: Any) -> AsyncGenerator[Draft]:
    """Ask for a message; a source for ``Playhead.start``.

    Nothing is asked before the source is run, so a start that is repeated asks once.

    Args:
        client: the app's own; it stays open.
        params: of ``client.messages.create``.
    Cancel: the request is closed before the source ends; Anthropic then stops generating.
    Raises: ProviderError, also when the answer ends without ``message_stop``. At once: TypeError.
    """
    if isinstance(cast(object, client), Anthropic):
        raise TypeError("anthropic_messages needs an AsyncAnthropic client; Anthropic would block the event loop")
    return _messages(client, params)


async def _messages(client: AsyncAnthropic, params: dict[str, Any]) -> AsyncGenerator[Draft]:
    ended = False
    try:
        async with await client.messages.create(**{**params, "stream": True}) as items:
            async for item in items:
                ended = ended or item.type == "message_stop"
                yield event(item.type, item.to_dict(mode="json", warnings=False))
    # The client leaves what breaks in mid-answer as the HTTP library raised it.
    except (AnthropicError, httpx2.HTTPError, ValueError) as error:
        lost = isinstance(error, APIConnectionError | httpx2.HTTPError)
        raise provider_error(PROVIDER, error, secrets_of(client, params.get("extra_headers")), lost=lost) from None
    if not ended:
        raise ProviderError(f"{PROVIDER} ended the answer in the middle, without message_stop", provider=PROVIDER)


def message_event_of(recorded: Event) -> RawMessageStreamEvent:
    """The client's object, as it was when it came. Of a type that this client does not know it is a plain BaseModel."""
    kind = _classes().get(recorded.type, BaseModel)
    value: RawMessageStreamEvent = kind.model_construct(**recorded.json())  # type: ignore[assignment]
    return value


def message_of(events: Iterable[Event]) -> Message:
    """What these events make together, joined by the client's own code: blocks, tool input, stop reason, usage.

    Of a stream that ended early it is what there was. Raises: ValueError unless they begin with ``message_start``.
    """
    from anthropic.lib.streaming._messages import accumulate_event

    message: ParsedMessage[None] | None = None
    json_bufs: dict[int, bytes] = {}
    for recorded in events:
        if recorded.type in _classes():
            if message is None and recorded.type != "message_start":
                break
            message = accumulate_event(event=message_event_of(recorded), current_snapshot=message, json_bufs=json_bufs)
    if message is None:
        raise ValueError("these events do not begin with message_start")
    return message


def text_of(recorded: Event) -> str:
    """The text that this event adds to the answer; "" for all others (thinking, tool input, usage)."""
    return str(_delta_of(recorded).get("text") or "")


def usage_of(recorded: Event) -> dict[str, Any] | None:
    """The token usage that this event tells, as the provider's JSON; the newest one counts. None for all others."""
    if recorded.type == "message_start":
        usage = recorded.json().get("message", {}).get("usage")
    else:
        usage = recorded.json().get("usage") if recorded.type == "message_delta" else None
    return usage if isinstance(usage, dict) else None


def _delta_of(recorded: Event) -> dict[str, Any]:
    if recorded.type == "content_block_delta":
        delta: dict[str, Any] = recorded.json().get("delta") or {}
        return delta
    if recorded.type == "content_block_start":  # a block may begin with its first words
        block: dict[str, Any] = recorded.json().get("content_block") or {}
        return block if block.get("type") == "text" else {}
    return {}


@cache
def _classes() -> dict[str, type[BaseModel]]:
    """The client's classes by the type that each is for: ``Annotated[Union[…], …]``, each with a ``Literal`` type."""
    union, *_ = get_args(RawMessageStreamEvent)
    return {get_args(kind.model_fields["type"].annotation)[0]: kind for kind in get_args(union)}
