"""The contract between the engines and a store. A new store implements this Protocol, and nothing else.

A store keeps states and entries; it knows no rules. For a command it loads the state, calls ``log.decide`` and
commits the result in the same transaction; for an append it calls ``log.decide_append``.

Threads and loops: a store belongs to the event loop that opened it. All methods are called from that loop, except
``renew``, which is called from the heartbeat's thread. Nothing that a caller cancels may leave a connection in the
middle of a reply (P10): work is handed to the store's own threads or tasks, and an abandoned result is dropped.

Errors: the rules' errors (``log``) and StoreError's branch. Driver errors never get out.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from playhead.log import Command
from playhead.model import Batch, Lease, Page, Status, StreamInfo

PAGE_MAX_BYTES = 256 * 1024


@dataclass(frozen=True, slots=True)
class StoreOptions:
    """What every store is told when it is made.

    Attributes:
        lease_s: how long an instance that stops renewing is still taken for alive.
        stream_max_bytes: the most data bytes one stream may hold.
    """

    lease_s: float = 5.0
    stream_max_bytes: int = 256 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Query:
    """Which streams to find; None = any. Newest first, at most ``limit``.

    ``thread_ids`` restricts to these threads; ``settled`` to streams that are (not) settled yet;
    ``before`` continues after the oldest stream of the page before (its id).
    """

    status: Status | None = None
    thread_ids: tuple[str, ...] | None = None
    owner: str | None = None
    settled: bool | None = None
    before: str | None = None
    limit: int = 100


class Applied(NamedTuple):
    """The state after a command, and whether the command changed it.

    After a command that forgets the stream, ``info`` is the last state.
    """

    info: StreamInfo
    changed: bool


Wake = Callable[[Batch | None, StreamInfo | None], None]
"""Called on the loop when a watched stream has news that ``read`` and ``load`` would show.

It may carry the batch just stored or the state just committed as hints; (None, None) means: look yourself.
A hint may be stale or come twice; it is used only where it continues what the reader has.
"""


WakeThread = Callable[[], None]
"""Called on the loop when a watched thread may have a stream that ``find`` did not show before; also for nothing."""


class Store(Protocol):
    """Durable states and entries of streams. See each method for what it guarantees."""

    instance_id: str
    """This process instance, as a producer's name in leases. Made anew at each ``open``."""

    replay_s: float
    """For how long producers keep what was acknowledged, to append it again should the store lose it while they live.

    0: what it has acknowledged is there for as long as the process is.
    """

    async def open(self) -> None:
        """Connect, migrate, register this instance with a fresh lease.

        Raises: StoreUnavailable, StoreLocked, StoreReadOnly, StoreCorrupt, StoreVersionUnsupported.
        """

    async def close(self) -> None:
        """Finish the work that was handed over, give the lease back, free everything. Idempotent."""

    async def apply(self, stream_id: str, command: Command) -> Applied:
        """Decide and commit one command.

        A Create whose ``(owner, idempotency_key)`` is known goes to that stream, whatever ``stream_id`` says.
        Forgetting a stream makes its events unreachable at once; ``purge`` frees their space later.
        Sees:    everything committed before the call, by any process.
        Durable: when this returns (what that means is the store's setting).
        Cancel:  safe; the command may still be carried out.
        Raises:  what ``log.decide`` raises; StoreError.
        """

    def append(self, lease: Lease, batch: Batch) -> "asyncio.Future[None]":
        """Store one batch; handed over when called, in the order of the calls for one stream.

        The future resolves when the batch is durable, and not before every earlier append of this stream has.
        By then watchers of this process have been woken with the batch.
        An append that fails changes nothing. A batch whose outcome is unknown may be handed in again, unchanged:
        AppendRepeat then says that it was stored.
        Cancel: abandoning the future does not take the append back.
        Raises (in the future): what ``log.decide_append`` raises; StoreError.
        """

    async def load(self, stream_id: str) -> StreamInfo:
        """The state of a stream, expired ones included. Raises: StreamNotFound, StoreError."""

    async def read(self, stream_id: str, after: int) -> Page:
        """Stored batches that hold events after an offset, oldest first, and the state of the same moment.

        Shape:  whole batches; the first one may begin at or before ``after``. Empty when nothing is after it.
        Units:  ``after`` is an offset, 0 = before everything. About PAGE_MAX_BYTES of data, at least one batch.
        Sees:   every append acknowledged before the call; never half of one.
        Cost:   memory O(page), whatever the stream's length.
        Cancel: safe.
        Raises: StreamNotFound, StreamExpired, StoreError.
        """

    async def find(self, query: Query) -> list[StreamInfo]:
        """Streams by their properties, newest first. Cost: O(limit), by index."""

    async def orphans(self, *, proven: bool) -> list[str]:
        """Ids of live streams whose producer instance is gone; never this instance's own.

        With ``proven`` only those whose death is certain (the operating system says that the process has ended,
        or it said goodbye); else also those whose lease has run out. At most 1,000 a call.
        """

    async def due(self, limit: int) -> list[str]:
        """Ids of streams whose ``due_at`` has come, longest overdue first."""

    async def purge(self, limit: int) -> int:
        """Free the space of at most ``limit`` entries of forgotten or expired streams; returns how many.

        Short enough that appends never wait for it noticeably.
        """

    def now(self) -> float:
        """The store's clock: seconds since the Unix epoch."""

    def watch(self, stream_id: str, wake: Wake) -> Callable[[], None]:
        """Have ``wake`` called for news of a stream, from this or any other process; returns the undo.

        News is an append, a close, a cancel request, a take-over, an expiry. Other processes' news arrive within
        50 ms. Several watchers of one stream are all woken. Nothing is promised about news older than the call:
        watch first, then read.
        """

    def watch_thread(self, thread_id: str, wake: WakeThread) -> Callable[[], None]:
        """Have ``wake`` called when a stream has been created on a thread, by this or any other process; returns the
        undo.

        By then ``find`` shows the stream. Other processes' streams are told of within 50 ms. Nothing is promised about
        streams older than the call: watch first, then find. A wake-up may be lost with a connection: whoever must not
        miss a stream looks now and then, too.
        """

    def renew(self) -> None:
        """Renew this instance's lease for ``lease_s`` from now. Thread-safe; own connection; may block.

        An instance whose lease ran out, but whose streams nobody took, has its right back by this (P6).
        Raises: StoreError.
        """
