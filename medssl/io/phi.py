"""The only header fields that may enter a Scan. Whatever is not named here stays in the file.

Free text (descriptions, comments, protocol names), dates, UIDs, institutions and serial numbers are never taken. Of the
fields that are, most must hold one of the standard's own terms. The others (view, body part, image type, manufacturer,
model) may hold whatever a site types into them, so a value is dropped that `resembles` something that names a person,
or that shares a word with the names and ids in the same file.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, MutableSequence
from datetime import date
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

OLDEST = 90
"""Ages above 89 identify people (US Safe Harbor, 45 CFR 164.514(b)(2)(i)(C)): all become this one."""

MODALITIES = frozenset((
    "AR", "ASMT", "AU", "BDUS", "BI", "BMD", "CFM", "CR", "CT", "CTPROTOCOL", "DG", "DMS", "DOC", "DX", "ECG",
    "EEG", "EMG", "EOG", "EPS", "ES", "FID", "GM", "HC", "HD", "IO", "IOL", "IVOCT", "IVUS", "KER", "KO", "LEN",
    "LS", "M3D", "MG", "MR", "NM", "OAM", "OCT", "OP", "OPM", "OPT", "OPTBSV", "OPTENF", "OPV", "OSS", "OT", "PA",
    "PLAN", "POS", "PR", "PT", "PX", "REG", "RESP", "RF", "RG", "RTDOSE", "RTIMAGE", "RTINTENT", "RTPLAN", "RTRAD",
    "RTRECORD", "RTSEGANN", "RTSTRUCT", "RWV", "SEG", "SM", "SMR", "SR", "SRF", "STAIN", "TEXTUREMAP", "TG", "US",
    "VA", "XA", "XAPROTOCOL", "XC", "AS", "CD", "CF", "CP", "CS", "DD", "DF", "DM", "DS", "EC", "FA", "FS", "LP",
    "MA", "MS", "OPR", "ST", "VF",
))  # fmt: skip
"""PS3.3 C.7.3.1.1.1, the retired ones last."""

_POSITIONS = (
    "HFP", "HFS", "HFDR", "HFDL", "FFDR", "FFDL", "FFP", "FFS", "LFP", "LFS", "RFP", "RFS", "AFDR", "AFDL", "PFDR",
    "PFDL",
)  # fmt: skip
"""Of the patient to the machine, PS3.3 C.7.3.1.1.2."""

_MONTH = (
    r"(?:jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?|sep(?:t(?:ember)?)?|oct(?:ober)?"
    r"|nov(?:ember)?|dec(?:ember)?)"
)
_RESEMBLANCES = {
    what: re.compile(pattern, re.IGNORECASE)
    for what, pattern in {
        "a person's name": r"\^",
        "an e-mail address": r"@",
        "a path": r"^[/~]\w|^[a-z]:\\|[\\/].*\.[a-z]\w{1,4}$",
        "a date": r"(?<!\d)(?:\d{4}[-/.]\d{1,2}[-/.]\d{1,2}|\d{1,2}[-/.]\d{1,2}[-/.](?:\d{4}|\d{2}))(?!\d)"
        rf"|\d[-/. ]*{_MONTH}[-/. ,]*\d{{2}}|\b{_MONTH}[-/. ]*\d{{1,2}},? *\d{{4}}",
        "a UID": r"\d+(?:\.\d+){4}",
        "a number of five digits or more": r"\d{5}",
    }.items()
}


def resembles(text: str) -> str | None:
    """What a text looks like that may name a person ("a date", "a UID", ...), or None for a plain term."""
    return next((what for what, pattern in _RESEMBLANCES.items() if pattern.search(text)), None)


def code(value: Any) -> str | None:
    """A coded value in capitals, or None if it does not look like a code (VR CS, PS3.5 6.2)."""
    text = str(value).strip().upper()
    return text if re.fullmatch(r"[A-Z0-9_ ]{1,16}", text) and not resembles(text) else None


def known_modality(value: Any) -> str:
    """DICOM's code; "OT" for what the standard does not know."""
    found = code(value)
    return found if found in MODALITIES else "OT"


def _codes(value: Any) -> str | None:
    parts = [code(part) for part in ([value] if isinstance(value, str) else value)]
    return "\\".join(part for part in parts if part) or None


def _plain(value: Any) -> str | None:
    text = " ".join(str(value).split())
    return text if 0 < len(text) <= 64 and text.isprintable() and not resembles(text) else None


def _one_of(*allowed: str) -> Callable[[Any], str | None]:
    return lambda value: found if (found := code(value)) in allowed else None


def _some_of(*allowed: str) -> Callable[[Any], str | None]:
    def clean(value: Any) -> str | None:
        found = (_codes(value) or "").split("\\")
        return "\\".join(part for part in found if part in allowed) or None

    return clean


def _number(value: Any) -> float | None:
    """A measurement; what is as long as an id is none."""
    number = float(value)
    return number if math.isfinite(number) and abs(number) < 1e5 else None


FIELDS: Mapping[str, tuple[str, Callable[[Any], Any]]] = {
    "PatientSex": ("sex", _one_of("M", "F", "O")),
    "ViewPosition": ("view", code),
    "Laterality": ("laterality", _one_of("L", "R", "B", "U")),
    "ImageLaterality": ("laterality", _one_of("L", "R", "B", "U")),
    "BodyPartExamined": ("body_part", code),
    "PatientPosition": ("patient_position", _one_of(*_POSITIONS)),
    "Manufacturer": ("manufacturer", _plain),
    "ManufacturerModelName": ("model", _plain),
    "BurnedInAnnotation": ("burned_in_annotation", _one_of("YES", "NO")),
    "PresentationIntentType": ("presentation_intent", _one_of("FOR PRESENTATION", "FOR PROCESSING")),
    "ImageType": ("image_type", _codes),
    "KVP": ("kvp", _number),
    "SliceThickness": ("slice_thickness", _number),
    "MagneticFieldStrength": ("field_strength", _number),
    "ScanningSequence": ("scanning_sequence", _some_of("SE", "IR", "GR", "EP", "RM")),
    "SequenceVariant": ("sequence_variant", _some_of("SK", "MTC", "SS", "TRSS", "SP", "MP", "OSP", "NONE")),
    "MRAcquisitionType": ("mr_acquisition", _one_of("2D", "3D")),
    "RepetitionTime": ("repetition_time", _number),
    "EchoTime": ("echo_time", _number),
    "InversionTime": ("inversion_time", _number),
    "FlipAngle": ("flip_angle", _number),
    "HeartRate": ("heart_rate", _number),
}
"""DICOM keyword -> (name in Scan.header, cleaner). Times are ms, lengths mm, field strength tesla, angles degrees."""

_OPEN = (code, _codes, _plain)
"""The cleaners that let through words of a site's own."""

AGE_TAGS = ("PatientAge", "PatientBirthDate", "StudyDate")
IDENTITY_TAGS = (
    "PatientName", "PatientID", "OtherPatientIDs", "OtherPatientNames", "PatientBirthName", "PatientMotherBirthName",
    "AccessionNumber", "ReferringPhysicianName", "PerformingPhysicianName", "NameOfPhysiciansReadingStudy",
    "OperatorsName",
)  # fmt: skip
"""Read only so that their words are recognised, and dropped, where an open field repeats them."""
TAGS = (*FIELDS, *AGE_TAGS, *IDENTITY_TAGS)


def header_of(data: Dataset) -> dict[str, Any]:
    """The whitelisted fields of a DICOM dataset, by medssl's names; what is missing, empty or malformed is left out."""
    header: dict[str, Any] = {}
    if (age := _age(data)) is not None:
        header["age"] = min(age, OLDEST)
    identity: set[str] | None = None
    for keyword, (name, clean) in FIELDS.items():
        try:
            value = data.get(keyword)
            cleaned = None if value is None or value == "" else clean(value)
        except (TypeError, ValueError, OverflowError):
            continue
        if cleaned is None:
            continue
        if clean in _OPEN:
            identity = _identity(data) if identity is None else identity
            if identity & _words(cleaned):
                continue
        header[name] = cleaned
    return header


def _identity(data: Dataset) -> set[str]:
    """The words of the names and ids in a file, in lower case."""
    found: set[str] = set()
    for keyword in IDENTITY_TAGS:
        try:
            value = data.get(keyword) or ""
            for one in value if isinstance(value, MutableSequence) else [value]:
                found |= _words(str(one))
        except (TypeError, ValueError, LookupError):
            continue  # what cannot be decoded cannot be compared
    return found


def _words(text: str) -> set[str]:
    """Words and numbers of two characters or more, and all of them in one."""
    words = re.findall(r"[^\W_]+", text.casefold())
    return {word for word in (*words, "".join(words)) if len(word) > 1}


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
