"""Create: what it stores, idempotency by id and by key, one live stream per thread, the owner's limit."""

import asyncio
from functools import partial

import pytest

from playhead.errors import (
    IdempotencyMismatch,
    PlayheadError,
    StreamExpired,
    StreamIdTaken,
    StreamNotFound,
    ThreadBusy,
    TooManyLiveStreams,
)
from playhead.log import Claim, Close, Create, Delete, Expire, Release
from playhead.model import COMPLETED, Status, StreamInfo
from playhead.store import Applied, Query, Store
from playhead.testing.clock import ManualClock
from playhead.testing.suite.case import ODD_TEXTS, StoreCase, append, create, create_closed, proves, race

NOT_JSON_TEXT = 'nul \0, line\r\nend, tab\t, quote", lone \ud800 surrogate, ☃'


def _winners(results: list[Applied | PlayheadError]) -> list[StreamInfo]:
    return [result.info for result in results if isinstance(result, Applied) and result.changed]


class StartingSuite(StoreCase):
    async def test_create_stores_all_that_it_was_given(self, store: Store, other: Store, clock: ManualClock) -> None:
        command = Create(
            producer=store.instance_id,
            thread_id="thread",
            owner="owner",
            idempotency_key="key",
            fingerprint="print",
            metadata={"a": [1, 2.5, None, True], "b": {"c": NOT_JSON_TEXT}, "": ""},
            retention_s=7.5,
            unwatched_after_s=2.5,
            needs_settling=True,
        )
        info, changed = await store.apply("s", command)
        assert changed
        assert info == StreamInfo(
            stream_id="s",
            thread_id="thread",
            owner="owner",
            status=Status.LIVE,
            producer=store.instance_id,
            epoch=info.epoch,
            created_at=clock(),
            settled=False,
            idempotency_key="key",
            fingerprint="print",
            metadata={"a": [1, 2.5, None, True], "b": {"c": NOT_JSON_TEXT}, "": ""},
            retention_s=7.5,
            unwatched_after_s=2.5,
        )
        assert info.epoch >= 1
        assert await store.load("s") == await other.load("s") == info

    async def test_absent_and_empty_are_not_the_same(self, store: Store) -> None:
        await create(store, "absent")
        await create(store, "empty", owner="", thread_id="", idempotency_key="", fingerprint="")
        absent, empty = await store.load("absent"), await store.load("empty")
        assert (absent.owner, absent.thread_id, absent.idempotency_key, absent.fingerprint) == (None,) * 4
        assert (empty.owner, empty.thread_id, empty.idempotency_key, empty.fingerprint) == ("",) * 4

    async def test_metadata_is_a_copy(self, store: Store) -> None:
        mine = {"list": [1]}
        await create(store, metadata=mine)
        mine["list"].append(2)
        assert (await store.load("s")).metadata == {"list": [1]}

    @pytest.mark.parametrize("text", ODD_TEXTS)
    async def test_names_may_be_any_printable_text(self, store: Store, other: Store, text: str) -> None:
        facts = {"thread_id": text, "owner": text, "idempotency_key": text, "fingerprint": text}
        lease = await create(store, text, **facts, metadata={text: text})
        await append(store, lease, 1, text)
        info = await other.load(text)
        assert (info.stream_id, info.thread_id, info.owner, info.idempotency_key) == (text,) * 4
        assert info.metadata == {text: text}
        assert [found.stream_id for found in await other.find(Query(owner=text, thread_ids=(text,)))] == [text]

    async def test_names_are_compared_exactly(self, store: Store) -> None:
        for stream_id in ("a", "A", "a ", "ä", "a\u0308", "%", "_"):
            await create(store, stream_id, owner=stream_id, idempotency_key="k")
        assert len(await store.find(Query())) == 7
        assert [info.stream_id for info in await store.find(Query(owner="a"))] == ["a"]
        assert [info.stream_id for info in await store.find(Query(owner="%"))] == ["%"]

    async def test_unknown_streams_are_not_found(self, store: Store) -> None:
        with pytest.raises(StreamNotFound):
            await store.load("s")
        with pytest.raises(StreamNotFound):
            await store.apply("s", Delete())

    # ---- idempotency -----------------------------------------------------------------------------------

    @proves("P7.3")
    async def test_create_again_by_id_changes_nothing(self, store: Store, other: Store) -> None:
        await create(store, thread_id="t", metadata={"first": True})
        before = await store.load("s")
        again = await other.apply("s", Create(producer=other.instance_id, thread_id="t", metadata={"first": False}))
        assert again == (before, False)
        assert await store.load("s") == before

    @proves("P7.3")
    async def test_create_with_a_known_key_goes_to_that_stream(self, store: Store, other: Store) -> None:
        await create(store, "first", idempotency_key="k")
        again = await other.apply("second", Create(producer=other.instance_id, idempotency_key="k"))
        assert (again.info.stream_id, again.changed) == ("first", False)
        with pytest.raises(StreamNotFound):
            await store.load("second")

    async def test_a_known_key_wins_over_a_known_id(self, store: Store) -> None:
        await create(store, "first", idempotency_key="k")
        await create(store, "second")
        again = await store.apply("second", Create(producer=store.instance_id, idempotency_key="k"))
        assert (again.info.stream_id, again.changed) == ("first", False)

    async def test_a_known_key_works_when_closed_too(self, store: Store) -> None:
        closed = await create_closed(store, idempotency_key="k")
        again = await store.apply("second", Create(producer=store.instance_id, idempotency_key="k"))
        assert again == (closed, False)

    async def test_keys_are_the_owners_own(self, store: Store) -> None:
        for owner in (None, "", "ann", "bob"):
            lease = await create(store, f"of {owner}", owner=owner, idempotency_key="k")
            assert lease.stream_id == f"of {owner}"

    @proves("P7.3")
    async def test_a_key_with_another_request_is_a_mismatch(self, store: Store) -> None:
        await create(store, thread_id="t", idempotency_key="k", fingerprint="f")
        for change in ({"fingerprint": "g"}, {"thread_id": "u"}, {"fingerprint": None}, {"thread_id": None}):
            facts = {"thread_id": "t", "idempotency_key": "k", "fingerprint": "f", **change}
            with pytest.raises(IdempotencyMismatch):
                await create(store, "second", **facts)
        assert len(await store.find(Query())) == 1

    async def test_p12_another_owners_id_is_taken(self, store: Store) -> None:
        await create(store, owner="ann")
        for owner in ("bob", None):
            with pytest.raises(StreamIdTaken):
                await create(store, owner=owner)

    async def test_a_key_lives_as_long_as_its_stream(self, store: Store, clock: ManualClock) -> None:
        await create_closed(store, "first", idempotency_key="k", retention_s=1)
        clock.advance(2)
        await store.apply("first", Expire(expired_for_s=1, settle_within_s=0))
        with pytest.raises(StreamExpired):
            await create(store, "second", idempotency_key="k")
        clock.advance(2)
        await store.apply("first", Expire(expired_for_s=1, settle_within_s=0))
        assert (await create(store, "second", idempotency_key="k")).stream_id == "second"

    @proves("P7.3")
    async def test_racing_creates_of_one_key_make_one_stream(self, store: Store, other: Store) -> None:
        for turn in range(5):
            calls = [
                partial(at.apply, f"{turn}-{n}", Create(at.instance_id, idempotency_key=f"k{turn}"))
                for n, at in enumerate([store, other] * 4)
            ]
            results = await race(*calls)
            winner = _winners(results)
            assert len(winner) == 1
            assert {r.info.stream_id for r in results if isinstance(r, Applied)} == {winner[0].stream_id}
            assert len(results) == 8 == sum(isinstance(r, Applied) for r in results)

    @proves("P7.3")
    async def test_racing_creates_of_one_id_have_one_producer(self, store: Store, other: Store) -> None:
        for turn in range(5):
            calls = [partial(at.apply, f"s{turn}", Create(at.instance_id)) for at in [store, other] * 4]
            results = await race(*calls)
            winner = _winners(results)
            assert len(winner) == 1
            assert await store.load(f"s{turn}") == winner[0]

    # ---- limits ----------------------------------------------------------------------------------------

    @proves("P7.4")
    async def test_a_thread_has_one_live_stream(self, store: Store, other: Store) -> None:
        lease = await create(store, "first", thread_id="t")
        with pytest.raises(ThreadBusy) as busy:
            await create(other, "second", thread_id="t")
        assert (busy.value.stream_id, busy.value.thread_id) == ("first", "t")
        with pytest.raises(StreamNotFound):
            await other.load("second")
        await create(other, "elsewhere", thread_id="u")
        await store.apply("first", Release(lease.epoch))
        with pytest.raises(ThreadBusy):
            await create(other, "second", thread_id="t")
        claimed = await store.apply("first", Claim(store.instance_id))
        await store.apply("first", Close(claimed.info.epoch, COMPLETED))
        await create(other, "second", thread_id="t")

    async def test_streams_without_a_thread_do_not_hinder_each_other(self, store: Store) -> None:
        for n in range(3):
            await create(store, f"s{n}")
        assert len(await store.find(Query(status=Status.LIVE))) == 3

    @proves("P7.4")
    async def test_racing_creates_on_one_thread_make_one_stream(self, store: Store, other: Store) -> None:
        for turn in range(5):
            calls = [
                partial(at.apply, f"{turn}-{n}", Create(at.instance_id, thread_id=f"t{turn}"))
                for n, at in enumerate([store, other] * 4)
            ]
            results = await race(*calls)
            winner = _winners(results)
            assert len(winner) == 1
            lost = [error for error in results if isinstance(error, ThreadBusy)]
            assert len(lost) == 7
            assert {error.stream_id for error in lost} == {winner[0].stream_id}

    async def test_an_owner_has_so_many_live_streams(self, store: Store, other: Store) -> None:
        leases = [await create(store, f"s{n}", owner="ann", live_per_owner_max=2) for n in range(2)]
        with pytest.raises(TooManyLiveStreams) as refused:
            await create(other, "s2", owner="ann", live_per_owner_max=2)
        assert refused.value.limit == 2
        await create(other, "of bob", owner="bob", live_per_owner_max=2)
        assert (await create(other, "s0", owner="ann", live_per_owner_max=2)).stream_id == "s0"
        await store.apply("s0", Close(leases[0].epoch, COMPLETED))
        await create(other, "s2", owner="ann", live_per_owner_max=2)

    async def test_racing_creates_keep_to_the_limit(self, store: Store, other: Store) -> None:
        calls = [
            partial(at.apply, f"s{n}", Create(at.instance_id, owner="ann", live_per_owner_max=3))
            for n, at in enumerate([store, other] * 4)
        ]
        results = await race(*calls)
        assert len(_winners(results)) == 3
        assert sum(isinstance(error, TooManyLiveStreams) for error in results) == 5

    async def test_p10_a_cancelled_command_breaks_nothing(self, store: Store, other: Store) -> None:
        for steps in range(6):
            task = asyncio.ensure_future(store.apply(f"s{steps}", Create(store.instance_id)))
            for _ in range(steps):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            lease = await create(store, f"s{steps}")
            await append(store, lease, 1, "hello")
            assert (await other.load(f"s{steps}")).tail == 1
