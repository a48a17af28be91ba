"""Masked reconstruction with a U-Net: blocks of the picture are hidden at the input, and the network restores them.

nnssl's MAE (Wald et al., Revisiting MAE pre-training for 3D medical image segmentation, CVPR 2025, arXiv 2410.23132):
for segmentation, where the decoder is worth pretraining as well as the encoder.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field, PositiveInt
from torch import Tensor

from medssl.augment.mask import BlockMask
from medssl.augment.transform import normal_field
from medssl.config import Config as StrictConfig
from medssl.models import Encoder
from medssl.objectives.fitting import draw_some, per_axis
from medssl.objectives.painting import Painting, mean_over, painted_well
from medssl.types import Views, ViewSpec


class MaskedReconstruction(Painting):
    """Mean squared error of the hidden voxels. Intensities should be z-scored: the 0 in the holes is then the mean."""

    per_sample = True

    class Config(StrictConfig):
        name: Literal["masked_reconstruction"] = "masked_reconstruction"
        ratio: float = Field(0.75, gt=0, lt=1)
        """Share of blocks hidden."""
        block: PositiveInt | tuple[PositiveInt, ...] = 16
        """Voxels of a block, along every spatial axis or along each; each axis of the crop must be a multiple."""
        fill: Literal["zero", "noise"] = "zero"
        """What the hidden voxels hold at the input; noise is standard normal."""

    def __init__(self, encoder: Encoder, config: MaskedReconstruction.Config) -> None:
        super().__init__(encoder)
        self.config = config
        self.mask = BlockMask(config.ratio, per_axis(config.block, encoder, "objective.block"))
        self.view_spec = ViewSpec(draw=self._draw)

    def forward(self, views: Views) -> tuple[Tensor, dict[str, Tensor]]:
        """One view (B, C, *S)."""
        image, hidden = views.images[0], self._hidden_voxels(views)
        painted = self._restore(views, hidden)
        return mean_over((painted - image).square(), hidden), painted_well(painted, image, hidden)

    @torch.no_grad()
    def reconstruct(self, views: Views) -> tuple[Tensor, Tensor]:
        """The image with its hidden voxels NaN, and with them as predicted, each (B, C, *S) float32."""
        image, hidden = views.images[0].float(), self._hidden_voxels(views)
        painted = torch.where(hidden, self._restore(views, hidden), image)
        return image.masked_fill(hidden, float("nan")), painted

    def _draw(self, rng: np.random.Generator, shape: tuple[int, ...]) -> dict[str, Any]:
        return draw_some(self.mask, rng, shape, "objective.block") | {"seed": rng.integers(2**63)}

    def _restore(self, views: Views, hidden: Tensor) -> Tensor:
        image, fill = views.images[0], 0.0
        if self.config.fill == "noise":
            (fill,) = normal_field(image, views.drawn["seed"].cpu())
        return self.paint(torch.where(hidden, fill, image))

    def _hidden_voxels(self, views: Views) -> Tensor:
        """(B, 1, *S) bool."""
        return self.mask.voxels(views.drawn["hidden"], tuple(views.images[0].shape[2:]))
