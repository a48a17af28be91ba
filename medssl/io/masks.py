"""Masks where hospitals keep them, DICOM segmentations and RT structure sets, drawn on the grid of an image.

Names say what is wanted: `{1: ["tumou?r", "GTV.*"], 2: ["oedema"]}` gives 1 to the voxels of every structure whose name
matches one of the first two regular expressions as a whole, whatever its capitals. Where structures overlap, the value
named first stays. The names in the files are free text, which may name people: none is printed or kept.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from medssl.errors import GeometryError, UnreadableScan
from medssl.io import segmentation, structure_set
from medssl.io.bounded import parsed
from medssl.io.found import FoundMask
from medssl.io.geometry import spacing_of
from medssl.types import Scan

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

Structures = Mapping[int, Sequence[str]]

_REMEDY = "list its structures under `structures` in a card, if they are to be a mask"

_FORMATS = {
    "1.2.840.10008.5.1.4.1.1.66.4": segmentation,
    "1.2.840.10008.5.1.4.1.1.66.7": segmentation,  # label maps
    "1.2.840.10008.5.1.4.1.1.481.3": structure_set,
}
"""By storage SOP class (PS3.4, annex B.5); each has `names`, `series`, `frames_of_reference`, `grid` and `draw`."""


def value_of(name: str, structures: Structures) -> int | None:
    """The mask value of a structure of this name; None where no regular expression matches it."""
    for value, patterns in structures.items():
        if any(re.fullmatch(pattern, name, re.IGNORECASE) for pattern in patterns):
            return value
    return None


def inspect_mask(path: Path, reason: str = "") -> FoundMask | None:
    """A segmentation or structure set, known from its header alone; None for any other DICOM file."""
    wanted = ["SOPClassUID", *segmentation.TOLD, *structure_set.TOLD]
    data = parsed(path, stop_before_pixels=True, specific_tags=wanted)
    format_ = _FORMATS.get(data.get("SOPClassUID"))
    if format_ is None:
        return None
    names = dict.fromkeys(format_.names(data).values())
    return FoundMask(path, reason, _REMEDY, refers_to=frozenset(format_.series(data)), structures=tuple(names))


def read_mask(
    paths: Sequence[Path], structures: Structures, image: Scan | None, frame_of_reference: str | None
) -> Scan:
    """The structures of one or more files as one mask, (1, K, J, I) uint8; what is not drawn is 0.

    Args:
        image: a volume, on whose voxels the structures are drawn; None: on the first segmentation's own.
        frame_of_reference: the image's FrameOfReferenceUID, which the masks must share; None where it has none.

    Raises:
        GeometryError: frames or contours that do not lie on those voxels, or in another frame of reference.
        UnreadableScan: no such file, two files that draw the same value, or nothing drawn at all.
    """
    files = [parsed(path) for path in paths]
    if any(data.get("SOPClassUID") not in _FORMATS for data in files):
        raise UnreadableScan("The mask is no DICOM segmentation or RT structure set",
                             expected="one of these, since the card has `structures`",
                             remedy="remove them for masks of other formats")
    shape, affine = _FORMATS[files[0].SOPClassUID].grid(files[0]) if image is None else _grid_of(image)
    mask = np.zeros(shape, dtype=np.uint8)
    drawn: dict[int, np.ndarray] = {}
    for data in files:
        mine = _drawn(data, structures, shape, affine, frame_of_reference)
        if twice := drawn.keys() & mine.keys():
            raise UnreadableScan(f"Several files draw structures of value {min(twice)}",
                                 expected="one file for each value", remedy="keep one of them")
        drawn |= mine
    if not drawn:
        raise UnreadableScan("Nothing is drawn of the wanted structures", expected="a frame or contour of one of them",
                             remedy="see which names the card's `structures` should hold, or leave the mask out")
    for value in reversed(list(structures)):  # so that the one named first is painted last
        if value in drawn:
            mask[drawn[value]] = value
    return Scan(mask[None], "volume", "SEG", affine=affine, spacing=spacing_of(affine))


def _grid_of(image: Scan) -> tuple[tuple[int, ...], np.ndarray]:
    if image.kind != "volume" or image.affine is None:
        raise GeometryError("The image does not say where it lies, so that nothing can be drawn on it",
                            expected="a volume with position and orientation", remedy="leave its mask out")
    return image.array.shape[1:], image.affine


def _drawn(data: Dataset, structures: Structures, shape: tuple[int, ...], affine: np.ndarray,
           frame_of_reference: str | None) -> dict[int, np.ndarray]:
    """{value: (K, J, I) bool} of one file, for the values of which it draws something."""
    format_ = _FORMATS[data.SOPClassUID]
    values = {number: value_of(name, structures) for number, name in format_.names(data).items()}
    wanted = {number: value for number, value in values.items() if value is not None}
    frames = format_.frames_of_reference(data, wanted)
    if frame_of_reference is not None and frames - {frame_of_reference}:
        raise GeometryError("The mask lies in another frame of reference than the image",
                            expected="the same FrameOfReferenceUID",
                            remedy="take the mask that was drawn on this image")
    return format_.draw(data, wanted, shape, affine)
