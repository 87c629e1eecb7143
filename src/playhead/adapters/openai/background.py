"""One response, followed to its end; in background mode through every loss of its connection.

    create ──event 0, 1, 2──✂
                            └─pause─► retrieve(starting_after=2) ──event 3, 4──✂ … ──response.completed

The provider numbers the events of a response (``sequence_number``, dense). After an attach what we have already is
left out, and a number that was jumped over counts as trouble: we attach again. Pauses double and are jittered, so
that the many producers of one outage do not come back at the same moment.
Source of the rules: OpenAI's guide to background mode, "Streaming a background response".
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from typing import Any

from openai import AsyncOpenAI, AsyncStream, OpenAIError, omit

from playhead.adapters.provider_errors import ProviderError, secrets_of, without_secrets
from playhead.model import Draft, OutcomeKind, event
from playhead.producer import stopping

from .chat import PROVIDER, check_client, told
from .patience import PATIENCE_S, Lost, Patience

_STOP_S = 2.0
_GOOD_ENDS = frozenset({"response.completed", "response.incomplete"})
_BAD_ENDS = frozenset({"response.failed", "response.cancelled", "error"})
_ALSO_OF_AN_ATTACH = ("extra_headers", "extra_query", "include", "timeout")

Opening = Callable[[], Awaitable[AsyncStream[Any]]]
logger = logging.getLogger("playhead")


def resume_response(
    client: AsyncOpenAI, response_id: str, *, starting_after: int | None = None, patience_s: float = PATIENCE_S
) -> AsyncGenerator[Draft]:
    """Follow a response that was created in background mode elsewhere; a source for ``Playhead.start``.

    For a response whose producer died. ``starting_after`` is the ``sequence_number`` of the last event that is not
    wanted again; None = from the first. The rest is as with ``openai_responses``.
    """
    check_client(client)
    follower = Follower(client, patience_s, {}, response_id=response_id, seen=starting_after)
    return follower.follow(follower.attach, resumable=True)


def _is_unwanted() -> bool:
    """Does nobody want the answer any more? When this process goes, or its stream was taken over, others may."""
    outcome = stopping()
    return outcome is None or outcome.kind is OutcomeKind.CANCELLED


class Follower:
    """The following of one response: its id once we know it, and the number of the newest event we have."""

    def __init__(
        self,
        client: AsyncOpenAI,
        patience_s: float,
        params: Mapping[str, Any],
        *,
        response_id: str | None = None,
        seen: int | None = None,
    ) -> None:
        self._client = client
        self._patience_s = patience_s
        self._secrets = secrets_of(client, params.get("extra_headers"))
        self._params = {name: params[name] for name in _ALSO_OF_AN_ATTACH if name in params}
        self._response_id = response_id
        self._seen = seen
        self._attached = response_id is not None
        self._opening: asyncio.Task[tuple[AsyncStream[Any], Any]] | None = None

    async def follow(self, opening: Opening, *, resumable: bool) -> AsyncGenerator[Draft]:
        """The response's events, each once, to its end. Raises: ProviderError."""
        now = asyncio.get_running_loop().time
        patience = Patience(self._patience_s)
        ended = False
        try:
            while True:
                opened_at = now()
                try:
                    stream, item = await self._open(opening)
                    async with stream:
                        while item is not None:
                            if self._is_new(item):
                                patience.renew()
                                ended = item.type in _GOOD_ENDS or item.type in _BAD_ENDS
                                yield event(item.type, item.to_dict(mode="json", warnings=False))
                            if ended:
                                self._check_end(item)
                                return
                            item = await anext(stream, None)
                    await self._check_not_cancelled(resumable=resumable)
                    raise Lost("the answer broke off in the middle")
                except (OpenAIError, ValueError, Lost) as error:
                    pause_s = patience.pause_s(error, opened_at=opened_at, now=now())
                    if pause_s is None or not (resumable and self._can_attach):
                        raise
                    logger.warning("response %s: %s; again in %.1f s", self._response_id, self._told(error), pause_s)
                await asyncio.sleep(pause_s)
                self._attached, opening = True, self.attach
        except (asyncio.CancelledError, GeneratorExit):
            if not ended:
                await self._stop(cancel=resumable and (_is_unwanted() or self._response_id is None))
            raise
        except (OpenAIError, ValueError, Lost) as error:
            raise self._told(error) from None

    async def attach(self) -> AsyncStream[Any]:
        """The events after the newest one we have, or all."""
        assert self._response_id is not None
        # The pauses are ours: the client's own would come on top of them.
        responses = self._client.with_options(max_retries=0).responses
        after = omit if self._seen is None else self._seen
        stream: AsyncStream[Any] = await responses.retrieve(
            self._response_id, stream=True, starting_after=after, **self._params
        )
        return stream

    async def _open(self, opening: Opening) -> tuple[AsyncStream[Any], Any]:
        """Open a connection and take its first event, in a task: who cancels us may need to know what was opened."""

        async def with_first() -> tuple[AsyncStream[Any], Any]:
            stream = await opening()
            try:
                return stream, await anext(stream, None)
            except BaseException:
                await stream.close()
                raise

        self._opening = asyncio.create_task(with_first())
        await asyncio.wait({self._opening})
        return self._opening.result()

    @property
    def _can_attach(self) -> bool:
        return self._response_id is not None and (self._attached or self._seen is not None)

    def _is_new(self, item: Any) -> bool:
        """Take note of an event; False when we have it already. Raises: Lost."""
        if self._response_id is None:
            self._response_id = getattr(getattr(item, "response", None), "id", None)
        number = getattr(item, "sequence_number", None)
        if self._attached and self._seen is not None and item.type != "error":
            if number is None:
                raise Lost("it sends events without a sequence_number, which have no place")
            if number <= self._seen:
                return False
            if number > self._seen + 1:
                raise Lost(f"it jumped from event {self._seen} to event {number}")
        self._seen = number if number is not None else self._seen
        return True

    def _check_end(self, item: Any) -> None:
        """Raises: ProviderError, when this is not the end of a good answer."""
        if item.type in _BAD_ENDS:
            said = item if item.type == "error" else getattr(getattr(item, "response", None), "error", None)
            code, words = getattr(said, "code", None), getattr(said, "message", None)
            text = f"{PROVIDER} ended the answer with {item.type}" + (f" ({code})" if code else "")
            raise ProviderError(
                without_secrets(f"{text}: {words}" if words else text, self._secrets), provider=PROVIDER
            )

    async def _check_not_cancelled(self, *, resumable: bool) -> None:
        """A response that somebody cancelled at the provider does not say so on its stream, and never goes on.

        Raises: ProviderError.
        """
        if not resumable or self._response_id is None:
            return
        response = await self._client.with_options(max_retries=0).responses.retrieve(self._response_id)
        if getattr(response, "status", None) == "cancelled":  # a proxy may answer with anything
            raise ProviderError("the response was cancelled at the provider", provider=PROVIDER)

    def _told(self, error: Exception) -> ProviderError:
        if isinstance(error, Lost):
            return ProviderError(f"{PROVIDER}: {error}", provider=PROVIDER)
        return told(error, self._secrets)

    async def _stop(self, *, cancel: bool) -> None:
        """Close what is being opened; in background mode, have the provider stop. Bounded."""
        opening = self._opening
        if opening is not None:
            try:
                if cancel and self._response_id is None:
                    # It may have begun there: only its first event says what there is to cancel.
                    await asyncio.wait({opening}, timeout=_STOP_S)
            finally:
                opening.cancel()
            await asyncio.wait({opening}, timeout=_STOP_S)
            if opening.done() and not opening.cancelled() and opening.exception() is None:
                stream, first = opening.result()
                await stream.close()
                if self._response_id is None and first is not None:
                    self._is_new(first)
        if cancel and self._response_id is not None:
            try:
                async with asyncio.timeout(_STOP_S):
                    await self._client.with_options(max_retries=1).responses.cancel(self._response_id)
            except (OpenAIError, TimeoutError) as error:
                logger.warning("response %s: not cancelled there: %s", self._response_id, self._told(error))
