"""Transforms of several channels together: colour pictures and, for colour drop, the contrasts of a scan.

A grey image has no colour, so a recipe that asks for these on one channel is told so (ConfigError) instead of training
without what it names; brightness and contrast, which are all that colour jitter can do to grey, are `jitter`.
"""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from medssl.augment.blend import Blend
from medssl.augment.transform import Params, Stacked, Transform, TransformConfig, column
from medssl.errors import ConfigError

LUMA = (0.299, 0.587, 0.114)
"""What red, green and blue count for brightness (ITU-R BT.601-7, section 2.5.1)."""


class ColourDrop(Blend):
    """Blends the channels towards their mean, which takes the colour out.

    SimCLR's own (Chen et al. 2020, arXiv 2002.05709, appendix A) is share 1, least 1, probability 0.2, with the weights
    of luma: 0.299, 0.587, 0.114. Any range of values; ConfigError where there is one channel only.
    """

    class Config(Blend.Config):
        name: Literal["colour_drop"] = "colour_drop"
        weights: tuple[Annotated[float, Field(gt=0)], ...] | None = None
        """What each channel counts in the mean, relative to the others; null: all alike, as for the contrasts of MR."""

    config: Config

    def draw(self, rng: np.random.Generator, shape: tuple[int, ...]) -> Params:
        if shape[0] < 2:
            raise ConfigError(f"colour_drop on images of {shape[0]} channel", expected="two channels or more",
                              remedy="leave colour_drop out, as grey images have no colour to lose; pictures in colour "
                              "keep it by data.prepare.colour=true")
        if self.config.weights and len(self.config.weights) != shape[0]:
            raise ConfigError(f"colour_drop has {len(self.config.weights)} weights, the images {shape[0]} channels",
                              expected="a weight for each channel", remedy="give as many, or null for all alike")
        return super().draw(rng, shape)

    def changed(self, batch: Tensor) -> Tensor:
        return channel_mean(batch, self.config.weights or (1.0,) * batch.shape[1])


class ColourJitter(Transform):
    """Saturation, then hue: the colour part of torchvision's ColorJitter. Pictures in RGB; assumes [0, 1].

    Saturation scales the distance to luma and clips; hue turns the circle of HSV, which keeps value and saturation.
    SimCLR's own at strength 1 (Chen et al. 2020, arXiv 2002.05709, appendix A) is hue 0.2, saturation 0.8,
    probability 0.8, with `jitter` at brightness 0.8 and contrast 0.8; there one chance decides over the four, which
    come in random order. ConfigError where there are not three channels.
    """

    class Config(TransformConfig):
        name: Literal["colour_jitter"] = "colour_jitter"
        hue: Annotated[float, Field(ge=0, le=0.5)]
        """The turn is drawn from -hue to hue, in whole circles: 0.5 gives the complementary colour."""
        saturation: Annotated[float, Field(ge=0, le=1)]
        """The factor is drawn from 1 - saturation to 1 + saturation."""

    config: Config

    def draw(self, rng: np.random.Generator, shape: tuple[int, ...]) -> Params:
        if shape[0] != 3:
            raise ConfigError(f"colour_jitter on images of {shape[0]} channel{'s' * (shape[0] > 1)}",
                              expected="red, green and blue",
                              remedy="use jitter, which changes brightness and contrast of any image; pictures in "
                              "colour keep it by data.prepare.colour=true")
        hue, saturation = self.config.hue, self.config.saturation
        return {"hue": rng.uniform(-hue, hue), "saturation": 1 + rng.uniform(-saturation, saturation)}

    def apply(self, batch: Tensor, params: Stacked) -> Tensor:
        saturated = torch.lerp(channel_mean(batch, LUMA), batch, column(params["saturation"], batch))
        return turn_hue(saturated.clamp_(0, 1), column(params["hue"], batch))


def channel_mean(batch: Tensor, weights: tuple[float, ...]) -> Tensor:
    """(B, C, *S) -> the weighted mean of its channels, (B, 1, *S)."""
    share = torch.tensor(weights, dtype=batch.dtype, device=batch.device) / sum(weights)
    return torch.einsum("bc...,c->b...", batch, share).unsqueeze(1)


def turn_hue(rgb: Tensor, turn: Tensor) -> Tensor:
    """(B, 3, *S) in [0, 1], turned about the hexagon of HSV by `turn` (B, 1, ...) circles (Smith, SIGGRAPH 1978)."""
    value, channel = rgb.max(dim=1, keepdim=True)
    chroma = value - rgb.amin(dim=1, keepdim=True)
    between = rgb.roll(-1, dims=1) - rgb.roll(-2, dims=1)  # of the other two: how far from the largest one's own hue
    hue = 2 * channel + between.gather(1, channel) / chroma.clamp(min=torch.finfo(rgb.dtype).tiny)  # in sixths
    phase = torch.tensor([5, 3, 1], device=rgb.device).reshape(3, *[1] * (rgb.ndim - 2))
    place = (phase + hue + 6 * turn).remainder(6)
    return value - chroma * torch.minimum(place, 4 - place).clamp(0, 1)
