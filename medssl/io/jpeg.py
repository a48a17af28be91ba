"""Headers of JPEG streams, looked at before GDCM decodes them: where they are damaged it ends the process.

It decodes what pydicom's other plugins do not (lossless JPEG), and within SimpleITK JPEG of 12 bits.
"""

from __future__ import annotations

from medssl.errors import UnreadableScan
from medssl.io.limits import CUT

_SOI, _SOS, _DHT = 0xD8, 0xDA, 0xC4
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
"""SOF: a frame of any process (ISO/IEC 10918-1, table B.1)."""
_CODES = 256
"""The most that a Huffman table holds (F.1.2, H.1.2.2)."""


def require_headers(stream: bytes, rows: int, columns: int, samples: int, bits: int) -> None:
    """UnreadableScan unless a picture of this size begins with whole marker segments, in an order that can be decoded.

    Args:
        bits: the most that a sample may have.
    """
    try:
        sound = _is_sound(stream, (rows, columns, samples), bits)
    except IndexError:
        sound = False
    if not sound:
        raise UnreadableScan(
            "Damaged pixel data: the headers of a JPEG stream",
            expected=f"a picture of {rows} × {columns} pixels, and the tables that it is decoded with",
            remedy=CUT,
        )


def _is_sound(stream: bytes, size: tuple[int, int, int], bits: int) -> bool:
    at, components, tables = 2, None, set()
    if stream[:2] != bytes((0xFF, _SOI)):
        return False
    while stream[at] == 0xFF:
        marker = stream[at + 1]
        if marker == 0xFF:  # a fill byte
            at += 1
            continue
        length = int.from_bytes(stream[at + 2 : at + 4], "big")
        body, at = stream[at + 4 : at + 2 + length], at + 2 + length
        if len(body) != length - 2:
            return False
        if marker in _FRAMES and components is None:
            components = _components(body, size, bits)
        elif marker == _DHT and (found := _tables(body)):
            tables |= found
        elif marker == _SOS:
            return bool(components) and _decodes(body, components, tables)
        elif marker in _FRAMES or marker == _DHT:
            return False
    return False


def _components(body: bytes, size: tuple[int, int, int], bits: int) -> set[int] | None:
    """The components of a frame header (B.2.2), or None."""
    rows, columns = (int.from_bytes(body[at : at + 2], "big") for at in (1, 3))
    sampling = {factor for each in body[7::3] for factor in divmod(each, 16)}
    sound = (rows, columns, body[5]) == size and 2 <= body[0] <= bits and len(body) == 6 + 3 * body[5]
    return set(body[6::3]) if sound and sampling <= {1, 2, 3, 4} else None


def _tables(body: bytes) -> set[int] | None:
    """Which Huffman tables a segment defines, class and number in one (B.2.4.2), or None."""
    found, at = set(), 0
    while at < len(body):
        codes = sum(body[at + 1 : at + 17])
        if body[at] & 0xEF > 3 or codes > _CODES:
            return None
        found.add(body[at])
        at += 17 + codes
    return found if at == len(body) else None


def _decodes(body: bytes, components: set[int], tables: set[int]) -> bool:
    """Whether a scan header (B.2.3) asks for components and tables that are there."""
    count = body[0]
    asked, coded = set(body[1 : 1 + 2 * count : 2]), {each >> 4 for each in body[2 : 2 + 2 * count : 2]}
    return len(body) == 4 + 2 * count and count >= 1 and asked <= components and coded <= tables
