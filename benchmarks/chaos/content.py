"""What every stream says: each event is a function of the stream's id and the offset, here and in the servers."""

from zlib import crc32

from playhead.model import TEXT

BYTES, STEP = "bytes", "step"
_PIECES = (
    "plain words ",
    "two\nlines\r\n",
    "data: x\n\n",
    "\0 and \u2028",
    "Grüße, 世界 🌍 ",
    '{"a": "\\"}',
    "",
    "id: 1.2.3.4\n",
)
_LONG_PIECES = 600


def content(stream_id: str, offset: int) -> tuple[str, bytes]:
    """Type and data of one event: mostly text, sometimes steps, bytes that are not UTF-8, and long ones."""
    dice = crc32(f"{stream_id}/{offset}".encode())
    if dice % 23 == 0:
        return BYTES, b"\xff" + dice.to_bytes(4, "big") + offset.to_bytes(4, "big")
    pieces = _LONG_PIECES if dice % 97 == 0 else dice // 8 % 5
    text = f"{stream_id}/{offset} " + _PIECES[dice % 8] * pieces
    return STEP if dice % 17 == 0 else TEXT, text.encode()
