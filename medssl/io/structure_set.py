"""RT structure sets (PS3.3 A.19, C.8.8.5, C.8.8.6): closed contours in the patient, filled onto an image's slices.

A voxel is inside where its centre is, by the even-odd rule over all contours of a structure on its slice: an inner
contour makes a hole, and so does one that is joined to the outer by a keyhole.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, NoReturn

import numpy as np

from medssl.errors import GeometryError, UnreadableScan
from medssl.io.geometry import lps_to_ras

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

TOLD = ("StructureSetROISequence", "ReferencedFrameOfReferenceSequence")
"""What `names` and `series` read."""

OFF_PLANE = 0.1
"""Share of the slice distance by which a contour may lie off its slice: coordinates are rounded."""

_CLOSED = ("CLOSED_PLANAR", "CLOSEDPLANAR_XOR")


def names(data: Dataset) -> dict[int, str]:
    """{ROINumber: ROIName}."""
    return {int(item.ROINumber): str(item.get("ROIName") or "") for item in data.get("StructureSetROISequence") or ()}


def series(data: Dataset) -> set[str]:
    """The SeriesInstanceUIDs of what was drawn on."""
    items = [item for frame in data.get("ReferencedFrameOfReferenceSequence") or ()
             for study in frame.get("RTReferencedStudySequence") or ()
             for item in study.get("RTReferencedSeriesSequence") or ()]
    return {str(item.SeriesInstanceUID) for item in items if item.get("SeriesInstanceUID")}


def frames_of_reference(data: Dataset, wanted: Mapping[int, int]) -> set[str]:
    """Those in which the structures `wanted` lie, as far as the file says."""
    items = [item for item in data.get("StructureSetROISequence") or () if int(item.ROINumber) in wanted]
    return {str(item.ReferencedFrameOfReferenceUID) for item in items if item.get("ReferencedFrameOfReferenceUID")}


def grid(data: Dataset) -> NoReturn:
    """Contours have no voxels of their own."""
    raise GeometryError("The contours do not lie on the image's slices", expected="contours drawn on this image",
                        remedy="take the image that they were drawn on as the first channel")


def draw(data: Dataset, wanted: Mapping[int, int], shape: tuple[int, ...], affine: np.ndarray) -> dict[int, np.ndarray]:
    """{value: bool (K, J, I)} of the structures `wanted`, {ROINumber: value}.

    What lies beyond the image's rows and columns is cut off. GeometryError for a contour that lies on no slice.
    """
    drawn: dict[int, np.ndarray] = {}
    for item in data.get("ROIContourSequence") or ():
        value = wanted.get(int(item.ReferencedROINumber))
        if value is None:
            continue
        slices: dict[int, list[np.ndarray]] = defaultdict(list)
        for contour in _contours(item, np.linalg.inv(affine)):
            slices[_slice_of(contour, shape[0])].append(contour[:, :2])
        for k, polygons in slices.items():
            drawn.setdefault(value, np.zeros(shape, dtype=bool))[k] |= fill_polygons(polygons, shape[1:])
    return drawn


def fill_polygons(polygons: Iterable[np.ndarray], shape: tuple[int, int]) -> np.ndarray:
    """The pixels (J, I) whose centres lie inside, by the even-odd rule over all polygons together.

    Args:
        polygons: each (N, 2), corners (i, j) in pixels, the first following the last. A centre on an edge is inside
            where the edge bounds the polygon at its low i or low j, so that neighbours share no pixel.
    """
    rows, columns = shape
    crossings = np.zeros((rows, columns + 1), dtype=np.int32)
    for polygon in polygons:
        (i, j), (i_next, j_next) = polygon.T, np.roll(polygon, -1, axis=0).T
        down = j > j_next
        i, j, i_next, j_next = (np.where(down, b, a) for a, b in ((i, i_next), (j, j_next), (i_next, i), (j_next, j)))
        first, last = (np.clip(np.ceil(edge), 0, rows).astype(int) for edge in (j, j_next))
        edge = np.repeat(np.arange(len(i)), last - first)
        row = np.arange(len(edge)) - np.repeat(np.cumsum(last - first) - last, last - first)
        crossing = i[edge] + (row - j[edge]) * (i_next - i)[edge] / (j_next - j)[edge]
        np.add.at(crossings, (row, np.clip(np.ceil(crossing), 0, columns).astype(int)), 1)
    return np.cumsum(crossings[:, :-1], axis=1) % 2 == 1


def _contours(item: Dataset, to_voxels: np.ndarray) -> Iterator[np.ndarray]:
    """(N, 3) each, corners as (i, j, k), freed of what the affine's rounding adds."""
    for contour in item.get("ContourSequence") or ():
        if contour.get("ContourGeometricType") not in _CLOSED:
            raise UnreadableScan("A wanted structure is drawn by something else than closed contours",
                                 expected=" or ".join(_CLOSED), remedy="leave it out of the card's `structures`")
        points = np.reshape(np.asarray(contour.ContourData, dtype=np.float64), (-1, 3))
        to_ras = lps_to_ras(np.eye(4))
        corners = np.column_stack([points, np.ones(len(points))]) @ (to_voxels @ to_ras).T
        yield np.round(corners[:, :3], 6)


def _slice_of(contour: np.ndarray, slices: int) -> int:
    k = int(np.rint(contour[:, 2].mean()))
    away = np.abs(contour[:, 2] - k).max()
    if away > OFF_PLANE or not 0 <= k < slices:
        raise GeometryError(f"A contour lies {away:.2g} slices off the image's" if 0 <= k < slices else
                            "A contour lies beyond the image's slices", expected="contours on the image's own slices",
                            remedy="take the image that they were drawn on, with all of its slices")
    return k
