"""How a DICOM file asks to be shown: its first window, and its first lookup table (PS3.3 C.11.2).

Both are given for the values as medssl returns them: where a MONOCHROME1 image was inverted, value v became
`mirror` - v, and the window or table is turned over with it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from medssl.io.bounded import parsed


def window_of(data: Any, mirror: float | None) -> dict[str, tuple[float, float, str]]:
    """{"window": (center, width, function)}, or {} where there is none that the standard allows."""
    function = str(data.get("VOILUTFunction") or "LINEAR")
    try:
        center, width = (float(np.atleast_1d(data.get(key))[0]) for key in ("WindowCenter", "WindowWidth"))
    except (TypeError, ValueError, IndexError):
        return {}
    if function not in ("LINEAR", "LINEAR_EXACT", "SIGMOID") or not (width >= 1 if function == "LINEAR" else width > 0):
        return {}
    if mirror is not None:  # LINEAR is symmetric about center - 0.5, the others about center
        center = mirror - center + (function == "LINEAR")
    return {"window": (center, width, function)}


def lut_of(path: Path, mirror: float | None) -> dict[str, tuple[float, tuple[float, ...]]]:
    """{"voi_lut": (the value that meets the first entry, entries in [0, 1])}, or {}. Read with the pixels alone: a
    walk through an archive keeps no tables."""
    data = parsed(path, stop_before_pixels=True, specific_tags=["VOILUTSequence", "PixelRepresentation"])
    tables = data.get("VOILUTSequence")
    if not tables:
        return {}
    count, first, bits = (int(number) for number in tables[0].LUTDescriptor)
    entries = tables[0].LUTData
    if isinstance(entries, bytes):
        entries = np.frombuffer(entries, "<u2" if bits > 8 else "u1")
    count = count or 1 << 16
    values = np.asarray(entries, dtype=np.float64)[:count] / ((1 << bits) - 1)
    if len(values) < count or values.max() > 1:
        return {}
    if mirror is not None:
        first, values = mirror - (first + count - 1), 1 - values[::-1]
    return {"voi_lut": (float(first), tuple(values.tolist()))}
