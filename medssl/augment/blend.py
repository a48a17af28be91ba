"""Transforms that mix an image with a changed copy of itself."""

from __future__ import annotations

from abc import abstractmethod
from typing import Annotated

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor

from medssl.augment.transform import Params, Stacked, Transform, TransformConfig, column

Share = Annotated[float, Field(ge=0, le=1)]


class Blend(Transform):
    """x -> x + s (f(x) - x), f being `changed`. A blend of 0 is the image, a blend of 1 the changed one."""

    class Config(TransformConfig):
        share: Share
        """The share s of the changed image is drawn from `least` to this."""
        least: Share = 0.0
        """The smallest share s. With both at 1 the image is replaced or left, as `probability` decides; so SimCLR does
        it."""

        @model_validator(mode="after")
        def _ordered(self) -> Blend.Config:
            if self.least > self.share:
                raise ValueError(f"least {self.least} lies above share {self.share}")
            return self

    config: Config

    @abstractmethod
    def changed(self, batch: Tensor) -> Tensor:
        """(B, C, *S) -> f(x), of a shape that broadcasts to it."""

    def draw(self, rng: np.random.Generator, shape: tuple[int, ...]) -> Params:
        return {"share": rng.uniform(self.config.least, self.config.share)}

    def apply(self, batch: Tensor, params: Stacked) -> Tensor:
        return torch.lerp(batch, self.changed(batch), column(params["share"], batch))
