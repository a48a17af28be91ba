"""A tilted gantry and uneven slice distances, resampled onto a straight and even grid."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from medssl.errors import GeometryError
from medssl.io.geometry import spacing_of
from medssl.types import Scan

STRAIGHT = 1e-3
"""An axis that leans by no more than this share of its length counts as perpendicular: 1 mm in a metre."""

_NO_SHIFT = 1e-6
"""A shift by no more than this share of a pixel or slice is rounding."""


def is_straight(affine: np.ndarray) -> bool:
    """Whether the three axes of an affine (4, 4) are perpendicular to each other."""
    axes = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    return bool(np.abs(axes.T @ axes - np.eye(3)).max() <= STRAIGHT)


def straight(scan: Scan, positions: np.ndarray | None = None) -> Scan:
    """A volume (C, K, J, I) on a grid whose k axis is perpendicular to its slices and whose slices are evenly apart.

    Each slice is shifted within its plane, and slices are mixed along their normal, linearly both times, so that
    whatever is linear in space stays exact. The grid begins at the first slice and ends at the last one, its distance
    is the median of theirs (within rounding to a whole number of steps), and it is as wide as all slices together:
    where the slices do not reach, it holds the volume's lowest value, with no seam between. Values become float32.

    Args:
        positions: (K, 3) RAS+ mm, where each slice's first pixel lies; by default as the affine has it.

    Raises:
        GeometryError: where rows and columns are not perpendicular, so that no shift within the plane can help.
    """
    if positions is None:
        if scan.affine is None or scan.array.shape[1] < 2 or is_straight(scan.affine):
            return scan
        positions = scan.affine[:3, 3] + np.arange(scan.array.shape[1])[:, None] * scan.affine[:3, 2]
    i, j = scan.affine[:3, 0], scan.affine[:3, 1]
    if abs(i @ j) > STRAIGHT * np.linalg.norm(i) * np.linalg.norm(j):
        raise GeometryError("Rows and columns are not perpendicular", expected="a grid sheared along its slices alone")
    normal = np.cross(i, j) / np.linalg.norm(np.cross(i, j))
    normal = normal * np.sign(normal @ (positions[-1] - positions[0]))
    away = positions - positions[0]
    shifts = np.stack([away @ j / (j @ j), away @ i / (i @ i)], axis=1)  # (K, 2) in pixels along (j, i)
    heights = away @ normal
    level, origin = _level(scan.array, shifts)
    reach = _reach(shifts - origin, scan.array.shape[2:])
    array, step = _even(level, heights, reach, float(np.nanmin(scan.array)))
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1], affine[:3, 2] = i, j, step * normal
    affine[:3, 3] = positions[0] + origin[0] * j + origin[1] * i
    return replace(scan, array=array, affine=affine, spacing=spacing_of(affine))


def _level(array: np.ndarray, shifts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Every slice (C, K, J, I) moved by its shift (K, 2) onto one plane that holds them all, and where that begins.

    What lies outside a slice's reach means nothing yet.
    """
    origin = np.floor(shifts.min(axis=0) + _NO_SHIFT).astype(int)
    margin = np.ceil(shifts.max(axis=0) - _NO_SHIFT).astype(int) - origin
    size = np.add(array.shape[2:], margin)
    level = np.empty((*array.shape[:2], *size), dtype=np.float32)
    for k, shift in enumerate(shifts - origin):
        whole = np.floor(shift + _NO_SHIFT).astype(int)
        part = np.where(shift - whole < _NO_SHIFT, 0.0, shift - whole)
        plane = np.zeros((len(array), *(size + 1)), dtype=np.float32)
        plane[:, whole[0] : whole[0] + array.shape[2], whole[1] : whole[1] + array.shape[3]] = array[:, k]
        for axis, share in zip((1, 2), part, strict=True):
            if share:
                plane = _between(plane, np.roll(plane, 1, axis=axis), share)
        level[:, k] = plane[:, : size[0], : size[1]]
    return level, origin


def _reach(shifts: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(K, 2, 2): where on the plane of `_level` each slice has values, as its first (j, i) and those behind its last.

    A place beside the outermost row or column has a neighbour on one side only: no slice reaches it.
    """
    return np.stack([np.ceil(shifts - _NO_SHIFT), np.floor(shifts + _NO_SHIFT) + size], axis=1).astype(int)


def _even(level: np.ndarray, heights: np.ndarray, reach: np.ndarray, lowest: float) -> tuple[np.ndarray, float]:
    """Slices (C, K, J, I) at `heights` (K,) mm, rising from 0, as evenly spaced ones, and the mm between those.

    Where one of the two slices that a value lies between does not reach, it is `lowest`.
    """
    count = max(round(heights[-1] / float(np.median(np.diff(heights)))), 1)
    step = heights[-1] / count
    even = np.full((len(level), count + 1, *level.shape[2:]), lowest, dtype=np.float32)
    for k, height in enumerate(np.arange(count + 1) * step):
        above = min(max(int(np.searchsorted(heights, height)), 1), len(heights) - 1)
        share = (height - heights[above - 1]) / (heights[above] - heights[above - 1])
        used = [n for n, weight in ((above - 1, 1 - share), (above, share)) if weight > _NO_SHIFT]
        first, last = reach[used, 0].max(axis=0), reach[used, 1].min(axis=0)
        box = (slice(None), slice(first[0], last[0]), slice(first[1], last[1]))
        below, over = level[:, used[0]][box], level[:, used[-1]][box]
        even[:, k][box] = _between(below, over, share) if len(used) > 1 else below
    return even, float(step)


def _between(a: np.ndarray, b: np.ndarray, share: float) -> np.ndarray:
    """a where share is 0, b where it is 1; what is equal in both stays so to the last bit."""
    return a + np.float32(share) * (b - a)
