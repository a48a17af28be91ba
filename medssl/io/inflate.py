"""Gzip and zlib streams, inflated only as far as somebody asked: a bomb stops where its header's claim does."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np

from medssl.errors import UnreadableScan
from medssl.io.limits import CUT, require_deflated, require_room, require_stored

GZIP = b"\x1f\x8b\x08"  # with deflate, the only method there is (RFC 1952, 2.3.1)
_WITH_GZIP_HEADER, _WITH_ZLIB_HEADER, _BARE = 31, 15, -15  # wbits, as zlib has it
_READ, _INFLATED = 1 << 16, 1 << 20
"""Bytes that are taken from a file, and given out, at a time: a bomb has no more than this in memory."""


def first_bytes(path: Path, count: int) -> bytes:
    """The first bytes of a file's content, inflated where it is gzipped; fewer where there are no more."""
    with open(path, "rb") as file:
        start = file.read(count)
        if not start.startswith(GZIP):
            return start
        file.seek(0)
        found = b""
        for piece in _content(file, most=count):
            found += piece
            if len(found) >= count:
                break
    return found[:count]


def read_values(path: Path, dtype: np.dtype, count: int, offset: int) -> np.ndarray:
    """`count` values from `offset` bytes into a file's content; UnreadableScan before memory is taken if it is short.

    A gzip stream is inflated into the array and then read to its end, where its checksum stands.
    """
    declared, present = offset + count * dtype.itemsize, path.stat().st_size
    with open(path, "rb") as file:
        gzipped = file.read(len(GZIP)) == GZIP
        file.seek(0)
        if not gzipped:
            require_stored(declared, present)
            return np.fromfile(file, dtype, count, offset=offset)
        require_deflated(declared, present)
        values, at = np.empty(count, dtype), 0
        into = memoryview(values.view(np.uint8))
        for piece in _content(file):
            wanted = piece[max(offset - at, 0) : max(declared - at, 0)]
            start = max(at - offset, 0)
            into[start : start + len(wanted)] = wanted
            at += len(piece)
            require_room(at)
    require_stored(declared, at)
    return values


def require_whole(path: Path, offset: int, declared: int = 0, *, bare: bool = False) -> None:
    """UnreadableScan where the zlib or gzip stream that begins at `offset` is damaged, holds less than `declared`
    bytes, or more than a scan may hold. Nothing is kept: for readers that inflate by themselves, and without a limit.

    Args:
        bare: the stream has no header of its own (RFC 1951).
    """
    require_deflated(declared, path.stat().st_size)
    with open(path, "rb") as file:
        file.seek(offset)
        form = _WITH_GZIP_HEADER if file.read(len(GZIP)) == GZIP else _WITH_ZLIB_HEADER
        form = _BARE if bare else form
        file.seek(offset)
        at = 0
        for piece in _content(file, form=form):
            at += len(piece)
            require_room(at)
    require_stored(declared, at)


def _content(file: BinaryIO, most: int = _INFLATED, form: int = _WITH_GZIP_HEADER) -> Iterator[bytes]:
    """What a gzip stream holds, in pieces of at most `most` bytes; UnreadableScan where it is cut off or damaged.

    Several members are one content (RFC 1952, 2.2); what is no member and follows the last one is ignored, as gzip
    does.
    """
    from isal import isal_zlib

    member = isal_zlib.decompressobj(form)
    packed = file.read(_READ)
    try:
        while packed:
            yield member.decompress(packed, most)
            packed = member.unused_data if member.eof else member.unconsumed_tail
            if len(packed) < len(GZIP):
                packed += file.read(_READ)
            if member.eof:
                if not packed.startswith(GZIP):
                    return
                member = isal_zlib.decompressobj(form)
    except isal_zlib.IsalError:
        pass
    raise UnreadableScan(
        "The compressed stream is cut off or damaged", expected="a whole file", remedy=CUT
    )
