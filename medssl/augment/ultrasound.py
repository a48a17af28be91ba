"""What an ultrasound machine does to grey values: speckle, and gain over depth. Both assume values in [0, 1]."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from medssl.augment.transform import (
    Params,
    Stacked,
    Strength,
    Transform,
    TransformConfig,
    column,
    normal_field,
)


class Speckle(Transform):
    """x -> x (1 + s n), n white Gaussian noise, new in each frame. Assumes [0, 1] and clips to it."""

    class Config(TransformConfig):
        name: Literal["speckle"] = "speckle"
        std: Strength = Field(examples=[0.3])
        """Largest s: the noise's standard deviation as a share of the local brightness."""

    config: Config

    def draw(self, rng: np.random.Generator, shape: tuple[int, ...]) -> Params:
        return {"std": rng.uniform(0, self.config.std), "seed": rng.integers(2**63)}

    def apply(self, batch: Tensor, params: Stacked) -> Tensor:
        (noise,) = normal_field(batch, params["seed"])
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
