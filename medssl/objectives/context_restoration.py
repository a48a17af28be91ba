"""Context restoration: pairs of patches change places within the picture, and the network puts everything back.

Chen et al., Self-supervised learning for medical image analysis using image context restoration, Medical Image Analysis
58, 2019: L2 loss over the whole picture. The patches lie as Dominic et al. found best (Improving data-efficiency and
robustness of medical imaging segmentation using inpainting-based self-supervised learning, Bioengineering 10, 2023):
by Poisson-disc sampling, none over another. Unlike a hole, a swap leaves the distribution of intensities alone.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import torch
from pydantic import Field, PositiveInt
from torch import Tensor

from medssl.config import Config as StrictConfig
from medssl.errors import ConfigError
from medssl.models import Encoder
from medssl.objectives.fitting import per_axis
from medssl.objectives.painting import Painting, painted_well
from medssl.types import Views, ViewSpec

TRIES = 30
"""Places tried for each patch that is wanted, as in Bridson's Poisson-disc sampling (SIGGRAPH 2007)."""


class ContextRestoration(Painting):
    """Mean squared error of all voxels. The figures tell of the moved ones alone: the others need only be copied."""

    per_sample = True

    class Config(StrictConfig):
        name: Literal["context_restoration"] = "context_restoration"
        patch: PositiveInt | tuple[PositiveInt, ...] = 8
        """Voxels of a patch, along every spatial axis or along each."""
        share: float = Field(0.25, gt=0, le=0.5)
        """Share of the picture that moves, as far as so many patches fit without overlap. The default is ours."""

    def __init__(self, encoder: Encoder, config: ContextRestoration.Config) -> None:
        super().__init__(encoder)
        self.config = config
        self.patch = per_axis(config.patch, encoder, "objective.patch")
        self.view_spec = ViewSpec(draw=self._draw)

    def forward(self, views: Views) -> tuple[Tensor, dict[str, Tensor]]:
        """One view (B, C, *S)."""
        image = views.images[0]
        swapped, moved = self._swap(views)
        painted = self.paint(swapped)
        return (painted - image).square().mean(), painted_well(painted, image, moved)

    @torch.no_grad()
    def reconstruct(self, views: Views) -> tuple[Tensor, Tensor]:
        """The image with its patches swapped, and what the network makes of that, each (B, C, *S) float32."""
        swapped = self._swap(views)[0].float()
        return swapped, self.paint(swapped)

    def _draw(self, rng: np.random.Generator, shape: tuple[int, ...]) -> dict[str, np.ndarray]:
        """start (swaps, 2, axes): the first voxels of both patches of each pair.

        Where fewer pairs fit, the first is repeated, which swaps nothing twice; where not even one does, its patch is
        swapped with itself.
        """
        swaps = max(1, round(self.config.share * math.prod(shape[1:]) / (2 * math.prod(self.patch))))
        found = poisson_disc(rng, shape[1:], self.patch, 2 * swaps)
        order = np.arange(2 * swaps)
        order = np.where(order < len(found) // 2 * 2, order, np.minimum(order % 2, len(found) - 1))
        return {"start": found[order].reshape(swaps, 2, -1)}

    def _swap(self, views: Views) -> tuple[Tensor, Tensor]:
        """The first view with its patches swapped (B, C, *S), and which voxels moved (B, 1, *S) bool."""
        image = views.images[0]
        size, device = tuple(image.shape[2:]), image.device
        strides = torch.tensor([math.prod(size[axis + 1 :]) for axis in range(len(size))], device=device)
        sides = [torch.arange(side, device=device) for side in self.patch]
        within = (torch.stack(torch.meshgrid(*sides, indexing="ij"), -1) * strides).sum(-1).flatten()  # (voxels)
        first = (views.drawn["start"] * strides).sum(-1)  # (B, swaps, 2)
        place = (first[..., None] + within).flatten(1)
        origin = (first.flip(2)[..., None] + within).flatten(1)
        own = torch.arange(math.prod(size), device=device).expand(len(image), -1)
        index = own.scatter(1, place, origin)
        swapped = image.flatten(2).gather(2, index[:, None].expand(-1, image.shape[1], -1)).reshape(image.shape)
        return swapped, (index != own).reshape(len(image), 1, *size)


def poisson_disc(rng: np.random.Generator, size: tuple[int, ...], patch: tuple[int, ...], wanted: int) -> np.ndarray:
    """The first voxels (n, axes) of up to `wanted` patches in a picture of `size`, at least one and none over another.

    Poisson-disc sampling by dart throwing (Cook, ACM Transactions on Graphics 5, 1986), the disc being the patch: a
    dart stays where it is a patch's side away, along some axis, from all that stayed before.
    """
    free = [length - side + 1 for length, side in zip(size, patch, strict=True)]
    if min(free) < 1 or all(length < 2 * side for length, side in zip(size, patch, strict=True)):
        raise ConfigError(f"No two patches of {tuple(patch)} voxels lie side by side in views of {tuple(size)}",
                          expected="patches within the view, and at most half as long along some axis",
                          remedy=f"set objective.patch={[max(1, length // 2) for length in size]} or smaller")
    darts = rng.integers(free, size=(TRIES * wanted, len(free)))
    taken, kept = np.zeros(free, dtype=bool), []
    for dart in map(tuple, darts.tolist()):
        if not taken[dart]:
            kept.append(dart)
            taken[tuple(slice(max(0, at - side + 1), at + side) for at, side in zip(dart, patch, strict=True))] = True
            if len(kept) == wanted:
                break
    return np.array(kept)
