"""Which blocks of a view are hidden from the encoder (masked reconstruction)."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from medssl.errors import ConfigError
from medssl.types import MaskSpec


def block_grid(size: tuple[int, ...], block: tuple[int, ...]) -> tuple[int, ...]:
    """How many blocks a view of `size` voxels holds along each axis; ConfigError unless they tile it."""
    if len(size) != len(block) or any(s % b for s, b in zip(size, block, strict=True)):
        nearest = tuple(max(b, s // b * b) for s, b in zip(size, block, strict=False))
        raise ConfigError(f"Views of {size} voxels are not tiled by blocks of {block}",
                          expected="one block side for each axis, which divides the view's",
                          remedy=f"set the view's size to {nearest}" if len(size) == len(block)
                          else f"give the block {len(size)} sides")
    return tuple(s // b for s, b in zip(size, block, strict=True))


def draw_hidden(rng: np.random.Generator, grid: tuple[int, ...], spec: MaskSpec) -> np.ndarray:
    """(N,) bool over the blocks of `grid` in row-major order: True where hidden, exactly round(ratio N) of them.

    With `spec.tube` the grid's first axis is time: round(ratio N / T) places are hidden, the same at every time
    (VideoMAE, arXiv 2203.12602, section 3.3).
    """
    times = grid[0] if spec.tube else 1
    places = int(np.prod(grid)) // times
    hidden = np.zeros(places, dtype=bool)
    hidden[rng.permutation(places)[: round(spec.ratio * places)]] = True
    return np.tile(hidden, times)


def blocks_to_voxels(hidden: Tensor, grid: tuple[int, ...], block: tuple[int, ...]) -> Tensor:
    """(B, N) bool over blocks -> (B, 1, *S) bool over voxels, S = grid * block."""
    voxels = hidden.reshape(len(hidden), 1, *grid)
    for axis, side in enumerate(block, start=2):
        voxels = voxels.repeat_interleave(side, dim=axis)
    return voxels


def check_mask(spec: MaskSpec) -> None:
    """ConfigError where the masking cannot be done on any view."""
    if not 0 <= spec.ratio <= 1:
        raise ConfigError(f"mask ratio {spec.ratio}", expected="a share between 0 and 1", remedy="write 0.75 for 75 %")
    if spec.tube and len(spec.block) != 3:
        raise ConfigError(f"tube masking with blocks of {spec.block}", expected="clips, whose first axis is time",
                          remedy="set tube to false, or give the block three sides (t, j, i)")
