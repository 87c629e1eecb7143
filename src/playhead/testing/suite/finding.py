"""Find: by status, thread, owner and settledness; newest first; page after page."""

from playhead.log import Close, Expire, Settle
from playhead.model import COMPLETED, Status
from playhead.store import Query, Store
from playhead.testing.clock import ManualClock
from playhead.testing.suite.case import StoreCase, append, create, create_closed


async def found(store: Store, **query: object) -> list[str]:
    return [info.stream_id for info in await store.find(Query(**query))]  # type: ignore[arg-type]


class FindingSuite(StoreCase):
    async def test_newest_first(self, store: Store, other: Store, clock: ManualClock) -> None:
        for n in range(5):
            await create([store, other][n % 2], f"s{n}")
            clock.advance(1)
        lease = await create(store, "s0")
        await append(store, lease, 1, "news does not make it newer")
        for at in (store, other):
            assert await found(at) == ["s4", "s3", "s2", "s1", "s0"]
            assert await at.find(Query(limit=5)) == [await at.load(f"s{n}") for n in (4, 3, 2, 1, 0)]

    async def test_newest_first_within_one_moment(self, store: Store) -> None:
        for n in (3, 1, 4, 0, 2):
            await create(store, f"s{n}")
        assert await found(store) == ["s2", "s0", "s4", "s1", "s3"]

    async def test_newest_first_when_the_clock_was_set_back(self, store: Store, clock: ManualClock) -> None:
        for n in range(3):
            await create(store, f"s{n}")
            clock.jump(-100)
        assert await found(store) == ["s2", "s1", "s0"]
        assert await found(store, before="s1") == ["s0"]

    async def test_limits(self, store: Store) -> None:
        for n in range(3):
            await create(store, f"s{n}")
        assert await found(store, limit=2) == ["s2", "s1"]
        assert await found(store, limit=0) == []

    async def test_page_after_page(self, store: Store, other: Store) -> None:
        names = [f"s{n}" for n in range(11)]
        for name in names:
            await create(store, name, owner="ann" if int(name[1:]) % 2 else "bob")
        pages: list[str] = []
        before = None
        while page := await found(other, before=before, limit=3):
            pages, before = pages + page, page[-1]
        assert pages == names[::-1]
        assert await found(store, before="s5", owner="ann") == ["s3", "s1"]
        assert await found(store, before="s4", owner="ann", limit=1) == ["s3"]
        assert await found(store, before="s0") == []

    async def test_new_streams_do_not_shift_pages(self, store: Store) -> None:
        for n in range(4):
            await create(store, f"s{n}")
        first = await found(store, limit=2)
        await create(store, "new")
        assert first + await found(store, before=first[-1], limit=2) == ["s3", "s2", "s1", "s0"]

    async def test_each_filter_and_all_together(self, store: Store, clock: ManualClock) -> None:
        await create_closed(store, "expired", owner="ann", thread_id="t", retention_s=1)
        clock.advance(2)
        await store.apply("expired", Expire(expired_for_s=100, settle_within_s=0))
        await create_closed(store, "closed", owner="ann", thread_id="t")
        await create_closed(store, "unsettled", owner="ann", thread_id="t", needs_settling=True)
        await create(store, "live", owner="ann", thread_id="t", needs_settling=True)
        await create(store, "of bob", owner="bob", thread_id="u")
        await create(store, "of nobody")
        assert await found(store, status=Status.LIVE) == ["of nobody", "of bob", "live"]
        assert await found(store, status=Status.CLOSED) == ["unsettled", "closed"]
        assert await found(store, status=Status.EXPIRED) == ["expired"]
        assert await found(store, owner="bob") == ["of bob"]
        assert await found(store, owner="nobody") == []
        assert await found(store, thread_ids=("t",)) == ["live", "unsettled", "closed", "expired"]
        assert await found(store, thread_ids=("u", "t", "u"), status=Status.LIVE) == ["of bob", "live"]
        assert await found(store, thread_ids=()) == []
        assert await found(store, settled=False) == ["live", "unsettled"]
        assert await found(store, settled=True) == ["of nobody", "of bob", "closed", "expired"]
        query = {"owner": "ann", "thread_ids": ("t", "u"), "settled": False, "status": Status.CLOSED}
        assert await found(store, **query) == ["unsettled"]
        assert await found(store, **query, before="unsettled") == []
        assert len(await found(store)) == 6

    async def test_answers_follow_the_states(self, store: Store, other: Store) -> None:
        lease = await create(store, needs_settling=True)
        assert await found(other, status=Status.LIVE, settled=False) == ["s"]
        await store.apply("s", Close(lease.epoch, COMPLETED))
        assert await found(other, status=Status.LIVE) == []
        assert await found(other, status=Status.CLOSED, settled=False) == ["s"]
        await store.apply("s", Settle())
        assert await found(other, settled=False) == []
        assert await found(other, settled=True) == ["s"]

    async def test_many_threads_in_one_question(self, store: Store) -> None:
        for n in range(5):
            await create(store, f"s{n}", thread_id=f"t{n * 1_000}")
        assert await found(store, thread_ids=tuple(f"t{n}" for n in range(3_500))) == ["s3", "s2", "s1", "s0"]
