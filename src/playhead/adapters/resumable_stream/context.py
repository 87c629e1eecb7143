"""The context: four calls of the original, and ``cancel``.

    stream id of the caller ──► thread   <key prefix>:<id>           quoted, so that no two can be the same
                                  │
                                  └──► stream <thread>#<run>         run 1, 2, 3 …: ids are never used twice

Whoever begins a run names it after the newest one he saw. Two who race for it name the same stream, and a start is
idempotent by its id (P7.3): one source runs, and the other caller reads it.
"""

import asyncio
import hashlib
import uuid
from collections.abc import Callable
from dataclasses import replace
from types import TracebackType
from typing import Any, Literal, NamedTuple, Self, Unpack
from urllib.parse import quote

from playhead.adapters.resumable_stream.following import ResumableStream
from playhead.adapters.resumable_stream.options import CreateResumableStreamContextOptions, Settings
from playhead.adapters.resumable_stream.places import place_of
from playhead.adapters.sharing import Shared, shared
from playhead.errors import BadRequest, PlayheadError
from playhead.model import OutcomeKind, Status, StreamInfo
from playhead.options import Options
from playhead.streams import Playhead

_PLAYHEAD_OPTIONS = Options(event_max_bytes=16 * 1024 * 1024)  # the original has no limit; images in a chunk are common
_GRACE_S = 5.0
_ID_MAX_CHARACTERS = 900
_RUN, _BEGUN_BY = "run", "begun_by"
_FINISHED = (OutcomeKind.COMPLETED, OutcomeKind.CANCELLED)


def create_resumable_stream_context(
    options: CreateResumableStreamContextOptions | None = None, **settings: Unpack[Settings]
) -> "ResumableStreamContext":
    """A context for resumable streams. See CreateResumableStreamContextOptions for what can be given.

    Needs no running event loop, and connects to nothing yet. Keywords win over ``options``.
    Raises: ValueError when it is not known where streams are to be stored; InvalidSetting; TypeError for an unknown
        keyword.
    """
    if options is None:
        options = CreateResumableStreamContextOptions(**settings)
    return ResumableStreamContext(replace(options, **settings))


class ResumableStreamContext:
    """Streams that outlive the connection, and the process, that asked for them.

    Closing is optional: what is open is closed with its event loop. ``async with`` and ``close`` do it earlier.
    """

    def __init__(self, options: CreateResumableStreamContextOptions) -> None:
        self._options = options
        self._shared: Shared | None = None
        if options.playhead is None:
            place = place_of(options)
            self._shared = shared(place.url, _PLAYHEAD_OPTIONS, place.whose)
        self._endings: set[asyncio.Task[None]] = set()

    async def resumable_stream(
        self, stream_id: str, make_stream: Callable[[], Any], skip_characters: int | None = None
    ) -> ResumableStream | None:
        """Begin the stream, or resume it: whoever of all callers, in all processes, comes first runs ``make_stream``.

        Args:
            make_stream: returns an async iterator of text (or bytes, or JSON-able values).
            skip_characters: how many characters the caller has; counts only when resuming, as in the original.
        Returns: the chunks; None when the stream is finished (unless ``replay_finished``). After a failure: what was
            recorded, then the error.
        Raises: BadRequest, Draining, StoreError.
        """
        skip = _checked_skip(skip_characters)
        playhead = await self._playhead()
        newest = await self._newest(playhead, stream_id)
        if newest.info is not None:
            return self._resumed(playhead, newest.info, skip)
        info, is_mine = await self._begin(playhead, stream_id, newest.run + 1, make_stream)
        return self._begun(playhead, info) if is_mine else self._resumed(playhead, info, skip)

    async def create_new_resumable_stream(
        self,
        stream_id: str,
        make_stream: Callable[[], Any],
        skip_characters: int | None = None,  # noqa: ARG002 - the original takes it, and has no use for it either
    ) -> ResumableStream | None:
        """Begin the stream, anew when it has ended. None when it is live already: then ``make_stream`` is not called.

        Raises: BadRequest, Draining, StoreError.
        """
        playhead = await self._playhead()
        newest = await self._newest(playhead, stream_id)
        if newest.info is not None and newest.info.is_live:
            return None
        info, is_mine = await self._begin(playhead, stream_id, newest.run + 1, make_stream)
        return self._begun(playhead, info) if is_mine else None

    async def resume_existing_stream(
        self, stream_id: str, skip_characters: int | None = None
    ) -> ResumableStream | Literal["NOT_FOUND"] | None:
        """The stream from where the caller was. "NOT_FOUND" when there is none; None when it is finished.

        Raises: BadRequest, Draining, StoreError.
        """
        skip = _checked_skip(skip_characters)
        playhead = await self._playhead()
        info = (await self._newest(playhead, stream_id)).info
        return "NOT_FOUND" if info is None else self._resumed(playhead, info, skip)

    async def has_existing_stream(self, stream_id: str) -> Literal[True, "DONE"] | None:
        """True while it is live, "DONE" when it has ended in whatever way, None when there is none.

        Raises: BadRequest, StoreError.
        """
        return _state((await self._newest(await self._playhead(), stream_id)).info)

    async def cancel(self, stream_id: str, reason: str | None = None) -> Literal[True, "DONE"] | None:
        """Ask a stream to end, from any process; what it said so far is kept, its readers come to the end.

        Returns: True when it was live: the request is stored and its source will be stopped; "DONE" when it had ended;
            None when there is none.
        Raises: BadRequest, StoreError.
        """
        playhead = await self._playhead()
        info = (await self._newest(playhead, stream_id)).info
        if info is not None and info.is_live:
            await playhead.cancel(info.stream_id, reason=reason)
        return _state(info)

    # ---- life --------------------------------------------------------------------------------------

    async def close(self, grace_s: float = _GRACE_S) -> None:
        """Let go of the store: sources may go on for ``grace_s``; what remains is closed ``interrupted``.

        Other contexts of the same store and loop keep it open; a Playhead of the caller's own stays open. Idempotent;
        a context that is used again opens it again.
        """
        if self._shared is not None:
            await self._shared.leave(self, grace_s)

    async def __aenter__(self) -> Self:
        await self._playhead()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    # ---- parts -------------------------------------------------------------------------------------

    async def _playhead(self) -> Playhead:
        if self._shared is not None:
            return await self._shared.use(self)
        assert self._options.playhead is not None
        return self._options.playhead

    async def _newest(self, playhead: Playhead, stream_id: str) -> "_Newest":
        info = await playhead.latest(_thread_id(self._options.key_prefix, stream_id))
        if info is None:
            return _Newest(None, 0)
        return _Newest(None if info.status is Status.EXPIRED else info, info.metadata.get(_RUN, 0))

    async def _begin(
        self, playhead: Playhead, stream_id: str, run: int, make_stream: Callable[[], Any]
    ) -> tuple[StreamInfo, bool]:
        """Begin this run of the stream, or find that somebody else has."""
        me = uuid.uuid4().hex
        thread_id = _thread_id(self._options.key_prefix, stream_id)
        info = await playhead.start(
            make_stream,
            stream_id=f"{thread_id}#{run}",
            thread_id=thread_id,
            metadata={_RUN: run, _BEGUN_BY: me},
            retention_s=self._options.retention_s,
        )
        return info, info.metadata.get(_BEGUN_BY) == me

    def _begun(self, playhead: Playhead, info: StreamInfo) -> ResumableStream:
        if self._options.wait_until is not None:
            ending = asyncio.create_task(_ended(playhead, info.stream_id), name=f"playhead until {info.stream_id}")
            self._endings.add(ending)
            ending.add_done_callback(self._endings.discard)
            self._options.wait_until(ending)
        return ResumableStream(playhead.tail(info.stream_id))

    def _resumed(self, playhead: Playhead, info: StreamInfo, skip_characters: int) -> ResumableStream | None:
        is_finished = info.outcome is not None and info.outcome.kind in _FINISHED
        if is_finished and not self._options.replay_finished:
            return None
        tail = playhead.tail(info.stream_id)
        # As in the original: what the caller has can only be what was stored before he came.
        return ResumableStream(tail, skip_characters=skip_characters, skip_until=info.tail, is_resumed=True)


class _Newest(NamedTuple):
    """The newest run of a stream: what is known of it, None when it can be read no more; its number, 0 = none yet."""

    info: StreamInfo | None
    run: int


def _state(info: StreamInfo | None) -> Literal[True, "DONE"] | None:
    if info is None:
        return None
    return True if info.is_live else "DONE"


async def _ended(playhead: Playhead, stream_id: str) -> None:
    """Returns when the stream is closed, or this process will not see that any more."""
    try:
        await playhead.wait(stream_id)
    except PlayheadError:
        return


def _checked_skip(skip_characters: object) -> int:
    """Raises: BadRequest unless it is a whole number, or None."""
    if skip_characters is None:
        return 0
    if not isinstance(skip_characters, int):
        kind = type(skip_characters).__name__
        raise BadRequest(f"skip_characters is a whole number of characters, not {kind}", argument="skip_characters")
    return max(skip_characters, 0)


def _thread_id(key_prefix: str, stream_id: str) -> str:
    """Any two texts as one printable one, different for different pairs. Raises: BadRequest unless both are text."""
    for name, value in (("key_prefix", key_prefix), ("stream_id", stream_id)):
        if not isinstance(value, str):
            raise BadRequest(f"{name} is text (str), not {type(value).__name__}", argument=name)
    thread_id = ":".join(quote(text, safe="/@ ", errors="surrogatepass") for text in (key_prefix, stream_id))
    if len(thread_id) > _ID_MAX_CHARACTERS:
        return f"sha256={hashlib.sha256(thread_id.encode()).hexdigest()}"
    return thread_id
