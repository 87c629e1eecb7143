"""The Responses API as a source of events: each of the provider's events under its own name.

    response.created, response.output_text.delta …, response.completed

An answer that the provider ends with ``response.failed`` or ``error`` fails the stream, with the provider's words;
one that stops at its limit (``response.incomplete``) is an answer like others.
"""

from collections.abc import AsyncGenerator
from functools import cache
from typing import Any, get_args

from openai import AsyncOpenAI, BaseModel
from openai.types.responses import ResponseStreamEvent

from playhead.model import Draft, Event

from .background import Follower
from .chat import check_client
from .patience import PATIENCE_S


def openai_responses(client: AsyncOpenAI, *, patience_s: float = PATIENCE_S, **params: Any) -> AsyncGenerator[Draft]:
    """Ask for a response; a source for ``Playhead.start``.

    With ``background=True`` the provider goes on without us. When the connection to it is lost, we attach again after
    the last event we had (``starting_after``), and the stream goes on without a gap or a repeat. Who cancels the
    stream cancels the response at the provider too. A process that dies or shuts down leaves the response to the
    provider: a new stream can take it up (``resume_response``).

    Without it the provider keeps nothing of a response that is under way: a lost connection fails the stream.

    Args:
        client: the app's own; it stays open.
        patience_s: in background mode, how long to go on trying without getting anywhere.
        params: of ``client.responses.create``.
    Cancel: the request is closed, and a background response cancelled, before the source ends (2 s each at most).
    Raises: ProviderError. At once: TypeError.
    """
    check_client(client)
    params = {**params, "stream": True}
    follower = Follower(client, patience_s, params)
    return follower.follow(lambda: client.responses.create(**params), resumable=bool(params.get("background")))


def response_event_of(event: Event) -> ResponseStreamEvent:
    """The client's object, as it was when it came. Of a type that this client does not know it is a plain BaseModel."""
    kind = _classes().get(event.type, BaseModel)
    value: ResponseStreamEvent = kind.model_construct(**event.json())  # type: ignore[assignment]
    return value


@cache
def _classes() -> dict[str, type[BaseModel]]:
    """The client's classes by the type that each is for: ``Annotated[Union[…], …]``, each with a ``Literal`` type."""
    union, *_ = get_args(ResponseStreamEvent)
    return {get_args(kind.model_fields["type"].annotation)[0]: kind for kind in get_args(union)}
