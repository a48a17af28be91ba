"""Canaries: made-up identities, each traceable to the place where it was planted, and the search for them in files."""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import re
import struct
import zipfile
from collections.abc import Iterator
from datetime import date, timedelta
from functools import cached_property
from pathlib import Path

import polars as pl
from PIL import Image
from pydicom.datadict import dictionary_VR
from pydicom.dataset import Dataset

FAMILY, GIVEN, ROOT = "QZWXJK", "VKQFXW", "91719171917191"
"""Texts begin with the first, given names with the second, and UIDs hold the third; a number of four digits follows."""
TIMESTAMP = 3_717_171_717
"""Seconds since 1970 at which every file was changed, as an export leaves it that keeps the time of acquisition."""
PROFILE = tuple(
    word
    for line in Path(__file__).with_name("privacy_profile.txt").read_text().splitlines() if not line.startswith("#")
    for word in line.split()
)
UNTRACEABLE = ("AS", "US")
"""An age in four characters and a 16-bit number are too short to be told from any other."""


class Canaries:
    """Makes one canary a place, in whatever form a value representation asks for (PS3.5, table 6.2-1)."""

    def __init__(self) -> None:
        self._places: dict[str, int] = {}
        self._ids: set[str] = set()
        self._numbers: dict[str, tuple[bytes, ...]] = {
            "GPSDifferential": (b"71717171",), "the files' time": (str(TIMESTAMP).encode(), b"2087-10-1")}

    def text(self, place: str) -> str:
        return self._id(f"{FAMILY}{self._number(place):04d}")

    def person(self, place: str) -> str:
        return self._id(f"{FAMILY}{self._number(place):04d}^{GIVEN}{self._number(place):04d}")

    def uid(self, place: str) -> str:
        return self._id(f"2.25.{ROOT}{self._number(place):04d}")

    def date(self, place: str) -> str:
        return f"{date(1840, 1, 1) + timedelta(days=self._number(place)):%Y%m%d}"

    def time(self, place: str) -> str:
        return f"03{self._number(place) % 3600 // 60:02d}{self._number(place) % 60:02d}.717273"

    def decimal(self, place: str) -> str:
        text = f"7171.7{self._number(place):04d}"
        self._numbers[place] = (text.encode(), struct.pack("<d", float(text)), struct.pack("<f", float(text)))
        return text

    def value(self, keyword: str) -> object:
        """A valid value for a DICOM attribute; a sequence gets an item with names, ids, dates and one more item."""
        vr = dictionary_VR(keyword)
        simple = {"PN": self.person, "DA": self.date, "TM": self.time, "UI": self.uid, "DS": self.decimal}
        if vr in simple:
            return simple[vr](keyword)
        if vr == "DT":
            return self.date(keyword) + self.time(keyword)
        if vr == "SQ":
            return [self._item(keyword, Dataset())]
        if vr in ("OB", "UN"):
            return self.text(keyword).encode()
        other = {"AS": "119Y", "US": 4, "IS": "71717171", "UR": f"http://{self.text(keyword)}.example"}
        return other.get(vr) or self.text(keyword)

    def found(self, content: bytes) -> list[str]:
        """The canaries in some bytes, each by its place and the form in which it stands."""
        if b"\0" in content:  # UTF-16 is text with zeros between
            content = content + b"\n" + content.replace(b"\0", b"")
        small = content.lower()
        hits = [f"{self._place(digits)} as text" for stem in _STEMS if stem.lower().encode() in small
                for digits in re.findall(stem.lower().encode() + rb"(\d{4})?", small)]
        hits += [f"a canary {form}" for form, parts in _HIDDEN.items()
                 if any(part in (content if form == "in base64" else small) for part in parts)]
        hits += [f"a date or time, {match.decode()}" for match in _DATES.findall(content)]
        hits += [f"{place} as a number" for place, forms in self._numbers.items() if any(f in content for f in forms)]
        return hits + [f"{self._hashes[run]} as an unkeyed hash" for run in _hex_runs(content) & self._hashes.keys()]

    def _number(self, place: str) -> int:
        return self._places.setdefault(place, len(self._places))

    def _id(self, text: str) -> str:
        self._ids.add(text)
        return text

    def _item(self, place: str, item: Dataset) -> Dataset:
        inside = f"an item of {place}"
        item.PatientName, item.PatientID = self.person(inside), self.text(inside)
        item.ReferencedSOPInstanceUID, item.StudyDate = self.uid(inside), self.date(inside)
        item.CodeMeaning, item.TextValue = self.text(inside), self.text(inside)
        if not place.startswith("an item of"):
            item.ReferencedStudySequence = [self._item(inside, Dataset())]
        return item

    def _place(self, digits: bytes) -> str:
        return dict(enumerate(self._places)).get(int(digits or -1), "a canary")

    @cached_property
    def _hashes(self) -> dict[str, str]:
        """First 12 hex digits of each id's plain hashes, which anyone who guesses the id could make."""
        return {hashlib.new(kind, known.encode()).hexdigest()[:12]: known
                for known in self._ids for kind in ("md5", "sha1", "sha256")}


def _cases(stem: str) -> list[bytes]:
    return [text.encode() for text in (stem, stem.lower(), stem.title())]


def _in_base64(text: bytes) -> list[bytes]:
    """The characters that stand in base64 wherever `text` begins within a group of three bytes."""
    encoded = [base64.b64encode(b"\0" * before + text + b"\0" * 3) for before in range(3)]
    return [part[-(-8 * n // 6) : 8 * (n + len(text)) // 6] for n, part in enumerate(encoded)]


_STEMS = (FAMILY, GIVEN, ROOT)
_HIDDEN = {
    "backwards": [stem[::-1].lower().encode() for stem in _STEMS],
    "in hexadecimal": [case.hex().encode() for stem in _STEMS for case in _cases(stem)],
    "in base64": [part for stem in _STEMS for case in _cases(stem) for part in _in_base64(case)],
}
_DATES = re.compile(rb"(?<![\d.])18[4-9]\d[-./]?[01]\d[-./]?[0-3]\d(?!\d)|(?<![\d.])[0-3]\d[-./][01]\d[-./]18[4-9]\d"
                    rb"|\d\d:?\d\d:?\d\d\.717273")


def _hex_runs(content: bytes) -> set[str]:
    runs = {run.decode().lower() for run in re.findall(rb"[0-9a-fA-F]{12,}", content)}
    return {run[at : at + 12] for run in runs if len(run) <= 256 for at in range(len(run) - 11)}


def contents(path: Path) -> Iterator[bytes]:
    """A file's bytes, and what stands within them compressed or encoded."""
    raw = path.read_bytes()
    yield raw
    if raw.startswith(b"PAR1"):
        frame = pl.read_parquet(path)
        yield str((frame.schema, pl.read_parquet_metadata(path))).encode()
        yield "\n".join(str(cell) for column in frame for cell in column.to_list()).encode()
    elif raw.startswith(b"PK"):
        with zipfile.ZipFile(io.BytesIO(raw)) as members:
            yield from (members.read(name) for name in members.namelist())
    elif raw.startswith(b"\x1f\x8b"):
        yield gzip.decompress(raw)
    yield from _pictures_text(raw)
    for encoded in re.findall(rb"base64,([A-Za-z0-9+/=\s]+)", raw):
        decoded = base64.b64decode(encoded)
        yield decoded
        yield from _pictures_text(decoded)


def _pictures_text(raw: bytes) -> Iterator[bytes]:
    if raw.startswith((b"\x89PNG", b"\xff\xd8\xff")):
        yield str(Image.open(io.BytesIO(raw)).info).encode()
