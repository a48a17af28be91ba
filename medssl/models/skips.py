"""A pyramid from the tokens of a ViT, so that what draws on a CNN's maps draws on these."""

from __future__ import annotations

from itertools import pairwise

import torch.nn.functional as F
from monai.networks.blocks import Convolution
from monai.networks.nets.basic_unet import TwoConv
from torch import Tensor, nn

from medssl.errors import ConfigError
from medssl.models.cnn import ACTIVATION, NORM
from medssl.models.encoder import Encoder
from medssl.models.vit import doublings
from medssl.types import Features


class TokenPyramid(nn.Module):
    """Hatamizadeh et al., UNETR, WACV 2022 (arXiv 2103.10504), figure 2: the way up to each skip's resolution.

    The last tokens stay on the grid of patches. Each earlier skip is brought to twice the resolution of the one after
    it, a step being a transposed convolution and a plain one; the picture itself is convolved twice. An axis whose
    patches are shorter is doubled first and then stays as it is. Unlike in UNETR, tokens are normalised over their
    channels first, and each map is half as wide as the next coarser one.

    Attributes:
        map_widths: D_l of each map, coarse to fine.

    Raises:
        ConfigError: where a side of the patches is no power of two.
    """

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        if any(side & (side - 1) for side in encoder.stride):
            raise ConfigError(f"task.skips of patches of {tuple(encoder.stride)} voxels",
                              expected="powers of two along every axis, which doublings reach",
                              remedy="set task.skips=false, or choose such an encoder.patch")
        levels = doublings(encoder.stride)
        self.map_widths = (encoder.width, *(max(encoder.width >> level, 8) for level in range(1, max(levels, 1) + 1)))
        steps = _steps(encoder.stride)
        self.risen = nn.ModuleList(
            _rise(steps[:level], width, self.map_widths[level])
            for level, width in enumerate(encoder.skip_widths[:-1], start=1)
        )
        self.picture = TwoConv(encoder.dims, encoder.skip_widths[-1], self.map_widths[-1], ACTIVATION, NORM, bias=False)

    def forward(self, features: Features) -> list[Tensor]:
        """Features of the encoder -> maps [(B, D_l, *S_l), ...], coarse to fine."""
        *earlier, picture = features.skips
        risen = (rise(normalised(skip)) for rise, skip in zip(self.risen, earlier, strict=True))
        return [*features.maps, *risen, self.picture(picture)]


def _steps(patch: tuple[int, ...]) -> list[tuple[int, ...]]:
    """By how much each axis grows at each doubling: [(2, 2, 2), (1, 2, 2)] for patches of (2, 4, 4)."""
    sides = [[max(side >> done, 1) for side in patch] for done in range(doublings(patch) + 1)]
    return [tuple(a // b for a, b in zip(*pair, strict=True)) for pair in pairwise(sides)]


def _rise(steps: list[tuple[int, ...]], given: int, width: int) -> nn.Sequential:
    """(B, given, *S) -> (B, width, *S times every step)."""
    transposed = {2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
    parts: list[nn.Module] = []
    for step in steps:
        parts += [transposed[len(step)](given, width, step, step, bias=False),
                  Convolution(len(step), width, width, act=ACTIVATION, norm=NORM, bias=False)]
        given = width
    return nn.Sequential(*parts)


def normalised(x: Tensor) -> Tensor:
    """(B, D, *S), each place over its channels."""
    return F.layer_norm(x.movedim(1, -1), [x.shape[1]]).movedim(-1, 1)
