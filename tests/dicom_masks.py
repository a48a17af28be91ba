"""Writes DICOM segmentations and RT structure sets, as small as the standard allows, for tests that read them back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.pixels import pack_bits
from pydicom.uid import ExplicitVRLittleEndian

from medssl.io.write import write_dicom

SEGMENTATION, LABEL_MAP = "1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7"
STRUCTURE_SET = "1.2.840.10008.5.1.4.1.1.481.3"
AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)


def oblique(degrees: float) -> tuple[float, ...]:
    """Direction cosines of slices that are turned about x and then about z, LPS+."""
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    turned = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) @ np.array([[1, 0, 0], [0, c, -s], [0, s, c]])
    return tuple(turned[:, :2].T.ravel())


def positions(count: int, step: float = 2.0, orientation: Sequence[float] = AXIAL,
              tilt: float = 0.0) -> list[np.ndarray]:
    """Where `count` slices begin, LPS+ mm; `tilt` is how far each lies along its column from the one before, mm."""
    row, column = np.reshape(orientation, (2, 3))
    return [np.array([-10.0, 5.0, 7.0]) + k * (step * np.cross(row, column) + tilt * column) for k in range(count)]


def write_image(folder: Path, volume: np.ndarray, places: Sequence[np.ndarray], *, series: str = "1.2.3",
                study: str = "1.2", patient: str = "P1", orientation: Sequence[float] = AXIAL,
                spacing: tuple[float, float] = (0.7, 0.5), frame: str = "1.9", modality: str = "CT",
                header: Mapping[str, Any] | None = None) -> None:
    """A series of slices, (K, J, I) int16 at `places`."""
    for k, position in enumerate(places):
        write_dicom(folder / f"{series}.{k}.dcm", volume[k].astype(np.int16), patient_id=patient, study_uid=study,
                    series_uid=series, instance_uid=f"{series}.{k + 1}", instance_number=k + 1, modality=modality,
                    spacing=spacing, position=position, orientation=orientation,
                    header={"FrameOfReferenceUID": frame, **(header or {})})


def write_segmentation(path: Path, frames: Sequence[tuple[int, Sequence[float], np.ndarray]], names: Sequence[str], *,
                       kind: str = "BINARY", orientation: Sequence[float] = AXIAL,
                       spacing: tuple[float, float] = (0.7, 0.5), series: str = "1.2.3", frame: str = "1.9") -> None:
    """Frames (segment's number, position, pixels (J, I)) in the order given; segments are numbered from 1.

    Pixels are bool for BINARY, shares in [0, 1] for FRACTIONAL, and segments' numbers for LABELMAP.
    """
    data = _dataset(LABEL_MAP if kind == "LABELMAP" else SEGMENTATION, "SEG", frame)
    data.SegmentationType = kind
    data.SegmentSequence = [_item(SegmentNumber=n, SegmentLabel=name) for n, name in enumerate(names, start=1)]
    if series:
        data.ReferencedSeriesSequence = [_item(SeriesInstanceUID=series)]
    data.SharedFunctionalGroupsSequence = [_item(
        PlaneOrientationSequence=[_item(ImageOrientationPatient=[f"{x:.10f}" for x in orientation])],
        PixelMeasuresSequence=[_item(PixelSpacing=list(spacing))])]
    data.PerFrameFunctionalGroupsSequence = []
    for number, position, _ in frames:
        group = _item(PlanePositionSequence=[_item(ImagePositionPatient=[f"{x:.6f}" for x in position])])
        if kind != "LABELMAP":
            group.SegmentIdentificationSequence = [_item(ReferencedSegmentNumber=number)]
        data.PerFrameFunctionalGroupsSequence.append(group)
    stored = np.stack([pixels for _, _, pixels in frames])
    data.NumberOfFrames, data.Rows, data.Columns = stored.shape
    data.SamplesPerPixel, data.PhotometricInterpretation, data.PixelRepresentation = 1, "MONOCHROME2", 0
    bits = 1 if kind == "BINARY" else 8
    data.BitsAllocated, data.BitsStored, data.HighBit = bits, bits, bits - 1
    if kind == "FRACTIONAL":
        data.MaximumFractionalValue, data.SegmentationFractionalType = 200, "PROBABILITY"
        stored = stored * 200
    raw = pack_bits(stored.astype(np.uint8).ravel()) if kind == "BINARY" else stored.astype(np.uint8).tobytes()
    data.PixelData = raw + b"\0" * (len(raw) % 2)
    data["PixelData"].VR = "OB"
    _save(data, path)


def write_structure_set(path: Path, regions: Mapping[str, Sequence[np.ndarray]], *, series: str = "1.2.3",
                        frame: str = "1.9", kind: str = "CLOSED_PLANAR") -> None:
    """Contours, each (N, 3) corners in LPS+ mm, by the name of their region."""
    data = _dataset(STRUCTURE_SET, "RTSTRUCT", frame)
    in_series = _item(RTReferencedSeriesSequence=[_item(SeriesInstanceUID=series)])
    data.ReferencedFrameOfReferenceSequence = [_item(FrameOfReferenceUID=frame, RTReferencedStudySequence=[in_series])]
    data.StructureSetROISequence = [_item(ROINumber=n, ROIName=name, ReferencedFrameOfReferenceUID=frame)
                                    for n, name in enumerate(regions, start=1)]
    data.ROIContourSequence = [
        _item(ReferencedROINumber=n, ContourSequence=[
            _item(ContourGeometricType=kind, NumberOfContourPoints=len(contour),
                  ContourData=[f"{x:.8f}" for x in np.ravel(contour)]) for contour in contours])
        for n, contours in enumerate(regions.values(), start=1)]
    _save(data, path)


def in_patient(corners: np.ndarray, place: np.ndarray, orientation: Sequence[float] = AXIAL,
               spacing: tuple[float, float] = (0.7, 0.5)) -> np.ndarray:
    """Corners (N, 2) as (i, j) in pixels of the slice at `place` -> (N, 3) LPS+ mm."""
    row, column = np.reshape(orientation, (2, 3))
    return place + corners[:, :1] * spacing[1] * row + corners[:, 1:] * spacing[0] * column


def _dataset(sop_class: str, modality: str, frame: str) -> Dataset:
    data = _item(SOPClassUID=sop_class, SOPInstanceUID="1.2.8", Modality=modality, PatientID="P1",
                 StudyInstanceUID="1.2", SeriesInstanceUID="1.2.8.1", FrameOfReferenceUID=frame)
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return data


def _item(**attributes: Any) -> Dataset:
    item = Dataset()
    for keyword, value in attributes.items():
        setattr(item, keyword, value)
    return item


def _save(data: Dataset, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    data.save_as(path, enforce_file_format=True)
