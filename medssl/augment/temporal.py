"""Time, drawn as one line through each clip: frame rate, crop and phase in one resampling along T.

Frame n of a view is read at t = start + speed n, in frames of the clip as the loader read it, linearly between the two
frames beside it. Time runs forwards and never leaves the clip: a heart played backwards, or a clip rolled over its
seam, is no heart. Labels come from the nearest frame. What a case as a whole is worth, such as an ejection fraction,
stays.
"""

from __future__ import annotations

import math
from typing import Annotated

import numpy as np
import torch
from pydantic import Field, PositiveInt
from torch import Tensor

from medssl.augment.spatial import sample_slices
from medssl.augment.transform import Params, Stacked
from medssl.config import Config
from medssl.errors import ConfigError


class TemporalConfig(Config):
    """The default leaves clips, and all that has no time, as they are."""

    frames: PositiveInt | None = None
    """A view's frames, at most the box's: a crop in time, the middle unless `shift` says otherwise. Null keeps all."""
    speed: Annotated[float, Field(ge=0)] = 0.0
    """Frame-rate jitter: a view runs 1 / (1 + speed) to 1 + speed times as fast, uniform in the logarithm, and never
    faster than the box has frames for: where `frames` keeps all, only slower."""
    shift: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Phase shift: how far a view's start is drawn from the middle one, as a share of what the box leaves room for."""


class Temporal:
    """Draws and applies time, as `Spatial` does geometry."""

    def __init__(self, config: TemporalConfig) -> None:
        self.config = config
        self.acts = config != TemporalConfig()

    def output_size(self, size: tuple[int, ...]) -> tuple[int, ...]:
        """The view's (T', J, I) for a clip's (T, J, I); ConfigError where there is no time, or too little."""
        if not self.acts:
            return size
        if len(size) != 3:
            raise ConfigError(f"augment.temporal is given, but what is read has {len(size)} axes",
                              expected="clips (T, J, I)", remedy="leave augment.temporal out")
        frames = self.config.frames or size[0]
        if frames > size[0]:
            raise ConfigError(f"augment.temporal.frames is {frames}, but boxes have {size[0]} frames",
                              expected=f"at most {size[0]}", remedy=f"set augment.temporal.frames to {size[0]} or "
                              "less, or read more of each clip: the first of data.box.size")
        if self.config.shift and not self.config.speed and frames == size[0]:
            raise ConfigError(f"augment.temporal.shift is {self.config.shift:g}, but views of {frames} frames fill the "
                              f"boxes of {size[0]}", expected="boxes with frames to spare",
                              remedy=f"set augment.temporal.frames below {size[0]}, or leave shift out")
        return (frames, *size[1:])

    def draw(self, rng: np.random.Generator, shape: tuple[int, ...]) -> Params | None:
        """One view's line through a clip of shape (C, T, J, I); None where it is the clip itself, frame for frame."""
        frames, steps = shape[1], self.output_size(shape[1:])[0] - 1
        widest = math.log1p(self.config.speed)
        fastest = min(widest, math.log((frames - 1) / steps)) if steps else widest
        speed = math.exp(rng.uniform(-widest, fastest))
        share = (1 + self.config.shift * rng.uniform(-1, 1)) / 2
        if not self.config.speed:  # whole frames, each as likely, for nothing is gained by mixing two
            start = float(math.floor((frames - steps) * share))
        else:
            start = (frames - 1 - speed * steps) * share
        return None if (start, speed, steps) == (0, 1, frames - 1) else {"start": start, "speed": speed}

    def apply(self, batch: Tensor, params: Stacked) -> Tensor:
        """(B, C, T, J, I) -> (B, C, T', J, I)."""
        return sample_slices(batch, self._times(params, tuple(batch.shape[2:])) + 0.5)

    def apply_labels(self, labels: Tensor, params: Stacked) -> Tensor:
        """(B, T, J, I) integer -> (B, T', J, I)."""
        nearest = self._times(params, tuple(labels.shape[1:])).round().long().clamp(0, labels.shape[1] - 1)
        return labels[torch.arange(len(labels), device=labels.device)[:, None], nearest.to(labels.device)]

    def _times(self, params: Stacked, size: tuple[int, ...]) -> Tensor:
        """When the view's frames are read, (B, T') float64 on the host; a frame's own time is its index."""
        steps = torch.arange(self.output_size(size)[0], dtype=torch.float64)
        return params["start"][:, None] + params["speed"][:, None] * steps
