"""All files of a case on the grid of its first channel: as they are, by their headers, or by what they show."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from medssl.data.files import Files
from medssl.data.grid import difference, require_straight, resample, stored_difference
from medssl.data.registration import register
from medssl.errors import GeometryError, UnreadableScan
from medssl.io.geometry import canonical
from medssl.types import Scan

Align = Literal["refuse", "resample", "register"]

_REMEDY = "data.prepare.align=resample in the recipe (by where its header places it), or =register (rigidly, by what " \
          "it shows), or leave the case out"


def on_one_grid(files: Files, align: Align, straighten: bool) -> dict[str, Scan]:
    """The case's scans by role, on the first channel's grid and oriented alike; GeometryError where they cannot be."""
    first, *others = files.roles
    stored = files.open(first, straighten=straighten)
    if stored.kind != files.kind:
        raise UnreadableScan(f"The file holds a {stored.kind} where the manifest says {files.kind}",
                             expected="the same kind", remedy="mend the card's `kind`, or leave the case out")
    require_straight(stored)
    scans = {first: canonical(stored)}
    image = _unstraightened(files, stored) if straighten and "mask" in files.paths else stored
    for role in others:
        other = _mask(files, image, stored, align) if role == "mask" else files.open(role, straighten=straighten)
        if stored_difference(stored, other) is None:  # one grid, whatever two rounded headers say: turned alike
            scans[role] = canonical(replace(other, affine=stored.affine))
        else:
            scans[role] = _put(canonical(other), scans[first], role, files, align)
    return scans


def _mask(files: Files, image: Scan, stored: Scan, align: Align) -> Scan:
    """The mask as it is stored, or drawn on the image; where that is its grid, straightened as the image was."""
    try:
        mask = files.open("mask", image)
    except GeometryError:
        if align == "refuse" or not files.drawn:
            raise
        return files.open("mask")
    if stored_difference(stored, image) is None or difference(image, mask):
        return mask
    return resample(mask, stored, labels=True)  # never as an image: between 1 and 3 lies no 2


def _unstraightened(files: Files, stored: Scan) -> Scan:
    """The first channel on its own voxels, on which masks are drawn."""
    if stored.kind != "volume":
        return stored
    try:
        return files.open(files.channels[0])
    except GeometryError:
        raise GeometryError("The image has a mask, and slices at uneven distances, between which it is not drawn",
                            expected="even distances where there is a mask",
                            remedy="leave the mask out, or the case") from None


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
                            remedy="data.prepare.align=register in the recipe, or leave the case out")
    return resample(other, first)


def _frames_differ(files: Files, role: str) -> bool:
    """Whether DICOM says that a channel's positions are none in the first channel's space."""
    from medssl.io import frame_of_reference

    return len({frame_of_reference(files.paths[one][0]) for one in (files.channels[0], role)} - {None}) > 1
