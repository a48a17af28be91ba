"""From stored to physical values, and DICOM's window functions."""

from __future__ import annotations

from typing import Literal

import numpy as np

from medssl.types import Scan

WindowFunction = Literal["LINEAR", "LINEAR_EXACT", "SIGMOID"]


def rescale(stored: np.ndarray, slope: float, intercept: float, out: np.ndarray | None = None) -> np.ndarray:
    """`slope * stored + intercept` as float32 (PS3.3 C.11.1.1.2; NIfTI-1 scl_slope). (1, 0) returns `stored` untouched.

    Integers of up to 16 bits are exact in float32, so they take one float32 pass; wider types pass through float64.

    Args:
        out: float32, where the result may be put.
    """
    if (slope, intercept) == (1, 0):
        return stored
    work = np.float32 if stored.dtype.kind in "iu" and stored.dtype.itemsize <= 2 else np.float64
    scaled = np.multiply(stored, work(slope), dtype=work, out=out if work is np.float32 else None)
    if intercept:
        scaled += work(intercept)
    return scaled.astype(np.float32, copy=False)


def invert(stored: np.ndarray, bits: int, signed: bool) -> np.ndarray:
    """Turn MONOCHROME1 (low is white) into MONOCHROME2 (PS3.3 C.7.6.3.1.2): lowest storable becomes highest."""
    return ~stored if signed else np.asarray((1 << bits) - 1, dtype=stored.dtype) - stored


def voi_window(values: np.ndarray, center: float, width: float, function: WindowFunction = "LINEAR") -> np.ndarray:
    """Map values through a VOI window to [0, 1], float32 (PS3.3 C.11.2.1.2 for LINEAR, C.11.2.1.3 for the others).

    Args:
        values: after the modality LUT.
        center, width: in the units of `values`; width >= 1 for LINEAR and > 0 otherwise, or ValueError.
    """
    if width < 1 if function == "LINEAR" else width <= 0:
        raise ValueError(f"a {function} window cannot be {width} wide")
    values = np.asarray(values, dtype=np.float32)
    if function == "SIGMOID":
        return 1 / (1 + np.exp(-4 * (values - center) / width))
    if function == "LINEAR":  # the standard's half-pixel shift; a width of 1 is a step at center - 0.5
        center, width = center - 0.5, width - 1
    if width == 0:
        return (values > center).astype(np.float32)
    return np.clip((values - center) / width + 0.5, 0, 1)


def apply_own_window(scan: Scan) -> np.ndarray:
    """A scan's values through the first window its file names, as [0, 1] float32, e.g. for X-rays; else as they are."""
    window = scan.header.get("window")
    if window is None:
        return scan.array
    return voi_window(scan.array, *window)
