"""What differs between two radiographs of one chest: exposure, and how the image was processed for display.

All assume values in [0, 1], bright where the body is dense. Small rotations are `spatial.rotate`. There is no flip here
and none by default: mirrored left to right, a heart lies on the wrong side, which is a disease (dextrocardia) or a
mislabelled film, and left and right findings change places.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from medssl.augment.blend import Blend
from medssl.augment.intensity import through_window
from medssl.augment.transform import Params, Stacked, Strength, Transform, TransformConfig, column

BINS = 256
"""Grey levels of the histogram that is equalised."""


class Exposure(Transform):
    """x -> x + b: more or less dose at the same kilovoltage, in an image that is a logarithm of the signal. Clips.

    Dose multiplies the detector's signal, I = I0 exp(-attenuation), everywhere by the same factor. Film and the images
    that a system prepares for display follow about the logarithm of the signal (PS3.3 C.8.11.3.1.2: LOG), where a
    factor is an offset. Where values are proportional to the signal (LIN), the factor itself is `jitter`'s brightness.
    """

    class Config(TransformConfig):
        name: Literal["exposure"] = "exposure"
        offset: Strength = Field(examples=[0.15])
        """The offset b is drawn from -offset to offset, as a share of the displayed range. It is log(factor) /
        log(largest / smallest signal shown): 0.15 doubles or halves the dose of an image that shows two decades, since
        log 2 / log 100 = 0.15."""

    config: Config

    def draw(self, rng: np.random.Generator, shape: tuple[int, ...]) -> Params:
        return {"offset": rng.uniform(-self.config.offset, self.config.offset)}

    def apply(self, batch: Tensor, params: Stacked) -> Tensor:
        return (batch + column(params["offset"], batch)).clamp_(0, 1)


class WindowJitter(Transform):
    """Shows the image through another window: (x - centre) / width + 1/2, clipped (PS3.3 C.11.2.1.3.2, LINEAR_EXACT).

    The image as it is has centre 1/2 and width 1.
    """

    class Config(TransformConfig):
        name: Literal["window_jitter"] = "window_jitter"
        centre: Strength = Field(examples=[0.1])
        """The centre is moved by -centre to centre, as a share of the displayed range."""
        width: Strength = Field(examples=[0.3])
        """The width is drawn from 1 / (1 + width) to 1 + width, uniform in its logarithm."""

    config: Config

    def draw(self, rng: np.random.Generator, shape: tuple[int, ...]) -> Params:
        return {"centre": rng.uniform(-self.config.centre, self.config.centre),
                "width": math.exp(rng.uniform(-1, 1) * math.log1p(self.config.width))}

    def apply(self, batch: Tensor, params: Stacked) -> Tensor:
        return through_window(batch, params["centre"], params["width"])


class Equalisation(Blend):
    """Blends towards the image whose histogram is flat: every value becomes the share of voxels below it.

    Each channel by its own histogram (Gonzalez and Woods, Digital Image Processing, section 3.3), taken as even within
    a grey level, so that black stays black and the order of values stays. Assumes [0, 1]; what lies outside counts as
    the end.
    """

    class Config(Blend.Config):
        name: Literal["equalisation"] = "equalisation"

    config: Config

    def changed(self, batch: Tensor) -> Tensor:
        level = (batch.float() * BINS).clamp_(0, BINS).flatten(2)  # (B, C, N)
        below = level.long().clamp_(max=BINS - 1)
        counts = below.new_zeros(*level.shape[:2], BINS).scatter_add_(2, below, below.new_ones(1).expand_as(below))
        share = counts / level.shape[2]  # of the voxels, in each bin
        before = (counts.cumsum(dim=2) - counts) / level.shape[2]
        flat = torch.addcmul(before.gather(2, below), level - below, share.gather(2, below))
        return flat.reshape(batch.shape).to(batch.dtype)
