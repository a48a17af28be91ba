"""A DICOM header: the attributes that count, by keyword, and where the pixels begin.

Nearly every file in an archive is plain: little-endian, its attributes single elements in ascending order. Those are
walked here, several times faster than by pydicom, which counts where a scan is a thousand files. Whatever is out of the
ordinary is left to pydicom. Where both give an answer it is the same; this one does not look into sequences that nobody
asked for, and so reads files in which such a one is damaged.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from medssl.io.bounded import opened

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

Attributes = Mapping[str, Any]
"""DICOM keyword -> value: what a Dataset, a plain header and a frame have in common."""

DEFLATED = "1.2.840.10008.1.2.1.99"
_IMPLICIT, _EXPLICIT, _BIG_ENDIAN = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2"
_ENCAPSULATED = ("1.2.840.10008.1.2.4.", "1.2.840.10008.1.2.5")
_BEFORE_PIXELS = {_IMPLICIT: 8, _EXPLICIT: 12}  # bytes from PixelData's tag to its value

_FIRST_READ, _MOST_READ = 1 << 14, 1 << 22
_META_START = 132
_META = {0x00020002: ("sop", b"UI"), 0x00020010: ("syntax", b"UI")}
_CHARACTER_SET = 0x00080005
_ENCODINGS = {"": "ascii", "ISO_IR 6": "ascii", "ISO_IR 100": "latin-1", "ISO_IR 192": "utf-8"}
"""SpecificCharacterSet (PS3.3 C.12.1.1.2); any other is pydicom's to decode."""
_PIXEL_DATA = 0x7FE00010
_ITEM, _ITEM_ENDS, _SEQUENCE_ENDS = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_UNDEFINED = 0xFFFFFFFF
_DEEPEST = 16
_LONG = frozenset({b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"})
"""VRs whose length takes four bytes after two that are reserved (PS3.5 7.1.2); that of others takes two."""
_NUMBERS = {b"US": "H", b"SS": "h", b"UL": "I", b"SL": "i", b"FL": "f", b"FD": "d"}
_TEXTS: Mapping[bytes, Callable[[str], Any]] = {
    b"DS": float, b"IS": int,
    **dict.fromkeys((b"AS", b"CS", b"DA", b"DT", b"LO", b"PN", b"SH", b"TM", b"UI"), str),
}  # fmt: skip
_SHORT = frozenset({*_NUMBERS, *_TEXTS, b"AE", b"AT", b"LT", b"ST"})


@dataclass(frozen=True)
class Header:
    """attributes: as asked for. syntax: transfer syntax UID. sop_class: as the file meta information names it, or "".

    offset: where plain pixels begin, else None; has_pixels: whether PixelData is the next element at all.
    """

    attributes: Attributes
    syntax: str
    sop_class: str
    offset: int | None
    has_pixels: bool


def read_header(path: Path, keywords: tuple[str, ...]) -> Header:
    """A file's header, with those of the attributes that it has, sequences among them."""
    with opened(path) as file:
        return plain_header(file, keywords) or pydicom_header(file, keywords)


def pydicom_header(file: BinaryIO, keywords: Collection[str]) -> Header:
    """The header of any file that pydicom reads."""
    from pydicom import dcmread

    file.seek(0)
    data = dcmread(file, force=True, stop_before_pixels=True, specific_tags=list(keywords))
    meta = getattr(data, "file_meta", {})
    syntax = str(meta.get("TransferSyntaxUID") or _syntax_found(data))
    return Header(data, syntax, str(meta.get("MediaStorageSOPClassUID") or ""), *_pixels_ahead(file, syntax))


def _syntax_found(data: Dataset) -> str:
    """As pydicom found the dataset to be encoded."""
    implicit, little = data.original_encoding
    return _IMPLICIT if implicit else _EXPLICIT if little else _BIG_ENDIAN


def _pixels_ahead(file: BinaryIO, syntax: str) -> tuple[int | None, bool]:
    at, tag = file.tell(), file.read(4)
    if tag not in (b"\xe0\x7f\x10\x00", b"\x7f\xe0\x00\x10"):
        return None, False
    skip = _BEFORE_PIXELS.get(syntax)
    length = file.read(skip - 4)[-4:] if skip else b""
    return (at + skip if skip and length != b"\xff\xff\xff\xff" else None), True


# -------------------------------------------------------------------------------------------------------- plain files

class _NotPlain(Exception):
    pass


class _CutShort(Exception):
    """The header is longer than what was read of the file."""


def plain_header(file: BinaryIO, keywords: tuple[str, ...]) -> Header | None:
    """The header of a plain file; None for any other, and for a damaged one."""
    size = _FIRST_READ
    while size <= _MOST_READ:
        file.seek(0)
        data = file.read(size)
        try:
            return _parsed(data, _wanted(keywords))
        except (_NotPlain, ValueError):  # no number, or no text in its encoding
            return None
        except (_CutShort, struct.error):
            if len(data) < size:
                return None
        size *= 4
    return None


@lru_cache(maxsize=4)
def _wanted(keywords: tuple[str, ...]) -> dict[int, tuple[str, bytes]]:
    """Tag -> keyword, and the VR that it has where a file does not say."""
    from pydicom.datadict import dictionary_VR, tag_for_keyword

    tags = {keyword: tag_for_keyword(keyword) for keyword in keywords}
    return {tag: (keyword, dictionary_VR(tag)[:2].encode()) for keyword, tag in tags.items()}


def _parsed(data: bytes, wanted: Mapping[int, tuple[str, bytes]]) -> Header:
    if data[_META_START - 4 : _META_START] != b"DICM":
        raise _NotPlain
    meta, at = _elements(data, _META_START, True, _META, 0x00020000, 0x00030000)
    syntax = str(meta.get("syntax"))  # several, where it is damaged
    if syntax not in _BEFORE_PIXELS and not syntax.startswith(_ENCAPSULATED):
        raise _NotPlain
    values, at = _elements(data, at, syntax != _IMPLICIT, wanted, 0x00040000, _PIXEL_DATA)
    if _tag(data, at) != _PIXEL_DATA:
        raise _NotPlain
    skip = _BEFORE_PIXELS.get(syntax)
    plain = skip and struct.unpack_from("<I", data, at + skip - 4)[0] != _UNDEFINED
    return Header(values, syntax, str(meta.get("sop", "")), at + skip if plain else None, True)


def _elements(
    data: bytes, at: int, explicit: bool, wanted: Mapping[int, tuple[str, bytes]], lowest: int, end: int
) -> tuple[dict[str, Any], int]:
    """The wanted elements from `at` on, of tags from `lowest` to before `end`; and where the next one begins."""
    values: dict[str, Any] = {}
    last, encoding = lowest - 1, "ascii"
    while (tag := _tag(data, at)) < end:
        if tag <= last:
            raise _NotPlain
        vr, start, length = _element(data, at, explicit)
        at = _after(data, start, explicit) if length == _UNDEFINED else start + length
        if at > len(data):
            raise _CutShort
        if length and tag == _CHARACTER_SET:
            encoding = _encoding(data[start:at])
        elif length and (found := wanted.get(tag)):
            value = _value(vr or found[1], data[start:at], encoding)
            if value is not None:
                values[found[0]] = value
        last = tag
    return values, at


def _tag(data: bytes, at: int) -> int:
    group, element = struct.unpack_from("<HH", data, at)
    return group << 16 | element


def _element(data: bytes, at: int, explicit: bool) -> tuple[bytes, int, int]:
    """VR (b"" where the file does not say), where the value begins, and its length in bytes."""
    if not explicit:
        return b"", at + 8, struct.unpack_from("<I", data, at + 4)[0]
    vr = data[at + 4 : at + 6]
    if vr in _SHORT:
        return vr, at + 8, struct.unpack_from("<H", data, at + 6)[0]
    if vr in _LONG:
        return vr, at + 12, struct.unpack_from("<I", data, at + 8)[0]
    raise _NotPlain


def _after(data: bytes, at: int, explicit: bool, ends: int = _SEQUENCE_ENDS, depth: int = 0) -> int:
    """Where a sequence, or an item of one, ends that begins at `at` and does not tell its length (PS3.5 7.5)."""
    if depth > _DEEPEST:
        raise _NotPlain
    while (tag := _tag(data, at)) != ends:
        if ends == _ITEM_ENDS:
            vr, start, length = _element(data, at, explicit)
            within = _SEQUENCE_ENDS
        else:
            vr, start, length = b"", at + 8, struct.unpack_from("<I", data, at + 4)[0]
            within = _ITEM_ENDS
        if (tag == _ITEM) is (ends == _ITEM_ENDS) or (vr == b"UN" and length == _UNDEFINED):  # that one is implicit
            raise _NotPlain
        at = _after(data, start, explicit, within, depth + 1) if length == _UNDEFINED else start + length
    return at + 8


def _encoding(raw: bytes) -> str:
    name = raw.decode("ascii").strip("\0 ")
    if name not in _ENCODINGS:
        raise _NotPlain
    return _ENCODINGS[name]


def _value(vr: bytes, raw: bytes, encoding: str) -> Any:
    """One value, or a list of several; None where there is none."""
    if number := _NUMBERS.get(vr):
        count, rest = divmod(len(raw), struct.calcsize(number))
        if rest:
            raise _NotPlain
        values = struct.unpack(f"<{count}{number}", raw)
    elif (kind := _TEXTS.get(vr)) and b"\x1b" not in raw:  # an escape begins another character set
        text = raw.decode(encoding).rstrip("\0 ")
        if not text:
            return None
        values = [kind(part) for part in text.split("\\")]
    else:
        raise _NotPlain
    return values[0] if len(values) == 1 else list(values)
