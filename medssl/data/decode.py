"""A case's files -> Sample: opened, put on one grid, cropped, mapped, resized."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from pydantic import Field, model_validator

from medssl.config import Config
from medssl.data.alignment import Align, on_one_grid
from medssl.data.files import Files
from medssl.data.intensity import map_intensity
from medssl.data.resize import content_box, resize, resize_labels, size_at_spacing, size_of
from medssl.errors import ManifestError, UnreadableScan
from medssl.types import Kind, Sample

_LATER = ("align", "straighten", "colour")
"""Fields that came later: they count in the digest only where they are set, so that older caches stay good."""


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
    align: Align = "refuse"
    """Channels on another grid than the case's first one. refuse: skip the case; resample: put them on it by where
    their headers place them, linearly; register: rigidly, by what they show, where the patient moved between them. A
    mask on another grid is refused, or put on it by its header, each voxel the label of the nearest."""
    straighten: bool = False
    """Resample tilted CT gantries and uneven slice distances onto a straight, even grid, instead of skipping the
    case."""
    colour: bool = False
    """Keep the colours of images and clips, as three channels, of grey ones thrice the same; otherwise colours become
    their mean, one channel."""

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

    def _digested(self) -> dict[str, Any]:
        unset = {name for name in _LATER if getattr(self, name) == type(self).model_fields[name].default}
        return {name: value for name, value in super()._digested().items() if name not in unset}


def decode(case_id: str, files: Files, config: PrepareConfig) -> Sample:
    """The prepared case; a MedsslError where its files cannot be read or do not fit together."""
    if files.missing:
        raise ManifestError(f"Channels {', '.join(files.missing)} are missing", expected=f"{', '.join(files.channels)}",
                            remedy="leave the case out, or name them under `optional` in the card")
    scans = on_one_grid(files, config.align, config.straighten)
    array = np.concatenate([np.asarray(scans[channel].array, dtype=np.float32) for channel in files.there])
    if strange := array.size - int(np.isfinite(array).sum()):
        raise UnreadableScan(f"The image holds NaN or infinite values in {strange} of {array.size} voxels",
                             expected="finite numbers", remedy="export it again, or leave the case out")
    mask = _labels(scans["mask"].array[0]) if "mask" in scans else None
    if len(files.channels) == 1 and files.kind != "volume":
        array = _in_colour(array) if config.colour else _in_grey(array)
    if config.margin is not None and files.kind == "volume":
        box = content_box(array, config.margin)
        array, mask = array[:, *box], None if mask is None else mask[box]
    array = _complete(map_intensity(array, config.intensity, config.window), files)
    spacing = scans[files.channels[0]].spacing
    lost: tuple[int, ...] = ()
    size = _new_size(array.shape[1:], spacing, files.kind, config)
    if size != array.shape[1:]:
        if spacing is not None:
            old = array.shape[-len(spacing):]
            spacing = tuple(s * n / m for s, n, m in zip(spacing, old, size[-len(spacing):], strict=True))
        array = resize(array, size)
        if mask is not None:
            drawn, mask = mask, resize_labels(mask, size)
            lost = tuple(np.setdiff1d(drawn, mask).tolist())
    return Sample(case_id, array, mask, spacing, lost)


def _complete(array: np.ndarray, files: Files) -> np.ndarray:
    """The array with 0 for each channel that the case lacks."""
    if len(files.there) == len(files.channels):
        return array
    if len(array) != len(files.there):
        raise ManifestError(f"{len(files.there)} files hold {len(array)} channels, so that none can be optional",
                            expected="one channel a file", remedy="leave `optional` out of the card")
    rows = dict(zip(files.there, array, strict=True))
    return np.stack([rows.get(channel, np.zeros_like(array[0])) for channel in files.channels])


def _in_colour(array: np.ndarray) -> np.ndarray:
    return array.repeat(3, axis=0) if len(array) == 1 else array


def _in_grey(array: np.ndarray) -> np.ndarray:
    return array.mean(axis=0, keepdims=True) if len(array) == 3 else array


def _labels(values: np.ndarray) -> np.ndarray:
    """Mask values as uint8; what would not survive that unchanged is refused, never wrapped or cut off."""
    rounded = np.round(np.nan_to_num(np.asarray(values, dtype=np.float64), nan=-1.0))
    if rounded.min(initial=0) < 0 or rounded.max(initial=0) > 255 or np.abs(rounded - values).max(initial=0) > 1e-3:
        raise UnreadableScan("The mask holds values that are no labels", expected="whole numbers from 0 to 255",
                             remedy="export the labels themselves, not probabilities or colours, or leave the case out")
    return rounded.astype(np.uint8)


def _new_size(old: tuple[int, ...], spacing: tuple[float, ...] | None, kind: Kind,
              config: PrepareConfig) -> tuple[int, ...]:
    """S after resizing, for a case of size S."""
    if config.spacing is not None and kind == "volume":
        return size_at_spacing(old, spacing, config.spacing)
    return old if config.size is None else size_of(old, kind, config.size)
