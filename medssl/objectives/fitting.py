"""What objectives say where a setting and the views do not fit each other, in the recipe's own keys."""

from __future__ import annotations

import math

import numpy as np

from medssl.augment.mask import BlockMask
from medssl.errors import ConfigError
from medssl.models import Encoder


def per_axis(value: int | tuple[int, ...], encoder: Encoder, key: str) -> tuple[int, ...]:
    """`value` along each of the encoder's axes; `key` is the recipe's for it."""
    sides = (value,) * encoder.dims if isinstance(value, int) else value
    if len(sides) != encoder.dims:
        raise ConfigError(f"{key} {sides} has {len(sides)} axes",
                          expected=f"{encoder.dims}, as many as the encoder's pictures have",
                          remedy="give a number for each spatial axis, or a single one for all")
    return sides


def resized(size: tuple[int, ...]) -> str:
    """The remedy that makes views of `size`, of images, volumes and clips alike."""
    if len(size) == 2:
        return f"set augment.size={list(size)}"
    return f"set data.box.size={list(size)} and augment.size=null"


def require_tiled(size: tuple[int, ...], block: tuple[int, ...], side: str) -> None:
    """ConfigError unless blocks fill views of `size`; `side` is the recipe's key for a block's size."""
    if len(size) != len(block):
        slices = ", or data.box.planar=true to learn from slices" if len(size) > len(block) else ""
        raise ConfigError(f"{side} {block} has {len(block)} axes", remedy=f"give {side} a number for each{slices}",
                          expected=f"{len(size)}, as views of {size} voxels have")
    nearest = tuple(max(round(s / b), 1) * b for s, b in zip(size, block, strict=True))
    if nearest != size:
        to_segment = " (to segment, data.box.size)" if len(size) == 2 else ""
        raise ConfigError(f"Views of {size} voxels are not tiled by blocks of {block}",
                          expected=f"sides that are multiples of {side}'s",
                          remedy=f"{resized(nearest)}{to_segment}, or change {side}")


def draw_some(mask: BlockMask, rng: np.random.Generator, shape: tuple[int, ...], side: str) -> dict[str, np.ndarray]:
    """What `mask` draws for a view (C, *S); `side` is the recipe's key for a block's size.

    ConfigError where blocks do not fill the view, or it would hide none of them, or all: nothing could be learnt.
    """
    require_tiled(shape[1:], mask.block, side)
    drawn = mask.draw(rng, shape)
    hidden, blocks = int(drawn["hidden"].sum()), drawn["hidden"].size
    if 0 < hidden < blocks:
        return drawn
    times = mask.grid(shape[1:])[0] if mask.tube else 1
    least = math.ceil(100 / (blocks // times)) / 100
    within = f"set objective.ratio between {least:g} and {1 - least:g}, or " if least <= 0.5 else ""
    raise ConfigError(f"objective.ratio {mask.ratio:g} hides {hidden} of the {blocks} blocks of {mask.block} voxels in "
                      f"views of {shape[1:]}", expected="some blocks hidden, and some not",
                      remedy=f"{within}make {side} smaller")
