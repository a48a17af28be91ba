"""How far a predicted region and the drawn one overlap, and how far apart their surfaces lie.

Empty masks count as the BraTS challenge scores them, so that a mean over cases leaves none out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from medssl.errors import MedsslError


def dice(prediction: ArrayLike, target: ArrayLike) -> float:
    """Dice overlap of two masks of one shape, 2|A∩B| / (|A|+|B|), 0 to 1.

    Both empty is 1 (the absence was right), one empty is 0 (a miss, or a false alarm). Never NaN.
    """
    prediction, target = _masks(prediction, target)
    total = np.count_nonzero(prediction) + np.count_nonzero(target)
    return 2 * np.count_nonzero(prediction & target) / total if total else 1.0


class SurfaceDistances(NamedTuple):
    """mm. hd95: the larger of the two directed 95th percentiles; assd: the mean over all voxels of both surfaces."""

    hd95: float
    assd: float


def surface_distances(prediction: ArrayLike, target: ArrayLike, spacing: Sequence[float]) -> SurfaceDistances:
    """From each surface voxel of one mask to the nearest one of the other, between the voxels' centres.

    A surface voxel has a face neighbour outside of the mask; beyond the image's edge nothing is inside. Both masks
    empty is 0 mm; one empty is the diagonal of the image, its number of voxels times their spacing: the BraTS
    challenge's 373.13 mm for its images of 240 × 240 × 155 voxels of 1 mm (Baid et al., arXiv 2107.02314). Never NaN.

    Args:
        prediction, target: bool, of one shape, 2-D or 3-D.
        spacing: mm per voxel, one an axis.
    """
    prediction, target = _masks(prediction, target)
    if len(spacing) != target.ndim or not all(0 < mm < math.inf for mm in spacing):
        raise MedsslError(f"spacing {tuple(spacing)} of masks with {target.ndim} axes",
                          expected="mm above 0, one number an axis",
                          remedy="give the prepared case's spacing in the array's order")
    drawn = prediction.any(), target.any()
    if not all(drawn):
        diagonal = math.hypot(*(n * mm for n, mm in zip(target.shape, spacing, strict=True)))
        return SurfaceDistances(*[diagonal if any(drawn) else 0.0] * 2)
    box = _bounds(prediction | target)
    surfaces = _surface(prediction[box]), _surface(target[box])
    there, back = _distances(*surfaces, spacing), _distances(*reversed(surfaces), spacing)
    return SurfaceDistances(float(max(np.percentile(there, 95), np.percentile(back, 95))),
                            float(np.concatenate([there, back]).mean()))


def _distances(surface: np.ndarray, other: np.ndarray, spacing: Sequence[float]) -> np.ndarray:
    """(n,) mm from each voxel of `surface` to the nearest one of `other`."""
    from scipy.ndimage import distance_transform_edt

    return distance_transform_edt(~other, sampling=spacing)[surface]


def _surface(mask: np.ndarray) -> np.ndarray:
    from scipy.ndimage import binary_erosion

    return mask & ~binary_erosion(mask)


def _bounds(mask: np.ndarray) -> tuple[slice, ...]:
    """The smallest box around what is set."""
    spans = []
    for axis in range(mask.ndim):
        held = np.flatnonzero(mask.any(axis=tuple(other for other in range(mask.ndim) if other != axis)))
        spans.append(slice(held[0], held[-1] + 1))
    return tuple(spans)


def _masks(prediction: ArrayLike, target: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    prediction, target = np.asarray(prediction), np.asarray(target)
    if prediction.shape != target.shape:
        raise MedsslError(f"prediction has shape {prediction.shape}", expected=f"the target's, {target.shape}")
    if prediction.dtype != bool or target.dtype != bool:
        raise MedsslError(f"masks are {prediction.dtype} and {target.dtype}", expected="bool",
                          remedy="compare with a region's label first, e.g. mask == 2")
    return prediction, target
