"""Inpainting: regions of the picture are removed, and the network paints them from their surroundings.

Pathak et al., Context Encoders: Feature Learning by Inpainting, CVPR 2016 (arXiv 1604.07379), with its L2 loss alone.
The adversarial loss that the paper adds at a weight of 0.001 against 0.999 makes pictures sharper; it is left out here,
as are its random regions, holes with the outlines of other pictures' objects. The paper's decoder has its encoder's
last features alone, through a channel-wise fully connected layer; ours is a U-Net's, whose skips also show it what was
not removed.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from pydantic import Field, NonNegativeInt, PositiveInt, model_validator
from torch import Tensor

from medssl.config import Config as StrictConfig
from medssl.errors import ConfigError
from medssl.models import Encoder
from medssl.objectives.painting import Painting, mean_over, painted_well
from medssl.types import Views, ViewSpec

OVERLAP_WEIGHT = 10
"""How much more a voxel of the overlap counts than a removed one (section 3.2)."""


class Inpainting(Painting):
    """Mean squared error of the removed boxes. Intensities should be z-scored: the 0 in the holes is then the mean."""

    class Config(StrictConfig):
        """The default is the paper's random blocks: at most a quarter of an image, since they may overlap."""

        name: Literal["inpainting"] = "inpainting"
        place: Literal["random", "central"] = "random"
        """random: every sample has its own places. central: one region in the middle; the paper's has side 0.5."""
        regions: PositiveInt = 4
        """How many boxes are removed."""
        side: float = Field(0.25, gt=0, lt=1)
        """Length of a box as a share of the view's, along every axis."""
        overlap: NonNegativeInt = 0
        """Voxels around the regions that are shown and yet to be painted, so that the seams fit. The paper has 7 for a
        hole of 64 in 128 pixels."""

        @model_validator(mode="after")
        def _one_centre(self) -> Inpainting.Config:
            if self.place == "central" and self.regions != 1:
                raise ValueError(f"{self.regions} central regions would lie on each other: set regions to 1")
            return self

    def __init__(self, encoder: Encoder, config: Inpainting.Config) -> None:
        super().__init__(encoder)
        self.config = config
        self.view_spec = ViewSpec(draw=self._draw)

    def forward(self, views: Views) -> tuple[Tensor, dict[str, Tensor]]:
        """One view (B, C, *S)."""
        image, hole = views.images[0], self._boxes(views)
        asked = self._boxes(views, self.config.overlap)
        painted = self.paint(image.masked_fill(hole, 0))
        weights = torch.where(hole, 1, OVERLAP_WEIGHT)
        return mean_over((painted - image).square() * weights, asked), painted_well(painted, image, hole)

    @torch.no_grad()
    def reconstruct(self, views: Views) -> tuple[Tensor, Tensor]:
        """The image with its removed voxels NaN, and with them as painted, each (B, C, *S) float32."""
        image, hole = views.images[0].float(), self._boxes(views)
        painted = torch.where(hole, self.paint(image.masked_fill(hole, 0)), image)
        return image.masked_fill(hole, float("nan")), painted

    def _draw(self, rng: np.random.Generator, shape: tuple[int, ...]) -> dict[str, np.ndarray]:
        """start (regions, axes): the first voxel of every box along each axis."""
        free = np.array(shape[1:]) - self._sides(shape[1:])
        if not free.any():
            raise ConfigError(f"objective.side {self.config.side:g} removes the whole of views of {shape[1:]}",
                              expected="something left to paint from", remedy="set objective.side=0.5 or less")
        if self.config.place == "central":
            return {"start": free[None] // 2}
        return {"start": rng.integers(free + 1, size=(self.config.regions, len(free)))}

    def _sides(self, size: tuple[int, ...]) -> list[int]:
        return [max(1, round(self.config.side * length)) for length in size]

    def _boxes(self, views: Views, margin: int = 0) -> Tensor:
        """Where the boxes lie, each grown by `margin` voxels to all sides, (B, 1, *S) bool."""
        image, start = views.images[0], views.drawn["start"]
        size = tuple(image.shape[2:])
        boxes = torch.ones(*start.shape[:2], *[1] * len(size), dtype=torch.bool, device=image.device)
        for axis, (length, side) in enumerate(zip(size, self._sides(size), strict=True)):
            after = torch.arange(length, device=image.device) - start[:, :, axis, None]  # (B, regions, length)
            within = (after >= -margin) & (after < side + margin)
            boxes = boxes & within.reshape(*within.shape[:2], *[length if a == axis else 1 for a in range(len(size))])
        return boxes.any(1, keepdim=True)
