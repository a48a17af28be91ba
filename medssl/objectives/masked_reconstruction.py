"""Masked reconstruction with a U-Net: blocks of the picture are hidden at the input, and the network restores them.

nnssl's MAE (Wald et al., Revisiting MAE pre-training for 3D medical image segmentation, CVPR 2025, arXiv 2410.23132):
for segmentation, where the decoder is worth pretraining as well as the encoder.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from medssl.augment.mask import block_grid, blocks_to_voxels
from medssl.config import Config as StrictConfig
from medssl.errors import ConfigError
from medssl.models import DenseHead, Encoder, UNetDecoder
from medssl.objectives.objective import Objective
from medssl.types import MaskSpec, Views, ViewSpec


class MaskedReconstruction(Objective):
    """Mean squared error of the hidden voxels. Intensities should be z-scored: the 0 in the holes is then the mean."""

    class Config(StrictConfig):
        name: Literal["masked_reconstruction"] = "masked_reconstruction"
        ratio: float = Field(0.75, gt=0, lt=1)
        """Share of blocks hidden."""
        block: tuple[int, ...] = (16, 16, 16)
        """Voxels of a block along each spatial axis; each axis of the crop must be a multiple."""
        fill: Literal["zero", "noise"] = "zero"
        """What the hidden voxels hold at the input; noise is standard normal."""

    def __init__(self, encoder: Encoder, config: MaskedReconstruction.Config) -> None:
        super().__init__()
        if len(config.block) != encoder.dims:
            raise ConfigError(
                f"objective.block {config.block} has {len(config.block)} axes",
                expected=f"{encoder.dims}, as many as the encoder's pictures have",
                remedy="give one size for each spatial axis",
            )
        self.encoder, self.config = encoder, config
        self.view_spec = ViewSpec(mask=MaskSpec(config.ratio, config.block))
        self.decoder = UNetDecoder.above(encoder)
        self.head = DenseHead(self.decoder.width, encoder.channels, encoder.dims)

    def forward(self, views: Views) -> tuple[Tensor, dict[str, Tensor]]:
        """One view (B, C, *S); hidden (B, N)."""
        image, hidden = views.images[0], self._hidden_voxels(views)
        squared = (self._restore(image, hidden) - image).square() * hidden
        loss = squared.sum() / (hidden.sum() * image.shape[1])
        error = loss.detach()
        explained = 1 - error / _variance(image, hidden).clamp_min(1e-12)
        return loss, {"masked_error": error, "explained_variance": explained}

    def parts(self) -> dict[str, nn.Module]:
        return {"encoder": self.encoder, "decoder": self.decoder}

    @torch.no_grad()
    def reconstruct(self, views: Views) -> Tensor:
        """(B, C, *S): visible voxels as they are, hidden ones as predicted."""
        image, hidden = views.images[0], self._hidden_voxels(views)
        return torch.where(hidden, self._restore(image, hidden), image)

    def _restore(self, image: Tensor, hidden: Tensor) -> Tensor:
        fill = torch.zeros_like(image) if self.config.fill == "zero" else torch.randn_like(image)
        maps = self.encoder(torch.where(hidden, fill, image)).maps
        return self.head(self.decoder(maps, image.shape[2:])).float()

    def _hidden_voxels(self, views: Views) -> Tensor:
        """(B, 1, *S) bool."""
        grid = block_grid(tuple(views.images[0].shape[2:]), self.config.block)
        return blocks_to_voxels(views.hidden, grid, self.config.block)


def _variance(image: Tensor, hidden: Tensor) -> Tensor:
    """Variance () of the hidden voxels of image (B, C, *S): the error of one who always says their mean."""
    count = hidden.sum() * image.shape[1]
    mean = (image * hidden).sum() / count
    return ((image - mean).square() * hidden).sum() / count
