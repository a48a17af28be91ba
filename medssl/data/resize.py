"""Cropping and resizing of prepared arrays: the size that a case is to have, and the way there."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F

from medssl.errors import GeometryError
from medssl.types import Kind


def content_box(array: np.ndarray, margin: int) -> tuple[slice, ...]:
    """Where the voxels of (C, *S) lie that are not 0, and `margin` voxels around them; the whole where all are 0."""
    content = np.argwhere((array != 0).any(axis=0))
    if len(content) == 0:
        return tuple(slice(0, n) for n in array.shape[1:])
    low, high = content.min(axis=0) - margin, content.max(axis=0) + 1 + margin
    return tuple(slice(max(a, 0), min(b, n)) for a, b, n in
                 zip(low.tolist(), high.tolist(), array.shape[1:], strict=True))


def size_at_spacing(old: tuple[int, ...], spacing: tuple[float, ...] | None, wanted: tuple[float, ...]) -> \
        tuple[int, ...]:
    """S of a volume of size S at another spacing, mm in array order."""
    if spacing is None:
        raise GeometryError("The file does not say its spacing", expected="mm per voxel",
                            remedy="give prepare.size instead of prepare.spacing")
    return tuple(max(1, round(n * s / t)) for n, s, t in zip(old, spacing, wanted, strict=True))


def size_of(old: tuple[int, ...], kind: Kind, wanted: tuple[int, ...]) -> tuple[int, ...]:
    """S of a case of size S whose last axes are to have the size `wanted`."""
    if len(wanted) not in ((2, 3) if kind == "volume" else (2,)):
        raise GeometryError(f"prepare.size {wanted} has {len(wanted)} axes",
                            expected="(J, I), or (K, J, I) for volumes", remedy="mend prepare.size (frames are kept)")
    return (*old[: len(old) - len(wanted)], *wanted)


def resize(array: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    """(C, *S) -> (C, *size): anti-aliased in the plane (a triangle as wide as it shrinks); linear along slices."""
    planes = torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))
    planes = planes.reshape(-1, 1, *planes.shape[-2:])
    planes = F.interpolate(planes, size=size[-2:], mode="bilinear", antialias=True, align_corners=False)
    resized = planes.reshape(*array.shape[:-2], *size[-2:])
    if len(size) == 3 and size[0] != array.shape[-3]:
        resized = F.interpolate(resized[None], size=size, mode="trilinear", align_corners=False)[0]
    return resized.numpy()


def resize_labels(mask: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    """(*S) uint8 -> (*size) uint8, each voxel the label of the nearest one."""
    labels = torch.from_numpy(np.ascontiguousarray(mask, dtype=np.float32))
    return F.interpolate(labels[None, None], size=size, mode="nearest-exact")[0, 0].numpy().astype(np.uint8)
