"""Tiles of a picture, one from each cell of a grid, so that no edge of one goes on in the next.

A cell leaves its tile room to lie anywhere in it: jitter, without which lines that go on from tile to tile would tell
how they belong together (Doersch et al. 2015, section 3.1; Noroozi and Favaro 2016, section 3.3).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from medssl.errors import ConfigError
from medssl.models import Encoder, ViT
from medssl.objectives.fitting import resized


@dataclass(frozen=True)
class Tiles:
    """Where tiles lie in pictures of any size. Cells and tiles are in row-major order of the grid.

    grid: cells along each spatial axis.
    tile: side of a tile, as a share of its cell's.
    gap: what is left out between neighbouring cells, as a share of a cell's side.
    multiple: what a tile's side must be a multiple of, along each axis: the patch of a ViT.
    least: what it must be at least, along each axis: the smallest picture that the encoder takes.
    """

    grid: tuple[int, ...]
    tile: float
    gap: float
    multiple: tuple[int, ...]
    least: tuple[int, ...]

    @classmethod
    def of(cls, encoder: Encoder, grid: tuple[int, ...], tile: float, gap: float = 0.0) -> Tiles:
        """Tiles that the encoder takes."""
        multiple = encoder.patch if isinstance(encoder, ViT) else (1,) * encoder.dims
        return cls(grid, tile, gap, multiple, encoder.smallest)

    def size(self, size: tuple[int, ...]) -> tuple[int, ...]:
        """Voxels of a tile of a picture of `size`: the multiple nearest to its share that leaves room for jitter.

        ConfigError where not even the smallest that the encoder takes does.
        """
        cells = self._cells(size)
        if any(cell <= least for cell, least in zip(cells, self.least, strict=True)):
            enough = tuple(m * math.ceil((n + (n - 1) * self.gap) * (least + 1) / m)
                           for n, least, m in zip(self.grid, self.least, self.multiple, strict=True))
            raise ConfigError(f"Views of {size} voxels, cut into {self.grid} cells of {cells}",
                              expected=f"cells larger than {self.least} voxels, the least that the encoder takes",
                              remedy=f"{resized(enough)} or more, or choose an encoder that takes smaller pictures")
        sides = []
        for side, cell, count, multiple, least in zip(size, cells, self.grid, self.multiple, self.least, strict=True):
            wanted = multiple * round(self.tile * self._exact(side, count) / multiple)
            sides.append(min(max(wanted, least), (cell - 1) // multiple * multiple))
        return tuple(sides)

    def draw(self, rng: np.random.Generator, size: tuple[int, ...]) -> np.ndarray:
        """First voxels (N, axes) of a tile of each cell of a picture of `size`, each anywhere within its cell."""
        cells, tile = self._cells(size), self.size(size)
        firsts = [np.arange(n) * (s - c) // (n - 1) for s, c, n in zip(size, cells, self.grid, strict=True)]
        corners = np.stack(np.meshgrid(*firsts, indexing="ij"), -1).reshape(-1, len(size))
        return corners + rng.integers(0, np.subtract(cells, tile) + 1, size=corners.shape)

    def _cells(self, size: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(min(round(self._exact(s, n)), s // n) for s, n in zip(size, self.grid, strict=True))

    def _exact(self, side: int, count: int) -> float:
        """A cell's side before it is rounded: `count` cells and the gaps between them fill `side`."""
        return side / (count + (count - 1) * self.gap)


def cut(image: Tensor, firsts: Tensor, size: tuple[int, ...]) -> Tensor:
    """image (B, C, *S), first voxels (B, n, axes) -> tiles (B, n, C, *size) float32, cut out in one gather."""
    axes = len(size)
    index = [torch.arange(len(image), device=image.device).reshape(-1, 1, *[1] * axes)]
    for axis, side in enumerate(size):
        along = firsts[:, :, axis, None] + torch.arange(side, device=image.device)  # (B, n, side)
        index.append(along.reshape(*along.shape[:2], *[side if a == axis else 1 for a in range(axes)]))
    return image.float().movedim(1, -1)[tuple(index)].movedim(-1, 2)
