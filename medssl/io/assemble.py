"""Slices to scans: stacks, phases, clips; and the slices that make none, each with the reason."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any, Literal

import numpy as np

from medssl.errors import MedsslError, UnreadableScan
from medssl.io import duplicates
from medssl.io.dicom import Instance
from medssl.io.found import FoundScan
from medssl.io.phases import frame_time, phases_of
from medssl.io.pixels import stacked, values
from medssl.io.sector import Box, marked_outside
from medssl.io.series import grid_of, places, read_volume, stacks
from medssl.io.voi import lut_of
from medssl.types import Kind, Scan

Time = Literal["phases", "clips"]

_BURNED = "burned_in_annotation"


@dataclass(frozen=True)
class Assembly:
    """Instances that make one scan: a picture, a volume in the order of its places, or a clip in that of its times."""

    kind: Kind
    parts: tuple[Instance, ...]
    header: Mapping[str, Any] = field(default_factory=dict)

    def found(self) -> FoundScan:
        """What a walk yields of it."""
        first = self.parts[0]
        paths = tuple(dict.fromkeys(one.path for one in self.parts))
        return FoundScan(
            paths, self.kind, first.modality, first.patient, first.study, first.series, self._header,
            accession=first.accession, description=first.description, size=self.size,
            part=None if first.frame is None else 1 + min(one.frame for one in self.parts),
        )  # fmt: skip

    @property
    def size(self) -> tuple[int, ...]:
        """Voxels (K, J, I), (T, J, I) or (J, I)."""
        first = self.parts[0]
        count = len(self.parts) if len(self.parts) > 1 else first.frames if first.frame is None else 1
        top, bottom, left, right = self._sector or (0, first.rows, 0, first.columns)
        return (*((count,) if self.kind != "image" else ()), bottom - top, right - left)

    @property
    def _sector(self) -> Box | None:
        """What is kept of each picture; None: all of it, as of slices, whose place in the patient counts."""
        return self.parts[0].sector if len(self.parts) == 1 and self.parts[0].frame is None else None

    @property
    def _header(self) -> dict[str, Any]:
        """The first part's, but for text that is burned into any of them."""
        burned = any(one.header.get(_BURNED) == "YES" for one in self.parts)
        return {**self.parts[0].header, **self.header, **({_BURNED: "YES"} if burned else {})}

    def read(self, straighten: bool = False) -> Scan:
        """The scan itself; GeometryError where the slices of a volume are not even."""
        first = self.parts[0]
        if self.kind == "volume":
            scan = read_volume(self.parts, straighten)
            return replace(scan, header={**scan.header, **self._header})
        if len(self.parts) > 1:
            array, time = stacked(self.parts)[None], frame_time(self.parts)
        else:
            array, time = _channels(values(first), self.kind), first.frame_time if self.kind == "cine" else None
        header = {**self._header, **lut_of(first.path, first.mirror)}
        if self._sector:
            header["marks_outside_regions"] = marked_outside(array, self._sector)
            top, bottom, left, right = self._sector
            array = array[..., top:bottom, left:right]
        return Scan(np.ascontiguousarray(array), self.kind, first.modality, None, first.spacing, time, header)


_WHOLE = "export the series again, with all of its slices"


@dataclass(frozen=True)
class Refused:
    """Slices that make no scan, and why."""

    parts: tuple[Instance, ...]
    error: MedsslError


def _channels(pictures: np.ndarray, kind: Kind) -> np.ndarray:
    """(J, I), (T, J, I) get a channel; colour has its channels in front already."""
    return pictures[None] if pictures.ndim == (3 if kind == "cine" else 2) else pictures


def assemble(slices: Sequence[Instance], time: Time, straighten: bool) -> list[Assembly | Refused]:
    """Every slice ends in one Assembly or Refused.

    Args:
        time: a 4-D series as one volume a phase, or as one clip a place where times tell its slices apart.
        straighten: whether stacks count as sound that are so only once they are straightened.
    """
    return [one for stack in stacks(slices) for one in _of_stack(stack, time, straighten)]


def _of_stack(stack: list[Instance], time: Time, straighten: bool) -> Iterator[Assembly | Refused]:
    own = []
    for place in places(stack):
        kept, copies = duplicates.split_copies(place) if len(place) > 1 else (place, [])
        own.append(kept)
        if copies:
            yield Refused(tuple(copies), UnreadableScan(duplicates.SLICE, remedy=duplicates.REMEDY))
    slices = tuple(chain(*own))
    if len(slices) == len(own):
        yield _sound(Assembly("volume" if len(own) > 1 else "image", slices), straighten)
        return
    try:
        phases = phases_of(own)
    except MedsslError as error:
        yield Refused(slices, error)
        return
    if time == "clips" and phases.timed:
        for number, clip in phases.clips():
            yield Assembly("cine" if len(clip) > 1 else "image", tuple(clip), {"slice": number, "slices": len(own)})
        return
    volumes = phases.volumes()
    for number, volume in enumerate(volumes, start=1):
        if len(volume) < len(own):
            why = f"Phase {number} of {len(volumes)} has {len(volume)} of {len(own)} slices"
            yield Refused(tuple(volume), UnreadableScan(why, expected="one slice a place", remedy=_WHOLE))
        else:
            header = {"phase": number, "phases": len(volumes)}
            yield _sound(Assembly("volume" if len(own) > 1 else "image", tuple(volume), header), straighten)


def _sound(assembly: Assembly, straighten: bool) -> Assembly | Refused:
    """The same, unless it is a volume whose slices make none."""
    try:
        if assembly.kind == "volume":
            grid_of(assembly.parts, straighten)
    except MedsslError as error:
        return Refused(assembly.parts, error)
    return assembly
