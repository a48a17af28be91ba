"""DICOM segmentations (PS3.3 A.51, C.8.20): binary, fractional and label maps, placed by their functional groups.

Frames may be sparse and in any order: each says itself which segment it holds and where it lies.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from medssl.errors import GeometryError, UnreadableScan
from medssl.io.geometry import lps_to_ras
from medssl.io.limits import CUT
from medssl.io.pixels import decoder_plugin

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

TOLD = ("SegmentSequence", "ReferencedSeriesSequence")
"""What `names` and `series` read."""

OFF_GRID = 0.1
"""Share of a voxel by which a frame may lie off the grid: positions are rounded."""

_MOST_SLICES = 10_000


def names(data: Dataset) -> dict[int, str]:
    """{SegmentNumber: SegmentLabel}."""
    return {int(item.SegmentNumber): str(item.get("SegmentLabel") or "") for item in data.get("SegmentSequence") or ()}


def series(data: Dataset) -> set[str]:
    """The SeriesInstanceUIDs of what was segmented (PS3.3 C.12.4)."""
    items = data.get("ReferencedSeriesSequence") or ()
    return {str(item.SeriesInstanceUID) for item in items if item.get("SeriesInstanceUID")}


def frames_of_reference(data: Dataset, wanted: Mapping[int, int]) -> set[str]:
    """Those in which the segments `wanted` lie, as far as the file says."""
    uid = data.get("FrameOfReferenceUID")
    return {str(uid)} if uid and wanted else set()


def grid(data: Dataset) -> tuple[tuple[int, int, int], np.ndarray]:
    """The smallest grid that holds all frames, as shape (K, J, I) and affine, (i, j, k, 1) to RAS+ mm."""
    planes = np.stack([plane for _, plane in _planes(data)])
    positions, normal = planes[:, :3, 3], planes[0, :3, 2]
    heights = positions @ normal
    lowest, highest = positions[heights.argmin()], positions[heights.argmax()]
    gaps = np.diff(np.unique(np.round(heights, 2)))
    count = round(float(np.ptp(heights) / gaps.min())) + 1 if len(gaps) else 1
    if count > _MOST_SLICES:
        raise GeometryError(f"The frames of the segmentation lie on {count} planes", expected="an even stack")
    affine = planes[heights.argmin()].copy()
    if count > 1:
        affine[:3, 2] = (highest - lowest) / (count - 1)
    return (count, int(data.Rows), int(data.Columns)), affine


def draw(data: Dataset, wanted: Mapping[int, int], shape: tuple[int, ...], affine: np.ndarray) -> dict[int, np.ndarray]:
    """{value: bool (K, J, I)} of the segments `wanted`, {SegmentNumber: value}.

    Fractional frames count from half of MaximumFractionalValue on. GeometryError where a frame's pixels are no voxels
    of the grid of this shape and affine.
    """
    kind = str(data.get("SegmentationType"))
    frames = [(index, number, plane) for index, (number, plane) in enumerate(_planes(data))
              if kind == "LABELMAP" or number in wanted]
    to_voxels = np.linalg.inv(affine)
    drawn: dict[int, np.ndarray] = {}
    for (_, number, plane), stored in zip(frames, _pixels(data, [index for index, _, _ in frames]), strict=True):
        for one, value in wanted.items() if kind == "LABELMAP" else ((number, wanted[number]),):
            inside = stored == one if kind == "LABELMAP" else 2 * stored.astype(np.int32) >= _full(data, kind)
            if inside.any():
                _place(inside, to_voxels @ plane, drawn.setdefault(value, np.zeros(shape, dtype=bool)))
    return drawn


def _pixels(data: Dataset, frames: list[int]) -> Iterator[np.ndarray]:
    """The frames (J, I) of these numbers, which count from 0 and increase, as stored."""
    from pydicom.pixels import iter_pixels

    syntax = data.file_meta.TransferSyntaxUID
    if not frames:
        return
    if data.BitsAllocated != 1 or syntax.is_encapsulated:
        plugin = decoder_plugin(syntax)
        if plugin is None:
            raise UnreadableScan(f"{syntax.name}, which no installed decoder reads", expected="a known encoding",
                                 remedy="export the segmentation uncompressed")
        yield from iter_pixels(data, indices=frames, decoding_plugin=plugin)
        return
    shape = (int(data.Rows), int(data.Columns))
    size, packed = shape[0] * shape[1], np.frombuffer(data.PixelData, dtype=np.uint8)
    if 8 * packed.size < (frames[-1] + 1) * size:
        raise UnreadableScan(f"The pixel data end after {packed.size} bytes", expected="a whole file", remedy=CUT)
    for frame in frames:  # a frame may begin within a byte (PS3.5, 8.1.1), which pydicom does not read one by one
        first, last = frame * size // 8, -(-(frame + 1) * size // 8)
        bits = np.unpackbits(packed[first:last], bitorder="little")[frame * size - 8 * first :][:size]
        yield bits.reshape(shape)


def _full(data: Dataset, kind: str) -> int:
    """The stored value of a pixel that lies in a segment as a whole."""
    if kind not in ("BINARY", "FRACTIONAL"):
        raise UnreadableScan("A segmentation of unknown type", expected="BINARY, FRACTIONAL or LABELMAP")
    return int(data.MaximumFractionalValue) if kind == "FRACTIONAL" else 1


def _place(inside: np.ndarray, plane: np.ndarray, mask: np.ndarray) -> None:
    """Sets the voxels of mask (K, J, I) where `inside` (J, I) is true; `plane` takes (i, j, 0, 1) to (i, j, k, 1)."""
    rows, columns = inside.shape
    corners = np.array([(i, j, 0, 1) for i in (0, columns - 1) for j in (0, rows - 1)])
    whole = np.rint(plane)
    away = np.abs(corners @ (plane - whole).T).max()
    steps = np.abs(whole[:3, :2])
    if away > OFF_GRID or (steps.sum(axis=0) != 1).any() or (steps.sum(axis=1) > 1).any():
        raise GeometryError("A frame of the segmentation does not lie on the image's voxels",
                            expected="the planes and pixels of the image",
                            remedy="segment this image itself, or resample (data.prepare.align=resample)")
    j, i = np.nonzero(inside)
    places = (whole[:3, :2].astype(int) @ np.stack([i, j]) + whole[:3, 3:].astype(int))[::-1]  # k, j, i
    if (places < 0).any() or (places >= np.reshape(mask.shape, (3, 1))).any():
        raise GeometryError("The segmentation reaches beyond the image", expected="structures within the image",
                            remedy="segment this image itself, or restore its missing slices")
    mask[tuple(places)] = True


def _planes(data: Dataset) -> Iterator[tuple[int | None, np.ndarray]]:
    """Of each frame: the segment's number (None in a label map), and (4, 4), (i, j, 0, 1) to RAS+ mm, whose third
    column is the unit normal."""
    frames = data.get("PerFrameFunctionalGroupsSequence")
    if not frames:
        raise UnreadableScan("A segmentation whose frames do not say where they lie",
                             expected="per-frame functional groups", remedy="export the segmentation again")
    for frame in frames:
        position = _told(data, frame, "PlanePositionSequence", "ImagePositionPatient")
        orientation = _told(data, frame, "PlaneOrientationSequence", "ImageOrientationPatient")
        spacing = _told(data, frame, "PixelMeasuresSequence", "PixelSpacing")
        row, column = np.reshape(np.asarray(orientation, dtype=np.float64), (2, 3))
        plane = np.eye(4)
        plane[:3, 0], plane[:3, 1] = row * float(spacing[1]), column * float(spacing[0])
        plane[:3, 2], plane[:3, 3] = np.cross(row, column), np.asarray(position, dtype=np.float64)
        number = None
        if data.get("SegmentationType") != "LABELMAP":
            number = int(_told(data, frame, "SegmentIdentificationSequence", "ReferencedSegmentNumber"))
        yield number, lps_to_ras(plane)


def _told(data: Dataset, frame: Dataset, sequence: str, keyword: str) -> Any:
    """An attribute of a frame's functional group, else of the shared one (PS3.3 C.7.6.16)."""
    for group in (frame, *(data.get("SharedFunctionalGroupsSequence") or ())):
        for item in group.get(sequence) or ():
            if item.get(keyword) is not None:
                return item.get(keyword)
    raise UnreadableScan(f"A frame of the segmentation without {keyword}", expected="it in the functional groups",
                         remedy="export the segmentation again")
