"""What an ultrasound machine does to grey values: speckle, gain, gain over depth; and the fan that it draws them in.

All assume values in [0, 1], black at 0. A machine's picture shows the logarithm of the echo. `gain` acts on the echo,
as the machine's knob does, and so adds to the picture. `speckle` and `depth_gain` multiply the picture itself: black
stays black, and bright parts change most.
"""

from __future__ import annotations

import math
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
TANGENTS = 720
"""Slopes from which a fan's outline is drawn: between two of them lies a quarter of a degree."""
SLACK = 1e-3
"""What rounding may take from a tangent, in pixels."""


class Speckle(Transform):
    """x -> x (1 + s n), n Gaussian noise of mean 0 and variance 1, new in each frame. Assumes [0, 1] and clips to it.

    Multiplicative noise as in MATLAB's imnoise and scikit-image's random_noise, which are white. That is a model of the
    echo before its logarithm: in the finished picture real speckle is as strong in dark parts as in bright ones.
    """

    class Config(TransformConfig):
        name: Literal["speckle"] = "speckle"
        std: Strength = Field(examples=[0.3])
        """Largest standard deviation s of the noise, as a share of the local brightness."""
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
    """x -> x exp(s d), d from -1 at the top row to 1 at the bottom one: darker with depth, or brighter.

    A look of attenuation and of its compensation (TGC), not a model of them: on the echo itself a factor would add to
    the picture, as `gain` does. The same in every frame. Assumes [0, 1] and clips to it; the probe is taken to be at
    the top.
    """

    class Config(TransformConfig):
        name: Literal["depth_gain"] = "depth_gain"
        slope: Strength = Field(examples=[0.35])
        """The exponent s is drawn from -slope to slope: 0.35 makes the bottom row 1.4 times as bright, or as dark."""

    config: Config

    def draw(self, rng: np.random.Generator, shape: tuple[int, ...]) -> Params:
        return {"slope": rng.uniform(-self.config.slope, self.config.slope)}

    def apply(self, batch: Tensor, params: Stacked) -> Tensor:
        depth = torch.linspace(-1, 1, batch.shape[-2], device=batch.device)[:, None].to(batch.dtype)  # (J, 1)
        return (batch * torch.exp(column(params["slope"], batch) * depth)).clamp_(0, 1)


class Gain(Transform):
    """x -> x + g / r within the fan: a picture shows the logarithm of the echo, r decibels from black to white.

    The same in every frame. Assumes [0, 1] and clips to it; outside the fan black stays black. The fan is what is not
    black, so this comes first in a recipe: after `noise`, or `jitter` with contrast, nothing is black any longer.
    """

    class Config(TransformConfig):
        name: Literal["gain"] = "gain"
        gain: Strength = Field(examples=[12.0])
        """The gain g is drawn from -gain to gain, in dB of echo amplitude."""
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

    The convex hull of what is ever lit: chambers and shadows, however dark, lie within. Of a curved probe the dark
    above its arc, between the arc's two ends, does not, and there a shadow's dark beginning passes for more of it.
    """
    lit = (image > BLACK).flatten(1, -3).any(dim=1)
    _, columns = _first_row(lit)
    above = _between_ends(columns)[:, None] & (lit.cumsum(dim=1) == 0) & lit.any(dim=1)[:, None]
    inside = _hull(lit) & _between_ends(lit.any(dim=2))[..., None] & ~above
    return inside.reshape(len(image), *[1] * (image.ndim - 3), *image.shape[-2:])


def probes(fan: Tensor) -> list[list[float]]:
    """Where each fan (B, 1, ..., J, I) begins: the upper edge of its first row, (j, i) in voxels, amid what it has."""
    first, columns = _first_row(fan.flatten(1, -3).any(dim=1))
    columns, places = columns.double(), torch.arange(columns.shape[1], device=fan.device) + 0.5
    centre = columns @ places.double() / columns.sum(dim=1).clamp(min=1)
    return torch.stack([first.double(), centre], dim=1).tolist()


def sector_of_view(fan: Tensor, size: tuple[int, ...] | None) -> Tensor:
    """`fan` as it lies in the view of `size` that no augmentation touched: (B, 1, ..., J', I') bool."""
    spatial = Spatial(SpatialConfig(), size)
    box = spatial.draw(stream("the same for all: nothing is drawn"), tuple(fan.shape[1:]))
    return apply_draws(spatial.apply_labels, fan[:, 0], [box] * len(fan))[:, None]


def _hull(lit: Tensor) -> Tensor:
    """(B, J, I) bool -> what lies between the left and right sides of its hull, drawn by TANGENTS tangents each."""
    row, column = (torch.arange(size, dtype=torch.float32, device=lit.device) for size in lit.shape[1:])
    angle = (torch.arange(TANGENTS, device=lit.device) + 0.5) / TANGENTS * math.pi - math.pi / 2
    along = angle.tan()[:, None] * row  # (slopes, J)
    left, right = (torch.where(lit, sign * column, -math.inf).amax(dim=2)[:, None] for sign in (-1, 1))  # (B, 1, J)
    left, right = (((side - along).amax(dim=2, keepdim=True) + along).amin(dim=1) for side in (left, right))
    return (column <= right[..., None] + SLACK) & (-column <= left[..., None] + SLACK)


def _first_row(marked: Tensor) -> tuple[Tensor, Tensor]:
    """(B, J, I) bool -> the first row with anything marked, or 0, as its index (B,), and itself (B, I)."""
    first = marked.any(dim=2).byte().argmax(dim=1)
    return first, marked[torch.arange(len(marked), device=marked.device), first]


def _between_ends(marked: Tensor) -> Tensor:
    """(B, n) bool -> from the first to the last that is marked."""
    return (marked.cumsum(dim=1) > 0) & (marked.flip(1).cumsum(dim=1).flip(1) > 0)
