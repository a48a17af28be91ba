"""Multi-frame DICOM objects: one flat set of attributes for each frame, so that a frame is read as a file is.

Enhanced objects keep what a classic file says at its top in functional groups, shared or one a frame (PS3.3 C.7.6.16).
Reconstructed nuclear medicine says where its first frame lies and how far the next ones are (PS3.3 C.8.4.15).
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any

import numpy as np

from medssl.errors import UnreadableScan
from medssl.io.header import Attributes

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

TAGS = (
    "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence", "DimensionIndexSequence",
    "InConcatenationTotalNumber", "InConcatenationNumber",
    "DetectorInformationSequence", "SpacingBetweenSlices", "FrameIncrementPointer", "SliceVector",
)  # fmt: skip

_CLASSIC_NAME = {
    "EffectiveEchoTime": "EchoTime",
    "InversionTimes": "InversionTime",
    "FrameType": "ImageType",
    "FrameAcquisitionNumber": "AcquisitionNumber",
    "FrameAcquisitionDateTime": "AcquisitionDateTime",
    "TemporalPositionIndex": "TemporalPositionIdentifier",
    "NominalCardiacTriggerDelayTime": "TriggerTime",
    "ImagePositionVolume": "ImagePositionPatient",
    "ImageOrientationVolume": "ImageOrientationPatient",
}
"""What functional groups call by another name than a classic file. The last two lie in the frame of reference of an
ultrasound volume and not in the patient's: see `in_patient`."""

_SPATIAL_DIMENSIONS = frozenset({"InStackPositionNumber", "ImagePositionPatient", "ImagePositionVolume"})
_SLICE_VECTOR = 0x00540080


def frames_of(data: Attributes, wanted: Collection[str]) -> list[Attributes]:
    """The attributes of each frame, those of the file among them; [] where the file says nothing of its frames.

    Args:
        wanted: the keywords to keep, by their names in a classic file.
    """
    count = int(data.get("NumberOfFrames") or 1)
    groups = data.get("PerFrameFunctionalGroupsSequence") or ()
    if any(len(group) for group in groups):
        _refuse_parts(data, len(groups), count)
        return _grouped(data, groups, wanted)
    return _reconstructed(data, count, wanted) if count > 1 else []


def _refuse_parts(data: Attributes, groups: int, count: int) -> None:
    if groups != count:
        raise UnreadableScan(
            f"Functional groups for {groups} of {count} frames",
            expected="one a frame",
            remedy="export it again, or as single-frame DICOM",
        )
    number, parts = data.get("InConcatenationNumber"), data.get("InConcatenationTotalNumber")
    if (number or 1) > 1 or (parts or 1) > 1:
        raise UnreadableScan(
            f"Part {number} of {parts or 'several'} into which a multi-frame object was cut",
            expected="a whole object",
            remedy="export it whole (without concatenation), or as single-frame DICOM",
        )


def _grouped(data: Attributes, groups: Any, wanted: Collection[str]) -> list[Attributes]:
    common = {keyword: value for keyword in wanted if (value := data.get(keyword)) is not None}
    for group in data.get("SharedFunctionalGroupsSequence") or ():
        common |= _flattened(group, wanted)
    in_time = [index for index, name in enumerate(_dimensions(data)) if name not in _SPATIAL_DIMENSIONS]
    frames = []
    for group in groups:
        frame = common | _flattened(group, wanted)
        if values := frame.get("DimensionIndexValues"):
            values = [values] if isinstance(values, int) else list(values)
            frame["DimensionIndexValues"] = [values[index] for index in in_time if index < len(values)]
        frames.append(frame)
    return frames


def _flattened(group: Dataset, wanted: Collection[str]) -> dict[str, Any]:
    """The wanted attributes of a group and of the single items nested in it, by their classic names."""
    flat: dict[str, Any] = {}
    for element in group:
        name = _CLASSIC_NAME.get(element.keyword, element.keyword)
        if element.VR == "SQ":
            if len(element.value) == 1:
                flat |= _flattened(element.value[0], wanted)
        elif name in wanted and element.value is not None:
            flat[name] = element.value
        if element.keyword == "ImagePositionVolume":
            flat["in_patient"] = False
    return flat


def _dimensions(data: Attributes) -> list[str]:
    from pydicom.datadict import keyword_for_tag

    return [keyword_for_tag(item.get("DimensionIndexPointer", 0)) for item in data.get("DimensionIndexSequence") or ()]


def _reconstructed(data: Attributes, count: int, wanted: Collection[str]) -> list[Attributes]:
    """Frames of reconstructed nuclear medicine whose only index is the slice, else []: then nothing says their places.

    A positive SpacingBetweenSlices stacks them along the normal, row x column, and a negative one against it.
    """
    detectors = data.get("DetectorInformationSequence") or ()
    pointers = np.atleast_1d(data.get("FrameIncrementPointer") or ()).tolist()
    vector = [int(number) for number in data.get("SliceVector") or ()]
    if len(detectors) != 1 or pointers != [_SLICE_VECTOR] or sorted(vector) != list(range(1, count + 1)):
        return []
    position, orientation = (detectors[0].get(f"Image{what}Patient") for what in ("Position", "Orientation"))
    step = data.get("SpacingBetweenSlices")
    if not step or position is None or orientation is None or len(position) != 3 or len(orientation) != 6:
        return []
    common = {keyword: value for keyword in wanted if (value := data.get(keyword)) is not None}
    row, column = np.reshape(np.asarray(orientation, dtype=np.float64), (2, 3))
    along = np.cross(row, column) * float(step)
    first = np.asarray(position, dtype=np.float64)
    return [
        common | {"ImageOrientationPatient": orientation, "ImagePositionPatient": first + (number - 1) * along}
        for number in vector
    ]
