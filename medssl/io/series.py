"""Slices to volumes: which of them stand in one stack, in which order, and on which grid. Geometry decides.

A slice is an Instance: a file of its own, or one frame of a multi-frame file. Nothing here tells the two apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from operator import mul
from typing import NoReturn

import numpy as np

from medssl.errors import GeometryError
from medssl.io.dicom import GREY, Instance
from medssl.io.geometry import lps_to_ras, spacing_of
from medssl.io.pixels import stacked
from medssl.io.straighten import straight
from medssl.types import Scan

UNEVEN = 0.01
"""Slices may lie this share of the slice distance away from an even stack; more, and one is missing or has moved."""

ROUNDING_MM = 0.1
"""...or this far, whichever is more: some scanners round positions to a decimal, the ends of the stack among them."""

SAME_PLACE_MM = 0.01

WIDEST = 3.0
"""Slices are missing in a gap of more usual distances than these, whole or not: nobody interpolates across that."""

_SAME_DIRECTION = 1e-3
_CROSS_SECTIONAL = frozenset({"CT", "MR", "PT"})
_STRAIGHTEN = "straighten them: data.prepare.straighten=true in a recipe, open_scan(..., straighten=True) in Python"


def is_slice(instance: Instance) -> bool:
    """Whether this is one slice of a volume rather than an image of its own."""
    return (
        (instance.frame is not None or (instance.frames == 1 and instance.modality in _CROSS_SECTIONAL))
        and instance.series is not None
        and instance.placed
        and instance.photometric in GREY
    )


def stacks(slices: Sequence[Instance]) -> list[list[Instance]]:
    """Sort slices into stacks of one series, size, spacing and direction, each in order of its places."""
    found: list[list[Instance]] = []
    by_key: dict[tuple, list[list[Instance]]] = {}
    for one in slices:
        if not is_slice(one):
            raise GeometryError(
                "A file among the slices is none", expected="single frames with position and orientation"
            )
        key = (one.patient, one.study, one.series, one.modality, one.rows, one.columns, one.in_patient)
        for stack in by_key.setdefault(key, []):
            if _alike(stack[0], one):
                stack.append(one)
                break
        else:
            by_key[key].append([one])
            found.append(by_key[key][-1])
    return [sorted(stack, key=height) for stack in found]


def places(stack: Sequence[Instance]) -> list[list[Instance]]:
    """A sorted stack as its places, in order, with all the slices that lie at each."""
    found: list[list[Instance]] = []
    for one in stack:
        if found and height(one) - height(found[-1][-1]) < SAME_PLACE_MM:
            found[-1].append(one)
        else:
            found.append([one])
    return found


def read_volume(stack: Sequence[Instance], straighten: bool = False) -> Scan:
    """A sorted stack as a volume (1, K, J, I) with k along the slices' normal.

    GeometryError if the slices are not even, or, where they are to be straightened, if one is missing.
    """
    first = stack[0]
    affine, resample = grid_of(stack, straighten)
    scan = Scan(stacked(stack)[None], "volume", first.modality, affine=affine, spacing=spacing_of(affine),
                header=first.header)  # fmt: skip
    if resample:
        scan = straight(scan, _positions(stack) * [-1, -1, 1])
    return scan if first.in_patient else _nowhere(scan)


def grid_of(stack: Sequence[Instance], straighten: bool = False) -> tuple[np.ndarray, bool]:
    """The affine (4, 4) of a sorted stack, (i, j, k, 1) to RAS+ mm (PS3.3 C.7.6.2.1.1), and whether its slices must be
    resampled, since they do not lie on that grid. A tilted gantry gives a sheared, and right, affine.

    Args:
        straighten: whether k is to be perpendicular to the slices; then they may lie unevenly, and must be resampled.

    Raises:
        GeometryError: it names the two slices between which one is missing, or that lie unevenly.
    """
    _require_complete(stack)
    positions, heights = _positions(stack), np.array([height(one) for one in stack])
    allowed = _allowed(heights)
    steps, along = len(stack) - 1, positions[-1] - positions[0]
    if straighten:
        along = normal(stack[0]) * (heights[-1] - heights[0])
        steps = max(round(float(np.linalg.norm(along) / np.median(np.diff(heights)))), 1)
    step = along / steps
    away = np.linalg.norm(positions - positions[0] - np.arange(len(stack))[:, None] * step, axis=1)
    resample = steps != len(stack) - 1 or bool(away.max() > allowed)
    if resample and not straighten:
        _refuse_uneven(heights, away, allowed)
    return _affine(stack[0], step), resample


def _require_complete(stack: Sequence[Instance]) -> None:
    """GeometryError if one slice of a sorted stack is missing.

    One is missing where a gap is a whole multiple of those on both sides of it, or where every gap but the usual one is
    such a multiple of it, and wherever it is wider than three of them; unless the slices beside it are that thick.
    """
    heights = np.array([height(one) for one in stack])
    gaps = np.diff(heights)
    usual = float(np.median(gaps))
    odd = [k for k, gap in enumerate(gaps) if abs(gap - usual) > _allowed(heights) and not _thick(stack, k, gap)]
    of_usual = [k for k in odd if _times(gaps[k], usual) > 1]
    isolated = [k for k in odd if min(_times(gaps[k], gap) for gap in _beside(gaps, k)) > 1]
    missing = of_usual if len(of_usual) == len(odd) else isolated
    if missing:
        k = missing[0]
        usual = usual if missing is of_usual else float(gaps[k - 1 if k else 1])
        raise GeometryError(
            f"{_between(heights, k)}: {_times(gaps[k], usual) - 1} missing between them",
            expected=f"{usual:.2f} mm, as far as the slices beside them lie apart",
            remedy="restore the missing slices, or open the two parts apart",
        )


def height(instance: Instance) -> float:
    """Where a slice lies along its normal, mm."""
    return sum(map(mul, _cross(instance.orientation), instance.position))


def normal(instance: Instance) -> np.ndarray:
    """(3,) LPS+: row x column."""
    return np.array(_cross(instance.orientation))


@lru_cache(maxsize=64)
def _cross(orientation: tuple[float, ...]) -> tuple[float, float, float]:
    """By hand, and kept: NumPy takes longer for these few numbers than a slice's header takes to read."""
    a, b, c, d, e, f = orientation
    return b * f - c * e, c * d - a * f, a * e - b * d


def _affine(first: Instance, step: np.ndarray) -> np.ndarray:
    row, column = np.reshape(first.orientation, (2, 3))
    if abs(np.linalg.norm(np.cross(row, column)) - 1) > 1e-2:
        raise GeometryError(
            "ImageOrientationPatient is not two perpendicular unit vectors",
            expected="direction cosines as PS3.3 C.7.6.2.1.1 has them",
        )
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1] = row * first.spacing[1], column * first.spacing[0]
    affine[:3, 2], affine[:3, 3] = step, first.position
    return lps_to_ras(affine)


def _refuse_uneven(heights: np.ndarray, away: np.ndarray, allowed: float) -> NoReturn:
    gaps = np.diff(heights)
    usual = float(np.median(gaps))
    k = int(np.abs(gaps - usual).argmax())
    if abs(gaps[k] - usual) > allowed:
        raise GeometryError(
            f"{_between(heights, k)}, where {usual:.2f} mm is the median",
            expected=f"all slices within {allowed:.2f} mm of an even stack",
            remedy=_STRAIGHTEN,
        )
    k = int(away.argmax())
    raise GeometryError(
        f"Slice {k + 1} of {len(heights)}, at {heights[k]:.2f} mm, lies {away[k]:.2f} mm off the line of the others",
        expected=f"at most {allowed:.2f} mm; the gantry or the table moved",
        remedy=_STRAIGHTEN,
    )


def _between(heights: np.ndarray, k: int) -> str:
    return (
        f"Slices {k + 1} and {k + 2} of {len(heights)}, at {heights[k]:.2f} and {heights[k + 1]:.2f} mm along their"
        f" normal, lie {heights[k + 1] - heights[k]:.2f} mm apart"
    )


def _allowed(heights: np.ndarray) -> float:
    return max(UNEVEN * float(np.median(np.diff(heights))), ROUNDING_MM)


def _beside(gaps: np.ndarray, k: int) -> np.ndarray:
    return np.concatenate([gaps[max(k - 1, 0) : k], gaps[k + 1 : k + 2]])


def _times(gap: float, other: float) -> int:
    """How many times the other a gap is, or 0 where it is neither a whole multiple nor beyond interpolation."""
    times = round(gap / other)
    whole = abs(gap - times * other) <= max(UNEVEN * gap, ROUNDING_MM)
    return times if whole or gap > WIDEST * other else 0


def _thick(stack: Sequence[Instance], k: int, gap: float) -> bool:
    return min(one.header.get("slice_thickness", 0) for one in stack[k : k + 2]) >= (1 - UNEVEN) * gap


def _positions(stack: Sequence[Instance]) -> np.ndarray:
    return np.array([one.position for one in stack])


def _nowhere(scan: Scan) -> Scan:
    """An ultrasound volume knows its own frame of reference only: its spacing is true, its place unknown."""
    return Scan(scan.array, scan.kind, scan.modality, spacing=scan.spacing, header=scan.header)


def _alike(a: Instance, b: Instance) -> bool:
    if (a.orientation, a.spacing) == (b.orientation, b.spacing):
        return True
    turned = np.abs(np.subtract(a.orientation, b.orientation)).max()
    return turned <= _SAME_DIRECTION and np.allclose(a.spacing, b.spacing, rtol=1e-3)
