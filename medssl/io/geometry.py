"""Grids in space: affines, LPS and RAS, canonical orientation without resampling, and whether two grids are one."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np

from medssl.errors import GeometryError
from medssl.types import Scan


def lps_to_ras(affine: np.ndarray) -> np.ndarray:
    """DICOM counts x to the patient's left and y to the back (PS3.3 C.7.6.2.1.1), NIfTI the other way: flip both."""
    return np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine


def spacing_of(affine: np.ndarray) -> tuple[float, float, float]:
    """Voxel spacing in mm, array order (k, j, i): the lengths of the affine's columns."""
    i, j, k = np.linalg.norm(affine[:3, :3], axis=0)
    return float(k), float(j), float(i)


def trusted(affine: np.ndarray, source: str) -> np.ndarray:
    """The affine as float64; GeometryError where it is not finite or flattens space. `source` names its origin."""
    affine = np.asarray(affine, dtype=np.float64)
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-12:
        raise GeometryError(
            f"The affine of the {source} is singular or not finite",
            expected="three independent axes in mm",
            remedy="write the geometry again from the original images",
        )
    return affine


def to_canonical(array: np.ndarray, affine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Flip and swap the last three axes so that i, j, k run as closely as possible to right, anterior, superior.

    Args:
        array: (..., K, J, I).
        affine: (4, 4), takes (i, j, k, 1) to RAS+ mm.

    Returns:
        A view of the array and its affine; every voxel keeps its value and its place in the patient.
    """
    from nibabel.orientations import inv_ornt_aff, io_orientation

    flipped, order = _turn(affine, array.ndim)
    turned = np.flip(array, flipped).transpose(order)
    return turned, affine @ inv_ornt_aff(io_orientation(affine), array.shape[-1:-4:-1])


def from_canonical(array: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """A view of an array that `to_canonical` turned, as it is stored under `affine`, which is the stored one."""
    flipped, order = _turn(affine, array.ndim)
    return np.flip(array.transpose(np.argsort(order)), flipped)


def _turn(affine: np.ndarray, ndim: int) -> tuple[list[int], list[int]]:
    """The axes of a stored array (..., K, J, I) to be flipped, and then the order to put all of its axes in."""
    from nibabel.orientations import io_orientation

    axes = io_orientation(affine)  # row a: axis (i, j, k)[a] runs along world axis axes[a, 0], with sign axes[a, 1]
    flipped = [ndim - 1 - a for a in range(3) if axes[a, 1] < 0]
    along = [ndim - 1 - int(np.flatnonzero(axes[:, 0] == world)[0]) for world in (2, 1, 0)]
    return flipped, [*range(ndim - 3), *along]


def canonical(scan: Scan) -> Scan:
    """A volume in its closest canonical orientation, contiguous again; unchanged where it does not say how it lies."""
    if scan.kind != "volume" or scan.affine is None:
        return scan
    array, affine = to_canonical(scan.array, scan.affine)
    return replace(scan, array=np.ascontiguousarray(array), affine=affine, spacing=spacing_of(affine))


def same_grid(a: Scan, b: Scan, tolerance_mm: float = 1e-3) -> bool:
    """Whether two volumes have the same shape and their eight corner voxels lie within `tolerance_mm` of each other.

    False where either does not say where it lies: nothing can be known then.
    """
    if a.affine is None or b.affine is None or a.array.shape[-3:] != b.array.shape[-3:]:
        return False
    return corners_apart(a.affine, b.affine, a.array.shape[-3:]) <= tolerance_mm


def corners_apart(a: np.ndarray, b: np.ndarray, shape: tuple[int, ...]) -> float:
    """The largest distance in mm between the corner voxels of a (K, J, I) volume under two affines."""
    k, j, i = shape
    corners = np.array([(*corner, 1) for corner in product((0, i - 1), (0, j - 1), (0, k - 1))], dtype=np.float64)
    return float(np.linalg.norm(corners @ (a - b).T, axis=1).max())
