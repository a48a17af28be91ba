"""The same picture twice: copies that an archive or a second export left among the files."""

from __future__ import annotations

import filecmp
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from medssl.io.dicom import Instance, read_instances
from medssl.io.pixels import values

REMEDY = "none needed: the other one is used"
SLICE = "A duplicate of another slice"
FILE = "A duplicate of another file: the same SOPInstanceUID and the same pixels"


def split_copies(place: Sequence[Instance]) -> tuple[list[Instance], list[Instance]]:
    """The slices of one place as (those that differ, copies of them).

    A copy is told from its original by no mark (io/marks.py), and has its SOPInstanceUID or its pixels. Blank slices of
    two phases are no copies: their marks differ. Of copies the largest file is kept, since the smaller may be cut.
    """
    alike: dict[frozenset, list[Instance]] = {}
    for one in place:
        alike.setdefault(frozenset(one.marks.items()), []).append(one)
    kept: list[Instance] = []
    copies: list[Instance] = []
    for group in alike.values():
        if len(group) > 1:
            group.sort(key=lambda one: -one.path.stat().st_size)
        originals: list[Instance] = []
        for one in group:
            copied = any(_same_uid(one, other) or _same_pixels(one, other) for other in originals)
            (copies if copied else originals).append(one)
        kept += originals
    return kept, copies


class Seen:
    """The images and clips of a walk so far: remembers one file for each SOPInstanceUID, and nothing else of it."""

    def __init__(self) -> None:
        self._first: dict[int, Path] = {}

    def has_copy_of(self, one: Instance) -> bool:
        """Whether a file seen before has the same SOPInstanceUID and the same pixels."""
        if one.uid is None:
            return False
        key = hash((one.patient, one.study, one.series, one.uid, one.rows, one.columns, one.frames))
        first = self._first.setdefault(key, one.path)
        return first != one.path and _same_pixels(read_instances(first)[0], one)


def _same_uid(a: Instance, b: Instance) -> bool:
    return a.uid is not None and (a.uid, a.number) == (b.uid, b.number) and a.frame is b.frame is None


def _same_pixels(a: Instance, b: Instance) -> bool:
    """Whether two pictures agree in every value; False where one of them cannot be read."""
    if a.frame is b.frame is None and filecmp.cmp(a.path, b.path, shallow=False):
        return True
    try:
        return np.array_equal(values(a), values(b))
    except Exception:  # a damaged file is a copy of nothing: it will say so when it is opened
        return False
