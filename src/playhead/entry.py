"""How a batch looks on disk: one entry, versioned, the same for every store that keeps bytes.

    byte  0      version (1)
    byte  1      number of types n, 1 to 255
    bytes 2-5    number of events c, unsigned little-endian, as all numbers here
    n times      length of the type (1 byte), the type as UTF-8
    c bytes      index of each event's type (left out when n is 1)
    c × 4 bytes  length of each event's data
    the rest     the data, end to end

The entry says nothing of its place: store, stream, last offset and epoch are its key beside it.
Newer versions must keep reading version 1.
"""

import struct
import sys
from array import array
from collections.abc import Sequence
from functools import lru_cache
from itertools import accumulate, pairwise

from playhead.errors import StoreCorrupt, StoreVersionUnsupported
from playhead.model import Batch

VERSION = 1
TYPES_MAX = 255
_HEAD = struct.Struct("<BBI")


def pack(batch: Batch) -> bytes:
    """The bytes of an entry. A batch holds at most 255 different types (the producer sees to it)."""
    types: Sequence[str]
    if isinstance(batch.types, str):
        types, indexes = [batch.types], b""
    else:
        types = list(dict.fromkeys(batch.types))
        place = {name: index for index, name in enumerate(types)}
        indexes = bytes(map(place.__getitem__, batch.types)) if len(types) > 1 else b""
    lengths = array("I", map(len, batch.datas))
    if sys.byteorder == "big":
        lengths.byteswap()
    head = _HEAD.pack(VERSION, len(types), len(lengths))
    return b"".join([head, *map(_packed_type, types), indexes, lengths, *batch.datas])


@lru_cache
def _packed_type(name: str) -> bytes:
    encoded = name.encode("utf-8", "surrogatepass")
    return bytes([len(encoded)]) + encoded


@lru_cache
def _unpacked_type(name: bytes) -> str:
    return name.decode("utf-8", "surrogatepass")


def unpack(last: int, epoch: int, entry: bytes) -> Batch:
    """The batch of an entry whose last offset is ``last``.

    Raises: StoreVersionUnsupported for a newer entry, StoreCorrupt for one whose lengths do not add up.
    """
    try:
        version, type_count, count = _HEAD.unpack_from(entry)
        if version != VERSION:
            raise StoreVersionUnsupported(
                f"an entry has format {version}; this Playhead reads {VERSION}",
                found=version,
                supported=VERSION,
            )
        at = _HEAD.size
        if count == type_count == 1:  # the usual entry of a stream that nobody hurries
            end = at + 1 + entry[at]
            if len(entry) - end - 4 != int.from_bytes(entry[end : end + 4], "little"):
                raise StoreCorrupt("a stored entry is shorter or longer than its header says")
            return Batch(last, epoch, _unpacked_type(entry[at + 1 : end]), [entry[end + 4 :]])
        types: list[str] = []
        for _ in range(type_count):
            end = at + 1 + entry[at]
            types.append(_unpacked_type(entry[at + 1 : end]))
            at = end
        of_event: str | list[str] = types[0]
        if type_count > 1:
            of_event = [types[index] for index in entry[at : at + count]]
            at += count
        lengths = struct.unpack_from(f"<{count}I", entry, at)
        at += 4 * count
        borders = list(accumulate(lengths, initial=at))
        if borders[-1] != len(entry) or (type_count > 1 and len(of_event) != count):
            raise StoreCorrupt("a stored entry is shorter or longer than its header says")
        datas = [entry[start:end] for start, end in pairwise(borders)]
    except (struct.error, IndexError, UnicodeDecodeError) as error:
        raise StoreCorrupt(f"a stored entry cannot be decoded: {error}") from error
    return Batch(last - count + 1, epoch, of_event, datas)
