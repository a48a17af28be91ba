"""All files of a case on the grid of its first channel: as they are, by their headers, or by what they show."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from medssl.data.files import Files
from medssl.data.grid import require_straight, resample, stored_difference
from medssl.data.registration import register
from medssl.errors import GeometryError, UnreadableScan
from medssl.io.geometry import canonical
from medssl.types import Scan

Align = Literal["refuse", "resample", "register"]

_REMEDY = "set prepare.align to resample (by where its header places it) or to register (rigidly, by what it shows), " \
          "or leave the case out"


def on_one_grid(files: Files, align: Align, straighten: bool) -> dict[str, Scan]:
    """The case's scans by role, on the first channel's grid and oriented alike; GeometryError where they cannot be."""
    first, *others = files.roles
    stored = files.open(first, straighten=straighten)
    if stored.kind != files.kind:
        raise UnreadableScan(f"The file holds a {stored.kind} where the manifest says {files.kind}",
                             expected="the same kind", remedy="mend the card's `kind`, or leave the case out")
    require_straight(stored)
    scans = {first: canonical(stored)}
    for role in others:
        drawn = role == "mask" and files.drawn
        other = _draw(files, stored, align, straighten) if drawn else files.open(role, straighten=straighten)
        if stored_difference(stored, other) is None:  # one grid, whatever two rounded headers say: turned alike
            scans[role] = canonical(replace(other, affine=stored.affine))
        else:
            asked = "resample" if drawn and straighten else align
            scans[role] = _put(canonical(other), scans[first], role, files, asked)
    return scans


def _draw(files: Files, stored: Scan, align: Align, straighten: bool) -> Scan:
    """The mask on the voxels that it was drawn on: those from before they were straightened, or its own."""
    image = files.open(files.channels[0]) if straighten else stored
    try:
        return files.open("mask", image)
    except GeometryError:
        if align == "refuse":
            raise
        return files.open("mask")


def _put(other: Scan, first: Scan, role: str, files: Files, align: Align) -> Scan:
    """One file on the first channel's grid."""
    found = stored_difference(first, other)
    if found is None:  # the same voxels, stored the other way round
        return other
    name = "the mask" if role == "mask" else f"channel {role!r}"
    if other.kind != "volume" or align == "refuse":
        raise GeometryError(f"{name} lies on another grid: {found}",
                            expected=f"the first channel's grid, shape {first.array.shape[1:]}",
                            remedy=_REMEDY if other.kind == "volume" else "leave the case out")
    if role == "mask":
        return resample(other, first, labels=True)
    if align == "register":
        return resample(other, first, register(first, other).matrix)
    if _frames_differ(files, role):
        raise GeometryError(f"{name} lies in another frame of reference than the first", expected="the same one",
                            remedy="set prepare.align to register, or leave the case out")
    return resample(other, first)


def _frames_differ(files: Files, role: str) -> bool:
    """Whether DICOM says that a channel's positions are none in the first channel's space."""
    from medssl.io import frame_of_reference

    return len({frame_of_reference(files.paths[one][0]) for one in (files.channels[0], role)} - {None}) > 1
