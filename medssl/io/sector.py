"""The part of an ultrasound picture that is image: what lies around it is text, scales and the maker's furniture."""

from __future__ import annotations

import numpy as np

from medssl.io.header import Attributes

TAGS = ("SequenceOfUltrasoundRegions",)

Box = tuple[int, int, int, int]
"""First row, end of rows, first column, end of columns."""

CONTRAST = 1 / 8
"""A pixel outside the regions stands out that differs by this share of the picture's range from most of them."""
FEWEST = 16
"""So many such pixels are marks: a letter of the smallest font has about as many, compression leaves fewer."""

_TWO_D = 1


def sector_of(data: Attributes, rows: int, columns: int) -> Box | None:
    """The box around all 2-D regions of SequenceOfUltrasoundRegions (PS3.3 C.8.5.5), within the picture.

    None where the file names no such region, or one that leaves the picture: then nothing is known of any. M-mode,
    spectra and curves are regions as well, and are left outside.
    """
    boxes = []
    for region in data.get("SequenceOfUltrasoundRegions") or ():
        if region.get("RegionSpatialFormat") != _TWO_D:
            continue
        corners = [region.get(f"RegionLocation{end}") for end in ("MinY0", "MaxY1", "MinX0", "MaxX1")]
        if None in corners:
            return None
        top, bottom, left, right = map(int, corners)
        if not (0 <= top < bottom <= rows and 0 <= left < right <= columns):  # the last row and column may be one off
            return None
        boxes.append((top, min(bottom + 1, rows), left, min(right + 1, columns)))
    if not boxes:
        return None
    tops, bottoms, lefts, rights = zip(*boxes, strict=True)
    return min(tops), max(bottoms), min(lefts), max(rights)


def marked_outside(pictures: np.ndarray, box: Box) -> bool:
    """Whether anything is drawn outside the box, in any frame: text, or else scales, a trace, the maker's furniture.

    pictures: (C, J, I) or (C, T, J, I).
    """
    if pictures.ndim == 4:  # light marks of any frame, and dark ones, as pictures of their own
        pictures = np.concatenate([pictures.max(axis=1), pictures.min(axis=1)])
    top, bottom, left, right = box
    outside = np.ones(pictures.shape[1:], dtype=bool)
    outside[top:bottom, left:right] = False
    if not outside.any():
        return False
    least = CONTRAST * (float(pictures.max()) - float(pictures.min()))
    values = pictures[:, outside].astype(np.float32)
    drawn = np.abs(values - np.median(values, axis=1, keepdims=True)) > least
    return bool(np.count_nonzero(drawn.any(axis=0)) >= FEWEST)
