"""Jigsaw: in which order were the tiles of the picture shuffled?

Noroozi and Favaro, Unsupervised Learning of Visual Representations by Solving Jigsaw Puzzles, ECCV 2016 (arXiv
1603.09246): 3×3 tiles of 64 pixels within cells of 75, each normalised by its own mean and deviation, each seen by the
same encoder without the others (a context-free network); only a set of orders far from each other is asked for. In
volumes Taleb et al., 3D Self-Supervised Methods for Medical Imaging, NeurIPS 2020 (arXiv 2006.03829), with 3×3×3 tiles;
2×2×2 as in Zhuang et al., Self-supervised Feature Learning for 3D Medical Images by Playing a Rubik's Cube, MICCAI 2019
(arXiv 1910.02241), whose rotations of tiles are left out. Of the first paper are left out the tricks with colours (grey
pictures, shifted channels), which are for photographs. The recipe should neither rotate nor flip the views.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Annotated, Literal

import numpy as np
import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from medssl.config import Config as StrictConfig
from medssl.errors import ConfigError
from medssl.models import Encoder
from medssl.objectives.classification import judged
from medssl.objectives.fitting import per_axis
from medssl.objectives.objective import Objective
from medssl.objectives.tiles import Tiles, cut
from medssl.rng import stream
from medssl.types import Views, ViewSpec

ENUMERABLE = 9
"""Tiles of which all orders are candidates, 9! = 362,880 at most; of more tiles, SAMPLED at random."""
SAMPLED = 20_000

Cells = Annotated[int, Field(ge=2)]


class Jigsaw(Objective):
    """Cross-entropy of a perceptron on the features of all tiles, in the order in which they are shown."""

    per_sample = True

    class Config(StrictConfig):
        name: Literal["jigsaw"] = "jigsaw"
        grid: Cells | tuple[Cells, ...] = 3
        """Cells along every spatial axis, or along each."""
        permutations: int = Field(100, ge=2, le=1000)
        """Orders that are told apart; the paper tries 64 to 1000, and finds more to be better. To choose many more far
        from each other would take minutes."""
        tile: float = Field(64 / 75, gt=0, lt=1)
        """Side of a tile, as a share of its cell's."""
        width: PositiveInt = 512
        """Width of a tile's projection and of the perceptron's hidden layer alike; the paper's are 512 and 4096."""

    def __init__(self, encoder: Encoder, config: Jigsaw.Config) -> None:
        super().__init__()
        grid = per_axis(config.grid, encoder, "objective.grid")
        self.encoder, self.config = encoder, config
        self.tiles = Tiles.of(encoder, grid, config.tile)
        count = math.prod(grid)
        self.register_buffer("orders", torch.from_numpy(distant_orders(count, config.permutations)), persistent=False)
        self.view_spec = ViewSpec(draw=self._draw)
        self.projector = nn.Sequential(nn.Linear(encoder.width, config.width), nn.ReLU(inplace=True))
        self.classifier = nn.Sequential(
            nn.Linear(count * config.width, config.width), nn.ReLU(inplace=True),
            nn.Linear(config.width, config.permutations),
        )  # fmt: skip

    def forward(self, views: Views) -> tuple[Tensor, dict[str, Tensor]]:
        """One view (B, C, *S)."""
        shown = self.puzzle(views)
        features = self.projector(self.encoder(shown.flatten(0, 1)).pooled).unflatten(0, shown.shape[:2])  # (B, N, D)
        return judged(self.classifier(features.flatten(1)), views.drawn["order"].long())

    def puzzle(self, views: Views) -> Tensor:
        """What the encoder is shown: tiles (B, N, C, *tile); at place n lies the tile of cell orders[order][n]."""
        image, order = views.images[0], self.orders[views.drawn["order"].long()]
        firsts = views.drawn["firsts"].take_along_dim(order[:, :, None], 1)
        return normalised(cut(image, firsts, self.tiles.size(tuple(image.shape[2:]))))

    def _draw(self, rng: np.random.Generator, shape: tuple[int, ...]) -> dict[str, int | np.ndarray]:
        """order: a row of `orders`. firsts (N, axes): of each cell's tile, before they are shuffled."""
        return {"order": int(rng.integers(len(self.orders))), "firsts": self.tiles.draw(rng, shape[1:])}


def normalised(tiles: Tensor) -> Tensor:
    """tiles (B, N, C, *tile), each of mean 0 and deviation 1 (section 3.3): its brightness must not tell its place."""
    axes = tuple(range(2, tiles.ndim))
    variance, mean = torch.var_mean(tiles, dim=axes, correction=0, keepdim=True)
    return (tiles - mean) / (variance + 1e-6).sqrt()


@lru_cache
def distant_orders(tiles: int, count: int) -> np.ndarray:
    """count orders (count, tiles) of as many tiles, chosen greedily for their Hamming distance (algorithm 1).

    The first at random, then always the one whose mean distance to those already chosen is largest, and of equal ones
    that whose least distance is. The same every time. ConfigError where there are not that many.
    """
    if tiles <= ENUMERABLE and count > math.factorial(tiles):
        raise ConfigError(f"objective.permutations is {count}, of {tiles} tiles",
                          expected=f"at most {math.factorial(tiles)}, as many as there are",
                          remedy="ask for fewer permutations, or set objective.grid=3")
    rng = stream("jigsaw", tiles)
    candidates = every_order(tiles) if tiles <= ENUMERABLE else rng.permuted(
        np.tile(np.arange(tiles, dtype=np.uint8)[:, None], SAMPLED), axis=0)
    agreed = np.zeros(candidates.shape[1], np.float32)  # places shared with the chosen, over all of them
    closest = np.zeros(candidates.shape[1], np.uint8)  # and with the one that shares most
    chosen = [int(rng.integers(candidates.shape[1]))]
    while len(chosen) < count:
        shared = (candidates == candidates[:, chosen[-1:]]).sum(0, dtype=np.uint8)
        agreed += shared
        agreed[chosen[-1]] = np.inf
        np.maximum(closest, shared, out=closest)
        chosen.append(int((agreed + closest / np.float32(tiles + 1)).argmin()))
    return candidates[:, chosen].T.astype(np.int64)


def every_order(tiles: int) -> np.ndarray:
    """(tiles, tiles!) uint8, each column an order."""
    orders = np.zeros((0, 1), np.uint8)
    for tile in range(tiles):
        orders = np.concatenate([np.insert(orders, place, tile, axis=0) for place in range(tile + 1)], axis=1)
    return orders
