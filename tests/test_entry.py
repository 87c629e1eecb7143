"""Stored entries: they come back as they went in, and damaged ones are never taken for anything else."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from playhead.entry import TYPES_MAX, VERSION, pack, unpack
from playhead.errors import StoreCorrupt, StoreError, StoreVersionUnsupported
from playhead.model import TYPE_MAX_BYTES, Batch

GOLDEN = bytes.fromhex(
    "01 02 03000000  04 74657874  02 c3bc  00 01 00  05000000 00000000 02000000  68656c6c6f fffe"
)  # fmt: skip

# Not st.text: lone surrogates shall come up often.
types = st.lists(st.characters() | st.sampled_from("\ud800\udfffü"), min_size=1, max_size=60).map("".join)
types = types.filter(lambda name: len(name.encode("utf-8", "surrogatepass")) <= TYPE_MAX_BYTES)
datas = st.binary(max_size=300)
same_type = st.builds(
    lambda first, name, items: Batch(first, 1, name, items), st.integers(1, 10**12), types, st.lists(datas, min_size=1)
)
own_types = st.builds(
    lambda first, rows: Batch(first, 1, [name for name, _ in rows], [data for _, data in rows]),
    st.integers(1, 10**12),
    st.lists(st.tuples(types, datas), min_size=1, max_size=40),
)
batches = same_type | own_types


def test_the_format_is_the_one_that_was_stored_first() -> None:
    batch = Batch(7, 3, ["text", "ü", "text"], [b"hello", b"", b"\xff\xfe"])
    assert pack(batch) == GOLDEN
    found = unpack(9, 3, GOLDEN)
    assert (found.first, found.last, found.epoch, found.events) == (7, 9, 3, batch.events)


@given(batches)
def test_entries_come_back(batch: Batch) -> None:
    found = unpack(batch.last, 5, pack(batch))
    assert (found.first, found.last, found.epoch, found.size_bytes) == (batch.first, batch.last, 5, batch.size_bytes)
    assert found.events == batch.events


@pytest.mark.parametrize("count", [1, 2, TYPES_MAX - 1, TYPES_MAX])
def test_as_many_types_as_fit(count: int) -> None:
    batch = Batch(1, 1, [f"{n}" for n in range(count)], [b"x"] * count)
    assert unpack(count, 1, pack(batch)).events == batch.events


def test_more_types_than_fit_are_refused() -> None:
    with pytest.raises((struct.error, ValueError)):
        pack(Batch(1, 1, [f"{n}" for n in range(TYPES_MAX + 1)], [b"x"] * (TYPES_MAX + 1)))


@pytest.mark.parametrize("size", [TYPE_MAX_BYTES, TYPE_MAX_BYTES + 1])
def test_types_as_long_as_fit(size: int) -> None:
    batch = Batch(1, 1, "x" * size, [b"data"])
    if size <= TYPE_MAX_BYTES:
        assert unpack(1, 1, pack(batch)).events == batch.events
    else:
        with pytest.raises(ValueError, match="range"):
            pack(batch)


def test_one_type_takes_no_room_per_event() -> None:
    named_once, named_often = Batch(1, 1, "t", [b""] * 9), Batch(1, 1, ["t"] * 9, [b""] * 9)
    assert pack(named_once) == pack(named_often)
    assert isinstance(unpack(9, 1, pack(named_often)).types, str)


def test_a_large_entry() -> None:
    batch = Batch(1, 1, "bytes", [b"x" * 5_000_000, b"", b"y" * 5_000_000])
    assert unpack(3, 1, pack(batch)).events == batch.events


# ---- damage -----------------------------------------------------------------------------------------------


@given(batches, st.data())
def test_truncated_entries_are_corrupt(batch: Batch, data: st.DataObject) -> None:
    entry = pack(batch)
    cut = data.draw(st.integers(0, len(entry) - 1))
    with pytest.raises(StoreCorrupt):
        unpack(batch.last, 1, entry[:cut])


def test_an_entry_truncated_anywhere_is_corrupt() -> None:
    for cut in range(len(GOLDEN)):
        with pytest.raises(StoreCorrupt):
            unpack(9, 3, GOLDEN[:cut])


@given(batches, st.binary(min_size=1, max_size=9))
def test_entries_with_more_behind_are_corrupt(batch: Batch, more: bytes) -> None:
    with pytest.raises(StoreCorrupt):
        unpack(batch.last, 1, pack(batch) + more)


@given(st.integers(0, 255).filter(lambda version: version != VERSION), st.binary(min_size=5))
def test_other_versions_are_named(version: int, rest: bytes) -> None:
    with pytest.raises(StoreVersionUnsupported) as unsupported:
        unpack(1, 1, bytes([version]) + rest)
    assert (unsupported.value.found, unsupported.value.supported) == (version, VERSION)


@given(st.binary(max_size=80))
def test_garbage_is_never_another_error(garbage: bytes) -> None:
    try:
        batch = unpack(10**6, 1, bytes([VERSION]) + garbage)
    except StoreError:
        return
    assert batch.last == 10**6
    assert len(batch.events) == len(batch.datas) > 0


@given(batches, st.data())
def test_a_flipped_byte_is_never_another_error(batch: Batch, data: st.DataObject) -> None:
    entry = bytearray(pack(batch))
    entry[data.draw(st.integers(0, len(entry) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        found = unpack(batch.last, 1, bytes(entry))
    except StoreError:
        return
    assert len(found.events) == len(found.datas) == found.last - found.first + 1
