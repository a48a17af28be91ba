"""What differs between two CT scans of one patient: the window, the calibration of HU, and the slice thickness.

Those in HU assume `data.prepare.intensity: window`, which maps the window's lowest and highest HU to 0 and 1 and cuts
off what lies beyond. What was cut off is lost: air at -1000 HU, 0 in a window that begins at -160, would still be black
in one that begins at -200. So voxels at 0 and at 1 stay there. To show more than that, prepare a wider window.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor

from medssl.augment.intensity import through_window
from medssl.augment.transform import Params, Stacked, Strength, Transform, TransformConfig, column
from medssl.errors import ConfigError

SHARES = (0.0, 1.0)
"""The window of strengths that are no HU but shares of whatever was prepared."""


class InWindow(TransformConfig):
    """A transform whose strengths are in HU."""

    window: tuple[float, float] = SHARES
    """The HU of 0 and of 1: repeat `data.prepare.window` here. Left out, strengths are shares of that window."""

    @model_validator(mode="after")
    def _ordered(self) -> InWindow:
        if self.window[0] >= self.window[1]:
            raise ValueError(f"window {list(self.window)} must be [lowest, highest]")
        return self

    @property
    def breadth(self) -> float:
        """HU from 0 to 1."""
        return self.window[1] - self.window[0]


class HuWindow(Transform):
    """Shows the scan through another window (PS3.3 C.11.2.1.3.2, LINEAR_EXACT), as sites and readers choose theirs."""

    class Config(InWindow):
        name: Literal["hu_window"] = "hu_window"
        centre: Strength = Field(examples=[0.1])
        """The centre is moved by -centre to centre, in HU, or as a share of the window where `window` is left out."""
        width: Strength = Field(examples=[0.3])
        """The width is drawn from 1 / (1 + width) to 1 + width times the prepared one, uniform in its logarithm."""

    config: Config

    def draw(self, rng: np.random.Generator, shape: tuple[int, ...]) -> Params:
        return {"centre": rng.uniform(-1, 1) * self.config.centre / self.config.breadth,
                "width": math.exp(rng.uniform(-1, 1) * math.log1p(self.config.width))}

    def apply(self, batch: Tensor, params: Stacked) -> Tensor:
        return _but_where_cut_off(batch, through_window(batch, params["centre"], params["width"]))


class HuShift(Transform):
    """HU -> HU + b: scanners differ in calibration, within 4 HU for water where constancy holds (IEC 61223-2-6)."""

    class Config(InWindow):
        name: Literal["hu_shift"] = "hu_shift"
        shift: Strength = Field(examples=[0.05])
        """The shift b is drawn from -shift to shift, in HU, or as a share of the window where `window` is left out."""

    config: Config

    def draw(self, rng: np.random.Generator, shape: tuple[int, ...]) -> Params:
        return {"shift": rng.uniform(-1, 1) * self.config.shift / self.config.breadth}

    def apply(self, batch: Tensor, params: Stacked) -> Tensor:
        return _but_where_cut_off(batch, (batch + column(params["shift"], batch)).clamp_(0, 1))


class SliceThickness(Transform):
    """Thick slices put back on the thin slices' grid: partial volume along K. Any range of values; volumes only.

    Contiguous slices of the drawn thickness, the first one beginning at a drawn place, each the mean of what it covers
    (Barrett and Keat, RadioGraphics 24 (2004), "Partial volume"); between their centres linear interpolation, as when
    a thick scan is resampled to a finer spacing. A clip's first axis is time: not for clips.
    """

    through_slices = True

    class Config(TransformConfig):
        name: Literal["slice_thickness"] = "slice_thickness"
        slices: Strength = Field(examples=[4.0])
        """The thickness is drawn from 1 to 1 + slices of the image's own slices."""

    config: Config

    def draw(self, rng: np.random.Generator, shape: tuple[int, ...]) -> Params:
        if len(shape) != 4:
            raise ConfigError(f"slice_thickness on images of {len(shape) - 1} axes", expected="volumes (K, J, I)",
                              remedy="leave slice_thickness out or, where data.box.planar cuts volumes into slices, "
                              "leave that out")
        return {"extra": rng.uniform(0, self.config.slices), "phase": rng.random()}

    def apply(self, batch: Tensor, params: Stacked) -> Tensor:
        through = _through_thick_slices(params["extra"], params["phase"], batch.shape[2]).to(batch.device, batch.dtype)
        return (through[:, None] @ batch.flatten(3)).reshape(batch.shape)


def _but_where_cut_off(batch: Tensor, changed: Tensor) -> Tensor:
    """`changed`, save where `batch` lies at or beyond an end of its window."""
    return torch.where((batch > 0) & (batch < 1), changed, batch)


def _through_thick_slices(extra: Tensor, phase: Tensor, slices: int) -> Tensor:
    """(B,) thickness beyond one slice, and place of the first one in [0, 1) -> (B, K, K), from K slices to K.

    Averages (thick, thin), then interpolates (thin, thick). Their number is K at most; those outside count nothing.
    """
    number, start, thickness = torch.arange(slices), (-phase * extra)[:, None], (1 + extra)[:, None]
    begin = (start + thickness * number)[..., None]
    end = begin + thickness[..., None]
    covered = (torch.minimum(end, number + 1) - torch.maximum(begin, number)).clamp(min=0)
    total = covered.sum(dim=2, keepdim=True)
    last = (total > 0).sum(dim=1) - 1
    place = ((number + 0.5 - start) / thickness - 0.5).clamp(min=0).minimum(last)  # thin centres, in thick slices
    between = (1 - (place[..., None] - number).abs()).clamp(min=0)
    return between @ (covered / total.clamp(min=torch.finfo(total.dtype).tiny))
