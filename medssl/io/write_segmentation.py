"""DICOM segmentations (PS3.3 A.51) of the series that a model was shown, a segment a region, written with highdicom.

They name the patient as their source does, or no viewer would show the two together: what is written is patient data.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from medssl import __version__
from medssl.errors import GeometryError, UnreadableScan
from medssl.files import whole
from medssl.io.bounded import parsed
from medssl.io.geometry import lps_to_ras, spacing_of

if TYPE_CHECKING:
    from highdicom.seg import Segmentation, SegmentDescription
    from pydicom.dataset import Dataset

_BLANK = ("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID", "StudyDate",
          "StudyTime")
"""Of type 2 in PS3.3 C.7.1.1 and C.7.2.1: there, though blank; pseudonymized files often lack some."""
OFF_PLANE = 0.1
"""Share of a voxel by which a source's frame may lie off the grid: positions are rounded."""
TURNED = 1e-3
"""By how much direction cosines of one stack may differ: they are rounded, too."""
SERIES = 9000
"""SeriesNumber: far from those that scanners count up from 1."""


def write_segmentation(path: str | Path, regions: Mapping[str, np.ndarray], sources: Sequence[Path],
                       affine: np.ndarray | None) -> None:
    """Writes bool masks (K, J, I) by name, or (J, I) of a single picture, atomically, readable by the owner alone.

    Args:
        sources: the files of the scan that was segmented, whose geometry, patient and study are taken over.
        affine: of the masks, (i, j, k, 1) to RAS+ mm; None for a picture that does not say where it lies.

    Raises:
        GeometryError: the masks' slices are not those of the sources, or these say no frame of reference.
        UnreadableScan: headers that lack what the standard requires of such a source.
    """
    try:
        data = _segmentation(regions, sources, affine)
    except (AttributeError, LookupError, TypeError, ValueError) as error:  # its words may quote the header
        raise UnreadableScan("No DICOM segmentation can refer to this series", expected="headers as PS3.3 has them",
                             remedy="export it again, or leave the case out, or the masks") from error
    data.preamble = bytes(128)
    with whole(path, mode=0o600) as draft:
        data.save_as(draft)


def _segmentation(regions: Mapping[str, np.ndarray], sources: Sequence[Path],
                  affine: np.ndarray | None) -> Segmentation:
    from highdicom import UID
    from highdicom.seg import Segmentation

    thickness = None if affine is None else spacing_of(affine)[0]
    images = [_completed(parsed(source, stop_before_pixels=True), thickness) for source in sources]
    frames = np.stack([mask.reshape(-1, *mask.shape[-2:]) for mask in regions.values()], axis=-1)
    if affine is not None:
        _turn_alike(images)
        frames = _in_frame_order(frames, images, affine)
    return Segmentation(
        images, frames, "BINARY", [_described(number, name) for number, name in enumerate(regions, start=1)],
        series_instance_uid=UID(), series_number=SERIES, sop_instance_uid=UID(), instance_number=1,
        manufacturer="medssl", manufacturer_model_name="medssl", software_versions=__version__,
        device_serial_number="none", content_description="Drawn by a model; not for clinical use")


def _described(number: int, name: str) -> SegmentDescription:
    """A segment; no terminology knows a card's regions, so their codes are private ones."""
    from highdicom import AlgorithmIdentificationSequence
    from highdicom.seg import SegmentDescription
    from pydicom.sr.codedict import codes
    from pydicom.sr.coding import Code

    algorithm = AlgorithmIdentificationSequence("medssl", codes.DCM.ArtificialIntelligence, __version__)
    return SegmentDescription(number, name[:64], codes.SCT.SpatialAndRelationalConcept,
                              Code(f"REGION{number}", "99MEDSSL", name[:64]), "AUTOMATIC", algorithm)


def _completed(image: Dataset, thickness: float | None) -> Dataset:
    """The header with what highdicom asks for where it is missing; a slice is as thick as the next one is far."""
    for keyword, value in {**dict.fromkeys(_BLANK, ""), "SliceThickness": thickness}.items():
        if image.get(keyword) is None:
            setattr(image, keyword, value)
    return image


def _in_frame_order(masks: np.ndarray, images: Sequence[Dataset], affine: np.ndarray) -> np.ndarray:
    """Masks (K, J, I, R) as the frames of the sources follow each other; a frame of another scan in the file is 0."""
    positions = np.array([position for image in images for position in _positions(image)], dtype=float)
    to_voxels = np.linalg.inv(lps_to_ras(affine))
    places = to_voxels @ np.vstack([positions.T, np.ones(len(positions))])
    slices = np.rint(places[2]).astype(int)
    places[2] -= slices
    on_grid = (np.abs(places[:3]) <= OFF_PLANE).all(axis=0) & (slices >= 0) & (slices < len(masks))
    if set(slices[on_grid]) != set(range(len(masks))):
        raise GeometryError(f"{len(masks)} slices were segmented, of which the series holds "
                            f"{len(set(slices[on_grid]))}", expected="a frame for each",
                            remedy="leave the case out, or the masks")
    frames = np.zeros((len(slices), *masks.shape[1:]), dtype=bool)
    frames[on_grid] = masks[slices[on_grid]]
    return frames


def _turn_alike(images: Sequence[Dataset]) -> None:
    """Makes equal to the last digit, and shared by a file's frames, what highdicom asks to be so."""
    if any(not image.get("FrameOfReferenceUID") for image in images):
        raise GeometryError("The series has positions, but names no frame of reference that they lie in",
                            expected="a FrameOfReferenceUID", remedy="export it again, or leave the masks out")
    planes = [plane for image in images for plane in _planes(image)]
    first = planes[0].ImageOrientationPatient
    if any(np.abs(np.subtract(plane.ImageOrientationPatient, first)).max() > TURNED for plane in planes):
        raise GeometryError("The frames of the series lie in several directions", expected="one stack of slices",
                            remedy="export the stacks apart, or leave the masks out")
    for plane in planes:
        plane.ImageOrientationPatient = first
    for image in images:
        if (groups := image.get("PerFrameFunctionalGroupsSequence")) is not None:
            shared = image.SharedFunctionalGroupsSequence[0]
            shared.PlaneOrientationSequence = [planes[0]]
            if "PixelMeasuresSequence" not in shared:
                shared.PixelMeasuresSequence = groups[0].PixelMeasuresSequence


def _planes(image: Dataset) -> list[Dataset]:
    """What holds the ImageOrientationPatient of each frame of a file."""
    groups = image.get("PerFrameFunctionalGroupsSequence")
    if groups is None:
        return [image]
    shared = image.SharedFunctionalGroupsSequence[0]
    return [(group if "PlaneOrientationSequence" in group else shared).PlaneOrientationSequence[0] for group in groups]


def _positions(image: Dataset) -> list[Sequence[float]]:
    """ImagePositionPatient of each frame of a file."""
    groups = image.get("PerFrameFunctionalGroupsSequence")
    if groups is None:
        return [image.ImagePositionPatient]
    return [group.PlanePositionSequence[0].ImagePositionPatient for group in groups]
