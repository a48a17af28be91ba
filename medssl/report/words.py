"""Numbers as a reader meets them. One rounding rule for pictures, tables and alternative texts."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath, PureWindowsPath

MISSING = "–"
MINUS = "−"
LEVEL = "95 %"
"""The level of every interval in a curve folder; see `medssl.metrics.intervals`."""


def decimals(values: Iterable[float | None]) -> int:
    """Digits after the point that a column deserves: 0.812, but 7.31 and 12.4 and 231."""
    largest = max((abs(v) for v in values if v is not None and math.isfinite(v)), default=0.0)
    return 3 if largest <= 1.5 else 2 if largest < 20 else 1 if largest < 200 else 0


def number(value: float | None, digits: int, signed: bool = False) -> str:
    """Fixed decimals with a true minus sign; a dash where there is no value."""
    if value is None or math.isnan(value):
        return MISSING
    value = round(value, digits) + 0.0  # no sign on what rounds to zero
    text = f"{value:+.{digits}f}" if signed and value else f"{value:.{digits}f}"
    return text.replace("-", MINUS)


def interval(low: float | None, high: float | None, digits: int, signed: bool = False) -> str:
    if low is None or high is None or math.isnan(low) or math.isnan(high):
        return MISSING
    return f"{number(low, digits, signed)} to {number(high, digits, signed)}"


def percent(fraction: float) -> str:
    return f"{100 * fraction:.3g} %"


def patients(count: float) -> str:
    """Folds may differ by a patient, so that a mean count need not be whole."""
    return f"{count:.0f}"


def p_value(p: float | None) -> str:
    if p is None or math.isnan(p):
        return MISSING
    return "< 0.001" if p < 0.001 else f"{p:.3f}" if p < 0.1 else f"{p:.2f}"


def multiplier(value: float | None, fraction: float, fractions: Sequence[float]) -> str:
    """The two ends that are bounds say so: a baseline that never gets there, or was there from its first point on.

    Args:
        value: a multiplier at `fraction`; infinite means more than the largest of `fractions` over this one.
    """
    if value is None or math.isnan(value):
        return MISSING
    if math.isinf(value):
        most = max(fractions) / fraction
        return f"> {most:.3g}×" if most < 1000 else f"> {most:.0f}×"
    bound = "≤ " if math.isclose(value * fraction, min(fractions), rel_tol=1e-6) else ""
    return f"{bound}{value:.2g}×" if value < 10 else f"{bound}{value:.0f}×"


def duration(seconds: float) -> str:
    """Two largest units: "1 h 12 min"."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"


def span(values: Iterable[float | None]) -> str:
    """"5" when all agree, "3 to 5" when they do not."""
    known = sorted({round(v) for v in values if v is not None})
    if not known:
        return MISSING
    return str(known[0]) if len(known) == 1 else f"{known[0]} to {known[-1]}"


def without_folders(text: str) -> str:
    """The last part of an absolute path, anything else as it is: a hospital's folders may name people."""
    for kind in (PurePosixPath, PureWindowsPath):
        if kind(text).is_absolute():
            return kind(text).name
    return text


def sentence(text: str) -> str:
    """First letter upper case, the rest as it is."""
    return text[:1].upper() + text[1:]
