"""The only header fields that may enter a Scan. Whatever is not named here stays in the file.

Free text (descriptions, comments, protocol names), dates, UIDs, institutions and serial numbers are never taken. Coded
fields must look like codes: a value that holds anything but capitals, digits, spaces and underscores is dropped.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import date
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

OLDEST = 90
"""Ages above 89 identify people (US Safe Harbor, 45 CFR 164.514(b)(2)(i)(C)): all become this one."""


def code(value: Any) -> str | None:
    """A coded value in capitals, or None if it does not look like a code (VR CS, PS3.5 6.2)."""
    text = str(value).strip().upper()
    return text if re.fullmatch(r"[A-Z0-9_ ]{1,16}", text) else None


def _codes(value: Any) -> str | None:
    parts = [code(part) for part in ([value] if isinstance(value, str) else value)]
    return "\\".join(part for part in parts if part) or None


def _one_of(*allowed: str) -> Callable[[Any], str | None]:
    return lambda value: found if (found := code(value)) in allowed else None


def _name(value: Any) -> str | None:
    return str(value).strip()[:64] or None


def _number(value: Any) -> float | None:
    return float(value)


FIELDS: Mapping[str, tuple[str, Callable[[Any], Any]]] = {
    "PatientSex": ("sex", _one_of("M", "F", "O")),
    "ViewPosition": ("view", code),
    "Laterality": ("laterality", _one_of("L", "R", "B", "U")),
    "ImageLaterality": ("laterality", _one_of("L", "R", "B", "U")),
    "BodyPartExamined": ("body_part", code),
    "PatientPosition": ("patient_position", code),
    "Manufacturer": ("manufacturer", _name),
    "ManufacturerModelName": ("model", _name),
    "BurnedInAnnotation": ("burned_in_annotation", _one_of("YES", "NO")),
    "PresentationIntentType": ("presentation_intent", code),
    "ImageType": ("image_type", _codes),
    "KVP": ("kvp", _number),
    "SliceThickness": ("slice_thickness", _number),
    "MagneticFieldStrength": ("field_strength", _number),
    "ScanningSequence": ("scanning_sequence", _codes),
    "SequenceVariant": ("sequence_variant", _codes),
    "MRAcquisitionType": ("mr_acquisition", code),
    "RepetitionTime": ("repetition_time", _number),
    "EchoTime": ("echo_time", _number),
    "InversionTime": ("inversion_time", _number),
    "FlipAngle": ("flip_angle", _number),
    "HeartRate": ("heart_rate", _number),
}
"""DICOM keyword -> (name in Scan.header, cleaner). Times are ms, lengths mm, field strength tesla, angles degrees."""

AGE_TAGS = ("PatientAge", "PatientBirthDate", "StudyDate")
TAGS = (*FIELDS, *AGE_TAGS)


def header_of(data: Dataset) -> dict[str, Any]:
    """The whitelisted fields of a DICOM dataset, by medssl's names; what is missing, empty or malformed is left out."""
    header: dict[str, Any] = {}
    if (age := _age(data)) is not None:
        header["age"] = min(age, OLDEST)
    for keyword, (name, clean) in FIELDS.items():
        try:
            value = data.get(keyword)
            cleaned = None if value is None or value == "" else clean(value)
        except (TypeError, ValueError, OverflowError):
            continue
        if cleaned is not None:
            header[name] = cleaned
    return header


def _age(data: Dataset) -> int | None:
    """Age in whole years from PatientAge ('045Y', '018M', '006W', '012D'; PS3.5 6.2), or from both dates."""
    match = re.fullmatch(r"\s*(\d{1,3})([YMWD])\s*", str(data.get("PatientAge") or ""))
    if match:
        count, unit = int(match[1]), match[2]
        return int(count / {"Y": 1, "M": 12, "W": 52.18, "D": 365.25}[unit])
    born, seen = _date(data.get("PatientBirthDate")), _date(data.get("StudyDate"))
    if born is None or seen is None or seen < born:
        return None
    return seen.year - born.year - ((seen.month, seen.day) < (born.month, born.day))


def _date(value: Any) -> date | None:
    match = re.fullmatch(r"(\d{4})\.?(\d{2})\.?(\d{2})", str(value or "").strip())
    try:
        return date(*map(int, match.groups())) if match else None
    except ValueError:
        return None
