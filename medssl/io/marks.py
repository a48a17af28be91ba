"""What tells pictures of one place apart: their contrast (echo, inversion, b-value, ...) and their time.

Marks stay in memory: they order slices, and no Scan, manifest or message holds them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from datetime import date
from typing import Any

Mark = float | str | tuple


def _number(value: Any) -> float | None:
    number = float(value[0] if not isinstance(value, str) and hasattr(value, "__getitem__") else value)
    return number if math.isfinite(number) else None


def _numbers(value: Any) -> tuple[float, ...] | None:
    return tuple(float(number) for number in value) or None


def _text(value: Any) -> str | None:
    return (value if isinstance(value, str) else "\\".join(map(str, value))).strip() or None


def _clock(value: Any) -> float | None:
    """ms, from midnight for a time (HHMMSS.FFFFFF), from the year 1 for a date with a time (PS3.5 6.2)."""
    match = re.fullmatch(r"(?:(\d{4})(\d\d)(\d\d))?(\d\d)(\d\d)(\d\d(?:\.\d+)?)(?:[+-]\d{4})?", str(value).strip())
    if not match:
        return None
    *day, hour, minute, second = match.groups()
    days = date(*map(int, day)).toordinal() if day[0] else 0
    return 1000 * (float(second) + 60 * (int(minute) + 60 * (int(hour) + 24 * days)))


CONTRASTS: Mapping[str, Callable[[Any], Mark | None]] = {
    "EchoTime": _number,
    "EchoNumbers": _number,
    "InversionTime": _number,
    "DiffusionBValue": _number,
    "DiffusionGradientOrientation": _numbers,
    "ImageType": _text,
    "ComplexImageComponent": _text,
    "ConvolutionKernel": _text,
    "StackID": _text,
    "DimensionIndexValues": _numbers,
}
"""DICOM keyword -> cleaner. A contrast has the same values at every place. The last one, which enhanced objects have,
is reduced to the dimensions that are not of space."""

TIMES: Mapping[str, Callable[[Any], Mark | None]] = {
    "TemporalPositionIdentifier": _number,
    "TriggerTime": _number,
    "NominalPercentageOfCardiacPhase": _number,
    "NominalPercentageOfRespiratoryPhase": _number,
    "TemporalPositionTimeOffset": _number,
    "FrameReferenceTime": _number,
    "AcquisitionNumber": _number,
    "AcquisitionDateTime": _clock,
    "AcquisitionTime": _clock,
}
"""DICOM keyword -> cleaner. A time may differ from place to place: its order at each place counts. The time at which an
image was written is none of them: it need not follow the acquisition."""

MILLISECONDS: Mapping[str, float] = {
    "TriggerTime": 1.0, "TemporalPositionTimeOffset": 1000.0, "FrameReferenceTime": 1.0,
    "AcquisitionDateTime": 1.0, "AcquisitionTime": 1.0,
}  # fmt: skip
"""Which times measure, and how many ms one unit of them is (PS3.3 C.7.6.16.2.2, C.7.6.18, C.8.9.4)."""

TAGS = (*CONTRASTS, *TIMES)


def marks_of(data: Any) -> dict[str, Mark]:
    """The marks that a dataset, or a frame's flattened groups, carries; malformed ones are as good as none."""
    marks: dict[str, Mark] = {}
    for keyword, clean in (CONTRASTS | TIMES).items():
        value = data.get(keyword)
        try:
            mark = None if value is None or value == "" else clean(value)
        except (TypeError, ValueError, IndexError):
            continue
        if mark is not None:
            marks[keyword] = mark
    return marks
