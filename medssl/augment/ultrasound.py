"""What an ultrasound machine does to grey values: speckle, gain, gain over depth; and the fan that it draws them in.

All assume values in [0, 1], black at 0.
"""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
import torch
from pydantic import Field, PositiveFloat
from torch import Tensor

from medssl.augment.intensity import gaussian_kernels
from medssl.augment.spatial import Spatial, SpatialConfig
from medssl.augment.transform import (
    Params,
    Stacked,
    Strength,
    Transform,
    TransformConfig,
    apply_draws,
    column,
    normal_field,
    smooth,
)
from medssl.rng import stream

BLACK = 0.02
"""5 of 255 grey levels: what compression leaves of black."""


class Speckle(Transform):
    """x -> x (1 + s n), n Gaussian noise of mean 0 and variance 1, new in each frame. Assumes [0, 1] and clips to it.

    Multiplicative noise as in MATLAB's imnoise and scikit-image's random_noise, which are white.
    """

    class Config(TransformConfig):
        name: Literal["speckle"] = "speckle"
        std: Strength = Field(examples=[0.3])
        """Largest s: the noise's standard deviation as a share of the local brightness."""
        grain: Annotated[float, Field(ge=0)] = 0.0
        """The size of real speckle: n is smoothed by a Gaussian of this standard deviation, in pixels. 0 is white."""

    config: Config

    def draw(self, rng: np.random.Generator, shape: tuple[int, ...]) -> Params:
        return {"std": rng.uniform(0, self.config.std), "seed": rng.integers(2**63)}

    def apply(self, batch: Tensor, params: Stacked) -> Tensor:
        (noise,) = normal_field(batch, params["seed"])
        if self.config.grain:
            kernels = gaussian_kernels(torch.full((len(batch),), self.config.grain))
            kernels = kernels / kernels.norm(dim=1, keepdim=True)  # the variance stays 1
            noise = smooth(smooth(noise, kernels, -1), kernels, -2)
        return torch.addcmul(batch, batch * column(params["std"], batch), noise).clamp_(0, 1)


class DepthGain(Transform):
    """x -> x exp(s d), d from -1 at the top row to 1 at the bottom one: attenuation, or its compensation (TGC).

    The same in every frame. Assumes [0, 1] and clips to it; the probe is taken to be at the top.
    """

    class Config(TransformConfig):
        name: Literal["depth_gain"] = "depth_gain"
        slope: Strength = Field(examples=[0.35])
        """s is drawn from -slope to slope; 0.35 is 3 dB between the middle and either end."""

    config: Config

    def draw(self, rng: np.random.Generator, shape: tuple[int, ...]) -> Params:
        return {"slope": rng.uniform(-self.config.slope, self.config.slope)}

    def apply(self, batch: Tensor, params: Stacked) -> Tensor:
        depth = torch.linspace(-1, 1, batch.shape[-2], device=batch.device)[:, None].to(batch.dtype)  # (J, 1)
        return (batch * torch.exp(column(params["slope"], batch) * depth)).clamp_(0, 1)


class Gain(Transform):
    """x -> x + g / r within the fan: a picture shows the logarithm of the echo, r decibels from black to white.

    The same in every frame. Assumes [0, 1] and clips to it; outside the fan black stays black.
    """

    class Config(TransformConfig):
        name: Literal["gain"] = "gain"
        gain: Strength = Field(examples=[12.0])
        """g is drawn from -gain to gain, in dB of echo amplitude."""
        dynamic_range: PositiveFloat = 60.0
        """r, in dB."""

    config: Config

    def draw(self, rng: np.random.Generator, shape: tuple[int, ...]) -> Params:
        return {"gain": rng.uniform(-self.config.gain, self.config.gain)}

    def apply(self, batch: Tensor, params: Stacked) -> Tensor:
        brighter = column(params["gain"] / self.config.dynamic_range, batch)
        return (batch + brighter * sector(batch)).clamp_(0, 1)


def sector(image: Tensor) -> Tensor:
    """The fan of each picture or clip (B, C, ..., J, I) -> (B, 1, ..., J, I) bool, 1 for the axes between.

    It holds the pixels that have one which is ever lit on either side of them, or is itself, along both J and I: fans,
    with a tip or a curved probe, are filled however dark the heart's chambers are.
    """
    lit = (image > BLACK).flatten(1, -3).any(dim=1)
    inside = torch.ones_like(lit)
    for axis in (-2, -1):
        inside &= (lit.cumsum(axis) > 0) & (lit.flip(axis).cumsum(axis).flip(axis) > 0)
    return inside.reshape(len(image), *[1] * (image.ndim - 3), *image.shape[-2:])


def sector_of_view(image: Tensor, size: tuple[int, ...] | None) -> Tensor:
    """`sector` as it lies in the view of `size` that no augmentation touched: (B, 1, ..., J', I') bool."""
    fan, spatial = sector(image), Spatial(SpatialConfig(), size)
    box = spatial.draw(stream("the same for all: nothing is drawn"), tuple(fan.shape[1:]))
    return apply_draws(spatial.apply_labels, fan[:, 0], [box] * len(fan))[:, None]
