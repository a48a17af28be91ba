"""Which blocks of a view are hidden from the encoder (masked reconstruction)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from medssl.errors import ConfigError


@dataclass(frozen=True)
class BlockMask:
    """Hides a share of a view's blocks, the same number in every sample.

    ratio: share of blocks hidden.
    block: size of a block in voxels along each spatial axis.
    tube: for clips, whose first axis is time: hide the same places at all times (VideoMAE, arXiv 2203.12602, 3.3).
    """

    ratio: float
    block: tuple[int, ...]
    tube: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.ratio <= 1:
            raise ConfigError(f"mask ratio {self.ratio}", expected="a share between 0 and 1",
                              remedy="write 0.75 for 75 %")
        if self.tube and len(self.block) != 3:
            raise ConfigError(f"tube masking with blocks of {self.block}", expected="clips, whose first axis is time",
                              remedy="set tube to false, or give the block three sides (t, j, i)")

    def grid(self, size: tuple[int, ...]) -> tuple[int, ...]:
        """Blocks along each axis of a view of `size` voxels; ConfigError unless they tile it."""
        return block_grid(size, self.block)

    def draw(self, rng: np.random.Generator, shape: tuple[int, ...]) -> dict[str, np.ndarray]:
        """hidden (N,) bool over the blocks of a view (C, *S) in row-major order, exactly round(ratio N) of them True;
        of a tube's, round(ratio N / T) places at each of the T times."""
        times, places = self._times_and_places(shape[1:])
        hidden = np.zeros(places, dtype=bool)
        hidden[rng.permutation(places)[: round(self.ratio * places)]] = True
        return {"hidden": np.tile(hidden, times)}

    def count(self, size: tuple[int, ...]) -> int:
        """How many blocks of a view of `size` voxels `draw` hides."""
        times, places = self._times_and_places(size)
        return times * round(self.ratio * places)

    def _times_and_places(self, size: tuple[int, ...]) -> tuple[int, int]:
        grid = self.grid(size)
        times = grid[0] if self.tube else 1
        return times, math.prod(grid) // times

    def voxels(self, hidden: Tensor, size: tuple[int, ...]) -> Tensor:
        """hidden (B, N) bool over blocks -> (B, 1, *S) bool over the voxels of views of `size` S."""
        voxels = hidden.reshape(len(hidden), 1, *self.grid(size))
        for axis, side in enumerate(self.block, start=2):
            voxels = voxels.repeat_interleave(side, dim=axis)
        return voxels


def block_grid(size: tuple[int, ...], block: tuple[int, ...]) -> tuple[int, ...]:
    """How many blocks a view of `size` voxels holds along each axis; ConfigError unless they tile it."""
    if len(size) != len(block) or any(s % b for s, b in zip(size, block, strict=True)):
        nearest = tuple(max(b, s // b * b) for s, b in zip(size, block, strict=False))
        raise ConfigError(f"Views of {size} voxels are not tiled by blocks of {block}",
                          expected="one block side for each axis, which divides the view's",
                          remedy=f"set the view's size to {nearest}" if len(size) == len(block)
                          else f"give the block {len(size)} sides")
    return tuple(s // b for s, b in zip(size, block, strict=True))
