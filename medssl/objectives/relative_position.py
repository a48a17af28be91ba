"""Relative position: which of a tile's neighbours is this other one? To tell, one must know which parts lie where.

Doersch et al., Unsupervised Visual Representation Learning by Context Prediction, ICCV 2015 (arXiv 1505.05192): tiles
of 96 pixels, 48 apart and each moved by up to 7, so that no line and no texture goes on from one to the other. In
volumes Taleb et al., 3D Self-Supervised Methods for Medical Imaging, NeurIPS 2020 (arXiv 2006.03829): one of 26
neighbours. Of the first paper are left out: what it does against chromatic aberration (projecting or dropping colours),
which is for photographs; that it subtracts each tile's mean, and makes some tiles coarse; that the first tile may lie
anywhere, where ours lies in the middle; and one of the perceptron's two hidden layers. The recipe should neither rotate
nor flip the views.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from medssl.config import Config as StrictConfig
from medssl.models import Encoder
from medssl.objectives.classification import judged
from medssl.objectives.objective import Objective
from medssl.objectives.tiles import Tiles, cut
from medssl.types import Views, ViewSpec


class RelativePosition(Objective):
    """Cross-entropy of a perceptron on the features of the centre tile and of its neighbour, one encoder for both."""

    per_sample = True

    class Config(StrictConfig):
        name: Literal["relative_position"] = "relative_position"
        tile: float = Field(96 / 110, gt=0, lt=1)
        """Side of a tile, as a share of the cell that it is moved in."""
        gap: float = Field(34 / 110, ge=0)
        """Between cells, as a share of a cell's side: the least that lies between two tiles."""
        width: PositiveInt = 512
        """Width of the perceptron's hidden layer; the paper's are 4096, for photographs by the million."""

    def __init__(self, encoder: Encoder, config: RelativePosition.Config) -> None:
        super().__init__()
        self.encoder, self.config = encoder, config
        self.tiles = Tiles.of(encoder, (3,) * encoder.dims, config.tile, config.gap)
        self.centre = 3**encoder.dims // 2
        self.view_spec = ViewSpec(draw=self._draw)
        self.classifier = nn.Sequential(
            nn.Linear(2 * encoder.width, config.width), nn.ReLU(inplace=True),
            nn.Linear(config.width, 3**encoder.dims - 1),
        )  # fmt: skip

    def forward(self, views: Views) -> tuple[Tensor, dict[str, Tensor]]:
        """One view (B, C, *S)."""
        image = views.images[0]
        tiles = cut(image, views.drawn["firsts"], self.tiles.size(tuple(image.shape[2:])))
        pair = self.encoder(tiles.flatten(0, 1)).pooled.unflatten(0, (-1, 2))  # (B, 2, D)
        return judged(self.classifier(pair.flatten(1)), views.drawn["neighbour"].long())

    def _draw(self, rng: np.random.Generator, shape: tuple[int, ...]) -> dict[str, int | np.ndarray]:
        """neighbour: a cell, counted in row-major order without the centre. firsts (2, axes): the centre's, its own."""
        neighbour = int(rng.integers(3 ** len(shape[1:]) - 1))
        cell = neighbour + (neighbour >= self.centre)
        return {"neighbour": neighbour, "firsts": self.tiles.draw(rng, shape[1:])[[self.centre, cell]]}
