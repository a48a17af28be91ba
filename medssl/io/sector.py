"""The part of an ultrasound picture that is image: what lies around it is text, scales and the maker's furniture."""

from __future__ import annotations

from medssl.io.header import Attributes

TAGS = ("SequenceOfUltrasoundRegions",)

Box = tuple[int, int, int, int]
"""First row, end of rows, first column, end of columns."""

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
