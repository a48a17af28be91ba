"""The grids of a case's files: whether they are one, and how a file comes onto the first channel's.

Affines take (i, j, k, 1) to RAS+ mm; arrays are (C, K, J, I).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from medssl.errors import GeometryError
from medssl.io.geometry import canonical, corners_apart
from medssl.types import Scan

TOLERANCE = 0.1
"""Share of a voxel by which the corners of a case's files may lie apart: headers round."""
STRAIGHT = "axes at right angles"
STRAIGHTEN = "straighten it: data.prepare.straighten=true in a recipe; or leave the case out"
COVERED = 0.5
"""Share of the first channel's voxels that a file must cover; less, and it shows something else."""


def difference(reference: Scan, other: Scan) -> str | None:
    """What sets the other's grid apart, in words; None where the voxels are the same, whichever way round stored."""
    return stored_difference(reference, other) and stored_difference(canonical(reference), canonical(other))


def stored_difference(reference: Scan, other: Scan) -> str | None:
    """As `difference`, of the arrays as they are stored; those alike are then to be turned alike: headers round."""
    shape, wanted = other.array.shape[1:], reference.array.shape[1:]
    if shape != wanted:
        return f"shape {shape}"
    if reference.kind != "volume" or reference.affine is other.affine:
        return None
    if reference.affine is None or other.affine is None:
        return "only one of the two files says where it lies"
    apart = corners_apart(reference.affine, other.affine, shape)
    return f"an affine {apart:.3g} mm away" if apart > TOLERANCE * min(reference.spacing) else None


def shear(scan: Scan) -> str | None:
    """How far slices slide against each other, as a tilted gantry leaves them, in words; None below a voxel."""
    if scan.kind != "volume" or scan.affine is None:
        return None
    shape = scan.array.shape[1:]
    edges = scan.affine[:3, :3] / np.linalg.norm(scan.affine[:3, :3], axis=0)
    u, _, v = np.linalg.svd(edges)
    straight = np.eye(4)
    straight[:3, :3] = u @ v @ np.diag(np.linalg.norm(scan.affine[:3, :3], axis=0))
    centre = np.array([*(np.array(shape[::-1]) - 1) / 2, 1.0])
    straight[:3, 3] = (scan.affine @ centre)[:3] - straight[:3, :3] @ centre[:3]
    away = corners_apart(scan.affine, straight, shape)
    told = f"The grid is sheared: its corners lie {away:.3g} mm off a box, as with a tilted gantry"
    return told if away > min(scan.spacing) else None


def require_straight(scan: Scan) -> None:
    """GeometryError for a volume with a `shear`."""
    if told := shear(scan):
        raise GeometryError(told, expected=STRAIGHT, remedy=STRAIGHTEN)


def require_placed(*scans: Scan) -> None:
    """GeometryError where one of the scans is no volume that says where it lies."""
    if any(scan.kind != "volume" or scan.affine is None for scan in scans):
        raise GeometryError("A file does not say where it lies, so that it cannot be put on the first channel's grid",
                            expected="volumes with an affine", remedy="leave the case out")


def resample(scan: Scan, onto: Scan, moved: np.ndarray | None = None, *, labels: bool = False) -> Scan:
    """The scan on the grid of `onto`: linear, or for labels the nearest voxel's; beyond its edge its least value, or 0.

    Args:
        moved: (4, 4), takes a point of `onto` to the same point of the patient in `scan`, RAS+ mm; none: itself.

    Raises:
        GeometryError: where either does not say where it lies, or hardly anything of `onto` would be covered.
    """
    from scipy.ndimage import affine_transform

    to_scan = _between(scan, onto, moved)
    covered = coverage(to_scan, onto.array.shape[1:], scan.array.shape[1:])
    if covered < COVERED and not labels:
        raise GeometryError(f"A channel covers {covered:.0%} of the first channel's grid",
                            expected=f"at least {COVERED:.0%}", remedy="leave the case out")
    matrix, offset = to_scan[:3, :3][::-1, ::-1], to_scan[:3, 3][::-1]
    dtype = scan.array.dtype if labels else np.float32
    array = np.stack([  # "constant" would already leave out what lies 1e-15 beyond the centres of the outermost voxels
        affine_transform(np.asarray(channel, dtype=dtype), matrix, offset, onto.array.shape[1:],
                         order=0 if labels else 1, mode="grid-constant", cval=0 if labels else float(channel.min()))
        for channel in scan.array])
    if labels and (lost := set(np.unique(scan.array).tolist()) - set(np.unique(array).tolist())):
        raise GeometryError(f"The mask's value {min(lost):g} comes nowhere on the image's grid",
                            expected="structures within the image, and larger than its voxels",
                            remedy="draw the mask on the first channel, or leave it out")
    return replace(scan, array=array, affine=onto.affine, spacing=onto.spacing)


def coverage(to_scan: np.ndarray, grid: tuple[int, ...], scan: tuple[int, ...]) -> float:
    """The share of a grid's voxels that lie within a scan, told from a lattice of at most 32³ of them.

    to_scan: (4, 4), takes (i, j, k, 1) of the grid to those of the scan; shapes are (K, J, I).
    """
    lattice = np.meshgrid(*(np.linspace(0, n - 1, min(n, 32)) for n in reversed(grid)), indexing="ij")
    points = np.stack([*(axis.ravel() for axis in lattice), np.ones(lattice[0].size)])
    places = (to_scan @ points)[:3]
    ends = np.reshape(scan[::-1], (3, 1)) - 0.5
    return float(((places >= -0.5) & (places <= ends)).all(axis=0).mean())


def _between(scan: Scan, onto: Scan, moved: np.ndarray | None) -> np.ndarray:
    require_placed(scan, onto)
    return np.linalg.inv(scan.affine) @ (np.eye(4) if moved is None else moved) @ onto.affine
