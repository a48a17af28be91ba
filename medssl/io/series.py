"""DICOM slices to volumes: which files stand in one stack, in which order, and on which grid. Geometry decides."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NoReturn

import numpy as np

from medssl.errors import GeometryError
from medssl.io.dicom import Instance, values
from medssl.io.geometry import lps_to_ras, spacing_of
from medssl.types import Scan

UNEVEN = 0.01
"""Slices may lie this share of the slice distance away from an even stack; more, and one is missing or has moved."""

ROUNDING_MM = 0.1
"""...or this far, whichever is more: some scanners round positions to a decimal, the ends of the stack among them."""

_SAME_PLACE_MM = 0.01

_SAME_DIRECTION = 1e-3
_CROSS_SECTIONAL = frozenset({"CT", "MR", "PT"})


def is_slice(instance: Instance) -> bool:
    """Whether a file is one slice of a volume rather than an image of its own."""
    return (
        instance.modality in _CROSS_SECTIONAL
        and instance.series is not None
        and instance.frames == 1
        and None not in (instance.position, instance.orientation, instance.spacing)
        and instance.photometric in ("MONOCHROME1", "MONOCHROME2")
    )


def stacks(instances: Sequence[Instance]) -> list[list[Instance]]:
    """Sort slices into stacks of one series, size, spacing and direction; a localiser falls into one for each plane."""
    found: list[list[Instance]] = []
    by_key: dict[tuple, list[list[Instance]]] = {}
    for instance in instances:
        if not is_slice(instance):
            raise GeometryError(
                "A file among the slices is none", expected="single frames with position and orientation"
            )
        key = (instance.study, instance.series, instance.modality, instance.rows, instance.columns)
        for stack in by_key.setdefault(key, []):
            if _alike(stack[0], instance):
                stack.append(instance)
                break
        else:
            by_key[key].append([instance])
            found.append(by_key[key][-1])
    return [sorted(stack, key=_height) for stack in found]


def read_volume(stack: Sequence[Instance]) -> Scan:
    """A sorted stack as a volume (1, K, J, I) with k along the slices' normal; GeometryError if it is not even."""
    affine = stack_affine(stack)
    first = stack[0]
    integer = np.result_type(*(f"{'i' if one.signed else 'u'}{one.allocated // 8}" for one in stack))
    dtype = integer if all(one.unchanged for one in stack) else np.float32
    array = np.empty((1, len(stack), first.rows, first.columns), dtype)
    for k, instance in enumerate(stack):
        array[0, k] = values(instance)
    return Scan(array, "volume", first.modality, affine=affine, spacing=spacing_of(affine), header=first.header)


def stack_affine(stack: Sequence[Instance]) -> np.ndarray:
    """(4, 4), (i, j, k, 1) to RAS+ mm (PS3.3 C.7.6.2.1.1). A tilted gantry gives a sheared, and right, affine.

    GeometryError names the two positions between which a slice is missing, and positions that come twice.
    """
    heights = np.array([_height(one) for one in stack])
    gaps = np.diff(heights)
    usual = float(np.median(gaps))
    if (twice := int((gaps < _SAME_PLACE_MM).sum())) > 0:
        raise GeometryError(
            f"{twice} of {len(stack)} slices lie where another one lies already",
            expected="one slice a position",
            remedy="split phases, echoes or repeats into series of their own",
        )
    allowed = max(UNEVEN * usual, ROUNDING_MM)
    positions = np.array([one.position for one in stack])
    step = (positions[-1] - positions[0]) / (len(stack) - 1)
    away = np.linalg.norm(positions - positions[0] - np.arange(len(stack))[:, None] * step, axis=1)
    if away.max() > allowed:
        _name_the_gap(heights, away, usual, allowed)
    along_row, along_column = _directions(stack[0])
    affine = np.eye(4)
    affine[:3, 0] = along_row * stack[0].spacing[1]
    affine[:3, 1] = along_column * stack[0].spacing[0]
    affine[:3, 2], affine[:3, 3] = step, positions[0]
    return lps_to_ras(affine)


def _name_the_gap(heights: np.ndarray, away: np.ndarray, usual: float, allowed: float) -> NoReturn:
    gaps, count = np.diff(heights), len(heights)
    k = int(np.abs(gaps - usual).argmax())
    if abs(gaps[k] - usual) > allowed:
        raise GeometryError(
            f"Slices {k + 1} and {k + 2} of {count}, at {heights[k]:.2f} and {heights[k + 1]:.2f} mm along their"
            f" normal, lie {gaps[k]:.2f} mm apart",
            expected=f"{usual:.2f} mm, the median, and all slices within {allowed:.2f} mm of an even stack",
            remedy="restore the missing slices, or open the two parts apart",
        )
    k = int(away.argmax())
    raise GeometryError(
        f"Slice {k + 1} of {count}, at {heights[k]:.2f} mm, lies {away[k]:.2f} mm off the line of the others",
        expected=f"at most {allowed:.2f} mm",
        remedy="the gantry or the table moved: resample the parts apart",
    )


def _directions(instance: Instance) -> tuple[np.ndarray, np.ndarray]:
    row, column = np.reshape(instance.orientation, (2, 3))
    if abs(np.linalg.norm(np.cross(row, column)) - 1) > 1e-2:
        raise GeometryError(
            "ImageOrientationPatient is not two perpendicular unit vectors",
            expected="direction cosines as PS3.3 C.7.6.2.1.1 has them",
        )
    return row, column


def _height(instance: Instance) -> float:
    """Where a slice lies along its normal, mm."""
    row, column = np.reshape(instance.orientation, (2, 3))
    return float(np.dot(np.cross(row, column), instance.position))


def _alike(a: Instance, b: Instance) -> bool:
    turned = np.abs(np.subtract(a.orientation, b.orientation)).max()
    return turned <= _SAME_DIRECTION and np.allclose(a.spacing, b.spacing, rtol=1e-3)
