"""A case's files -> Sample: opened, held to one grid, cropped, mapped, resampled."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field, model_validator

from medssl.config import Config
from medssl.errors import GeometryError, ManifestError, UnreadableScan
from medssl.types import Kind, Sample, Scan

GRID_TOLERANCE = 0.1
"""Share of a voxel by which the corners of a case's files may lie apart: headers round."""


class PrepareConfig(Config):
    """How a Scan becomes a Sample. Part of every model's `preprocessing`."""

    size: tuple[int, ...] | None = None
    """Resize to this many voxels, in array order: (J, I) for images and frames, (K, J, I) for volumes; (J, I) resizes
    the slices of a volume and keeps their number."""
    spacing: tuple[float, float, float] | None = None
    """Resample volumes to this spacing in mm (K, J, I), instead of to a size."""
    intensity: Literal["percentile", "range", "window", "zscore", "zscore_nonzero"] = "percentile"
    """percentile: 0.5-99.5 % of each case to [0, 1]; range: 0 to the largest value of its bits (8 bits for 8-bit files,
    else as many as the case's largest value needs) to [0, 1]; window: `window` to [0, 1]; zscore: each channel to mean
    0, sd 1; zscore_nonzero: the same over voxels that are not 0 (which stay 0)."""
    window: tuple[float, float] | None = None
    """Lowest and highest value (HU for CT) of `intensity: window`."""
    margin: int | None = Field(None, ge=0)
    """Crop volumes to the voxels that are not 0, with this margin in voxels."""

    @model_validator(mode="after")
    def _fits_together(self) -> PrepareConfig:
        if (self.intensity == "window") != (self.window is not None):
            raise ValueError("`window: [lowest, highest]` goes with `intensity: window`, and with no other")
        if self.window and self.window[0] >= self.window[1]:
            raise ValueError(f"window {self.window} must be [lowest, highest]")
        if self.size and self.spacing:
            raise ValueError("give either `size` or `spacing`")
        if min((*(self.size or ()), *(self.spacing or ()), 1)) <= 0:
            raise ValueError("`size` and `spacing` are greater than 0")
        return self


@dataclass(frozen=True)
class Files:
    """What a case consists of. paths: by role, a channel's name or "mask"; channels: the card's, in its order."""

    kind: Kind
    channels: tuple[str, ...]
    paths: dict[str, tuple[Path, ...]]

    def all(self) -> list[Path]:
        """Every file, the channels first."""
        return [file for role in [*self.channels, "mask"] for file in self.paths.get(role, ())]


def decode(case_id: str, files: Files, config: PrepareConfig) -> Sample:
    """The prepared case; a MedsslError where its files cannot be read or do not fit together."""
    missing = [channel for channel in files.channels if channel not in files.paths]
    if missing:
        raise ManifestError(f"Channels {', '.join(missing)} are missing", expected=f"{', '.join(files.channels)}",
                            remedy="leave the case out, or name fewer channels in the card")
    scans = {role: open_role(files, role) for role in [*files.channels, *(["mask"] if "mask" in files.paths else [])]}
    first = scans[files.channels[0]]
    if first.kind != files.kind:
        raise UnreadableScan(f"The file holds a {first.kind} where the manifest says {files.kind}",
                             expected="the same kind", remedy="mend the card's `kind`, or leave the case out")
    for role, scan in scans.items():
        _require_same_grid(first, scan, "the mask" if role == "mask" else f"channel {role!r}")
    scans = {role: _canonical(scan) for role, scan in scans.items()}
    array = np.concatenate([np.asarray(scans[channel].array, dtype=np.float32) for channel in files.channels])
    if strange := array.size - int(np.isfinite(array).sum()):
        raise UnreadableScan(f"The image holds NaN or infinite values in {strange} of {array.size} voxels",
                             expected="finite numbers", remedy="export it again, or leave the case out")
    mask = _labels(scans["mask"].array[0]) if "mask" in scans else None
    if len(files.channels) == 1 and len(array) == 3 and files.kind != "volume":
        array = array.mean(axis=0, keepdims=True)  # a grey picture saved as colour
    if config.margin is not None and files.kind == "volume":
        array, mask = _crop_to_content(array, mask, config.margin)
    array = _map_intensity(array, config)
    spacing = scans[files.channels[0]].spacing
    size = _new_size(array.shape[1:], spacing, files.kind, config)
    if size != array.shape[1:]:
        if spacing is not None:
            old = array.shape[-len(spacing):]
            spacing = tuple(s * n / m for s, n, m in zip(spacing, old, size[-len(spacing):], strict=True))
        array, mask = _resize(array, size), None if mask is None else _resize_labels(mask, size)
    return Sample(case_id, array, mask, spacing)


def open_role(files: Files, role: str) -> Scan:
    """One of the case's files, or its series of them, as it is stored."""
    from medssl.io import FoundScan, open_scan  # a machine that holds only a prepared cache needs no reader

    paths = files.paths[role]
    return open_scan(paths[0] if len(paths) == 1 else FoundScan(paths, files.kind))


def _canonical(scan: Scan) -> Scan:
    from medssl.io.geometry import canonical

    return canonical(scan)


def _require_same_grid(reference: Scan, other: Scan, name: str) -> None:
    """Of the files as stored: those on one grid are then turned alike. GeometryError says what differs."""
    if found := grid_difference(reference, other):
        raise GeometryError(f"{name} lies on another grid: {found}",
                            expected=f"the image's grid, shape {reference.array.shape[1:]}",
                            remedy="resample it onto the image with the nearest neighbour, or leave the case out")


def grid_difference(reference: Scan, other: Scan) -> str | None:
    """What is otherwise about the grid of `other`, in words: its shape, or where a volume lies. None: one grid."""
    shape = other.array.shape[1:]
    if shape != reference.array.shape[1:]:
        return f"shape {shape}"
    return _otherwise_placed(reference, other) if reference.kind == "volume" else None


def _otherwise_placed(a: Scan, b: Scan) -> str | None:
    if a.affine is None or b.affine is None:
        return None if a.affine is b.affine else "only one of the two files says where it lies"
    apart = _corners_apart(a.affine, b.affine, a.array.shape[1:])
    return f"an affine {apart:.3g} mm away" if apart > GRID_TOLERANCE * min(a.spacing) else None


def _corners_apart(a: np.ndarray, b: np.ndarray, shape: tuple[int, ...]) -> float:
    """The largest distance in mm between corner voxels (K, J, I) under two affines."""
    corners = np.array([(*corner, 1.0) for corner in product(*((0, n - 1) for n in reversed(shape)))])
    return float(np.linalg.norm(corners @ (a - b).T, axis=1).max())


def _labels(values: np.ndarray) -> np.ndarray:
    """Mask values as uint8; what would not survive that unchanged is refused, never wrapped or cut off."""
    rounded = np.round(np.nan_to_num(np.asarray(values, dtype=np.float64), nan=-1.0))
    if rounded.min(initial=0) < 0 or rounded.max(initial=0) > 255 or np.abs(rounded - values).max(initial=0) > 1e-3:
        raise UnreadableScan("The mask holds values that are no labels", expected="whole numbers from 0 to 255",
                             remedy="export the labels themselves, not probabilities or colours, or leave the case out")
    return rounded.astype(np.uint8)


def _crop_to_content(array: np.ndarray, mask: np.ndarray | None, margin: int) -> tuple[np.ndarray, np.ndarray | None]:
    content = np.argwhere((array != 0).any(axis=0))
    if len(content) == 0:
        return array, mask
    low = np.maximum(content.min(axis=0) - margin, 0)
    high = content.max(axis=0) + 1 + margin
    box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    return array[(slice(None), *box)], None if mask is None else mask[box]


def _map_intensity(array: np.ndarray, config: PrepareConfig) -> np.ndarray:
    if config.intensity == "percentile":
        low, high = np.percentile(array, (0.5, 99.5))
        return np.clip((array - low) / max(high - low, 1e-6), 0, 1)
    if config.intensity == "range":
        return array / (255.0 if array.max() <= 255 else float(2 ** np.ceil(np.log2(array.max() + 1)) - 1))
    if config.intensity == "window":
        low, high = config.window
        return np.clip((array - low) / (high - low), 0, 1)
    within = array != 0 if config.intensity == "zscore_nonzero" else np.ones_like(array, dtype=bool)
    mapped = np.zeros_like(array)
    for channel, (values, inside) in enumerate(zip(array, within, strict=True)):
        if inside.any():
            mean, sd = values[inside].mean(dtype=np.float64), values[inside].std(dtype=np.float64)
            mapped[channel][inside] = (values[inside] - mean) / max(sd, 1e-6)
    return np.clip(mapped, -10, 10)


def _new_size(old: tuple[int, ...], spacing: tuple[float, ...] | None, kind: Kind,
              config: PrepareConfig) -> tuple[int, ...]:
    """S after resampling, for a case of size S."""
    if config.spacing is not None and kind == "volume":
        if spacing is None:
            raise GeometryError("The file does not say its spacing", expected="mm per voxel",
                                remedy="give prepare.size instead of prepare.spacing")
        return tuple(max(1, round(n * s / t)) for n, s, t in zip(old, spacing, config.spacing, strict=True))
    if config.size is None:
        return old
    if len(config.size) not in ((2, 3) if kind == "volume" else (2,)):
        raise GeometryError(f"prepare.size {config.size} has {len(config.size)} axes",
                            expected="(J, I), or (K, J, I) for volumes", remedy="mend prepare.size (frames are kept)")
    return (*old[: len(old) - len(config.size)], *config.size)


def _resize(array: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    """(C, *S) -> (C, *size): anti-aliased in the plane (a triangle as wide as it shrinks); linear along slices."""
    planes = torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))
    planes = planes.reshape(-1, 1, *planes.shape[-2:])
    planes = F.interpolate(planes, size=size[-2:], mode="bilinear", antialias=True, align_corners=False)
    resized = planes.reshape(*array.shape[:-2], *size[-2:])
    if len(size) == 3 and size[0] != array.shape[-3]:
        resized = F.interpolate(resized[None], size=size, mode="trilinear", align_corners=False)[0]
    return resized.numpy()


def _resize_labels(mask: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    """(*S) uint8 -> (*size) uint8, each voxel the label of the nearest one."""
    labels = torch.from_numpy(np.ascontiguousarray(mask, dtype=np.float32))
    return F.interpolate(labels[None, None], size=size, mode="nearest-exact")[0, 0].numpy().astype(np.uint8)
