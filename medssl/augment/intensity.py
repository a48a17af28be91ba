"""Transforms of grey values that any modality may use. Each says which range of values it assumes.

Of the ten in SimCLR's figure 4 (Chen et al. 2020, arXiv 2002.05709), cutout, noise, blur and Sobel are here, and
`jitter` is what colour jitter means for grey; colour drop and colour jitter proper are in colour.py; crop and resize,
flip and rotate are in spatial.py.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal

import numpy as np
import torch
from pydantic import Field, field_validator
from torch import Tensor

from medssl.augment.blend import Blend
from medssl.augment.transform import (
    Axes,
    Params,
    Stacked,
    Strength,
    Transform,
    TransformConfig,
    acting_axes,
    column,
    normal_field,
    smooth,
    voxel_axes,
)


class Jitter(Transform):
    """x -> f (m + c (x - m)), m the sample's mean: torchvision's ColorJitter for grey images. Assumes [0, 1].

    Brightness and contrast commute here, so torchvision's random order changes nothing but where it clips, which it
    does after either: at 0.7 and 0.7 on chest X-rays (400 draws) that moves a value by 0.007 on average.
    """

    class Config(TransformConfig):
        name: Literal["jitter"] = "jitter"
        brightness: Annotated[float, Field(ge=0, le=1, examples=[0.4])]
        """Values are multiplied by f, drawn from 1 - brightness to 1 + brightness."""
        contrast: Annotated[float, Field(ge=0, le=1, examples=[0.4])]
        """Distances to the mean are multiplied by c, drawn from 1 - contrast to 1 + contrast."""
        clip: tuple[float, float] | None = (0.0, 1.0)
        """The range that the result is clipped to; null for values that have no bounds, such as z-scores."""

        @field_validator("clip")
        @classmethod
        def _ordered(cls, clip: tuple[float, float] | None) -> tuple[float, float] | None:
            if clip and clip[0] >= clip[1]:
                raise ValueError("clip must be [lowest, highest]")
            return clip

    config: Config

    def draw(self, rng: np.random.Generator, shape: tuple[int, ...]) -> Params:
        brightness, contrast = self.config.brightness, self.config.contrast
        return {"brightness": 1 + rng.uniform(-brightness, brightness),
                "contrast": 1 + rng.uniform(-contrast, contrast)}

    def apply(self, batch: Tensor, params: Stacked) -> Tensor:
        brightness, contrast = column(params["brightness"], batch), column(params["contrast"], batch)
        mean = batch.mean(dim=tuple(range(1, batch.ndim)), keepdim=True)
        changed = torch.addcmul(brightness * (1 - contrast) * mean, batch, brightness * contrast)
        return changed if self.config.clip is None else changed.clamp_(*self.config.clip)


class Gamma(Transform):
    """x -> x^g on each channel's own range, which it keeps. Any range of values."""

    class Config(TransformConfig):
        name: Literal["gamma"] = "gamma"
        gamma: Strength = Field(examples=[0.5])
        """The exponent g is drawn from 1 / (1 + gamma) to 1 + gamma, uniform in its logarithm."""

    config: Config

    def draw(self, rng: np.random.Generator, shape: tuple[int, ...]) -> Params:
        return {"gamma": math.exp(rng.uniform(-1, 1) * math.log1p(self.config.gamma))}

    def apply(self, batch: Tensor, params: Stacked) -> Tensor:
        low, high = channel_range(batch)
        width = (high - low).clamp(min=torch.finfo(batch.dtype).tiny)
        share = (batch - low).div_(width)
        powered = share.log2_().mul_(column(params["gamma"], batch)).exp2_()  # half the time of pow on CPU
        return powered.mul_(width).add_(low)


class Noise(Transform):
    """Adds white Gaussian noise. Any range of values."""

    class Config(TransformConfig):
        name: Literal["noise"] = "noise"
        std: Strength = Field(examples=[0.1])
        """Largest standard deviation, in the image's own units."""

    config: Config

    def draw(self, rng: np.random.Generator, shape: tuple[int, ...]) -> Params:
        return {"std": rng.uniform(0, self.config.std), "seed": rng.integers(2**63)}

    def apply(self, batch: Tensor, params: Stacked) -> Tensor:
        (noise,) = normal_field(batch, params["seed"])
        return torch.addcmul(batch, noise, column(params["std"], batch))


class Blur(Transform):
    """Gaussian blur, cut off at three standard deviations. Any range of values."""

    class Config(TransformConfig):
        name: Literal["blur"] = "blur"
        sigma: Strength = Field(examples=[2.0])
        """Largest standard deviation, in voxels."""
        axes: Axes = "plane"

    config: Config

    def draw(self, rng: np.random.Generator, shape: tuple[int, ...]) -> Params:
        return {"sigma": rng.uniform(0, self.config.sigma)}

    def apply(self, batch: Tensor, params: Stacked) -> Tensor:
        kernels = gaussian_kernels(params["sigma"])
        for axis in voxel_axes(batch)[-acting_axes(self.config.axes, batch.ndim - 2):]:
            batch = smooth(batch, kernels, axis)
        return batch


class Cutout(Transform):
    """Replaces a box by each channel's mean (DeVries and Taylor, arXiv 1708.04552). Any range of values."""

    class Config(TransformConfig):
        name: Literal["cutout"] = "cutout"
        size: Annotated[float, Field(ge=0, le=1, examples=[0.5])]
        """Largest side of the box, as a share of each axis."""
        axes: Axes = "plane"

    config: Config

    def draw(self, rng: np.random.Generator, shape: tuple[int, ...]) -> Params:
        count = acting_axes(self.config.axes, len(shape) - 1)
        return {"centre": rng.random(count), "half": rng.random(count) * self.config.size / 2}

    def apply(self, batch: Tensor, params: Stacked) -> Tensor:
        inside = torch.ones([1] * batch.ndim, dtype=torch.bool, device=batch.device)
        count = params["centre"].shape[1]
        for axis, centre, half in zip(range(-count, 0), params["centre"].T, params["half"].T, strict=True):
            size = batch.shape[axis]
            place = (torch.arange(size, dtype=torch.float64) + 0.5) / size
            within = (place - centre[:, None]).abs() < half[:, None]  # (B, size)
            shape = [1] * batch.ndim
            shape[0], shape[axis] = within.shape
            inside = inside & within.reshape(shape).to(batch.device)
        return torch.where(inside, batch.mean(dim=voxel_axes(batch), keepdim=True), batch)


class Sobel(Blend):
    """Blends towards the size of the gradient by Sobel's operator, which leaves edges only. Any range of values.

    Chen et al. 2020, arXiv 2002.05709, figure 4. The gradient is per voxel, and its size scaled to each channel's own
    range: the least value where nothing changes, the greatest at the steepest edge.
    """

    class Config(Blend.Config):
        name: Literal["sobel"] = "sobel"
        axes: Axes = "plane"

    config: Config

    def changed(self, batch: Tensor) -> Tensor:
        across, along = torch.tensor([1.0, 2.0, 1.0]) / 4, torch.tensor([-1.0, 0.0, 1.0]) / 2
        acting = voxel_axes(batch)[-acting_axes(self.config.axes, batch.ndim - 2):]
        square = torch.zeros_like(batch)
        for sloping in acting:
            slope = batch
            for axis in acting:
                slope = smooth(slope, (along if axis == sloping else across).expand(len(batch), -1), axis)
            square.addcmul_(slope, slope)
        steepness = square.sqrt_()
        steepest = steepness.amax(dim=voxel_axes(batch), keepdim=True).clamp(min=torch.finfo(batch.dtype).tiny)
        low, high = channel_range(batch)
        return torch.addcmul(low, steepness.div_(steepest), high - low)


def gaussian_kernels(sigma: Tensor) -> Tensor:
    """(B,) standard deviations in voxels -> (B, taps) kernels that sum to 1; a sigma of 0 gives the identity."""
    radius = math.ceil(3 * float(sigma.max()))
    distance = torch.arange(-radius, radius + 1).abs()
    sigma = sigma[:, None].clamp(min=1e-6)
    kernels = torch.exp(-0.5 * (distance / sigma) ** 2) * (distance <= (3 * sigma).ceil())
    return kernels / kernels.sum(dim=1, keepdim=True)


def through_window(batch: Tensor, centre: Tensor, width: Tensor) -> Tensor:
    """Values in [0, 1] through a window whose centre lies `centre` above 1/2; both (B,), in units of the range."""
    centre, width = column(centre, batch), column(width, batch)
    return torch.addcmul(0.5 - (0.5 + centre) / width, batch, 1 / width).clamp_(0, 1)


def channel_range(batch: Tensor) -> tuple[Tensor, Tensor]:
    """Each channel's least and greatest value, (B, C, 1, ..., 1)."""
    return batch.amin(dim=voxel_axes(batch), keepdim=True), batch.amax(dim=voxel_axes(batch), keepdim=True)
