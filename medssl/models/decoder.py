"""From features back to pixels: a U-Net's ascending half, and MAE's transformer over visible and hidden tokens."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from monai.networks.nets.basic_unet import TwoConv
from pydantic import PositiveInt, model_validator
from torch import Tensor, nn

from medssl.config import Config as StrictConfig
from medssl.errors import ConfigError
from medssl.models.cnn import ACTIVATION, NORM
from medssl.models.encoder import Encoder
from medssl.models.vit import Block, doublings, init_transformer, sincos_positions


class UNetDecoder(nn.Module):
    """A pyramid's maps, coarse to fine, become features (B, `width`, *S) at full resolution.

    Each step narrows by a 1×1 convolution, resizes linearly to the next map (so odd sizes need no padding), joins it,
    and convolves twice. Where even the finest map is coarser than the picture (`stride` above 1), steps without a map
    to join, each half as wide, double the resolution until it is reached.

    Args:
        map_widths: D_l of each map, coarse to fine.
        dims: number of spatial axes, 2 or 3.
        stride: voxels per cell of the finest map along each axis, as `Encoder.stride` says.
    """

    def __init__(self, map_widths: Sequence[int], dims: int, stride: Sequence[int] | None = None) -> None:
        super().__init__()
        self.dims, self.map_widths = dims, tuple(map_widths)
        self.joining = nn.ModuleList(
            _UpStep(dims, coarse, fine, joined=fine) for coarse, fine in pairwise(self.map_widths)
        )
        self.width = self.map_widths[-1]
        self.doubling = nn.ModuleList()
        for _ in range(doublings(stride or (1,))):
            narrower = max(self.width // 2, 8)
            self.doubling.append(_UpStep(dims, self.width, narrower, joined=0))
            self.width = narrower

    @classmethod
    def above(cls, encoder: Encoder) -> UNetDecoder:
        """One that fits an encoder, its weights lying as the encoder's do: a quarter off a ResNet U-Net's step."""
        decoder = cls(encoder.map_widths, encoder.dims, encoder.stride)
        return decoder.to(memory_format=encoder.memory_format)

    def forward(self, maps: Sequence[Tensor], size: Sequence[int]) -> Tensor:
        """maps [(B, D_l, *S_l), ...] coarse to fine, and the size S of the picture -> (B, width, *S)."""
        self._check(maps, size)
        x = maps[0]
        for step, finer in zip(self.joining, maps[1:], strict=True):
            x = step(x, finer.shape[2:], finer)
        for step in self.doubling:
            x = step(x, [min(2 * cells, voxels) for cells, voxels in zip(x.shape[2:], size, strict=True)])
        return x if x.shape[2:] == tuple(size) else _resize(x, size)

    def _check(self, maps: Sequence[Tensor], size: Sequence[int]) -> None:
        widths = tuple(m.shape[1] for m in maps)
        if widths != self.map_widths or any(m.ndim != self.dims + 2 for m in maps) or len(size) != self.dims:
            shapes = ", ".join(str(tuple(m.shape)) for m in maps)
            raise ConfigError(
                f"The decoder was given maps of shape {shapes} for a picture of size {tuple(size)}",
                expected=f"maps of widths {self.map_widths}, coarse to fine, with {self.dims} spatial axes",
                remedy="build it with the `map_widths` and `dims` of the encoder that feeds it",
            )


class _UpStep(nn.Module):
    def __init__(self, dims: int, coarse: int, fine: int, joined: int) -> None:
        super().__init__()
        self.narrow = (nn.Conv2d if dims == 2 else nn.Conv3d)(coarse, fine, 1)
        self.convs = TwoConv(dims, fine + joined, fine, ACTIVATION, NORM, bias=False)

    def forward(self, x: Tensor, size: Sequence[int], joined: Tensor | None = None) -> Tensor:
        x = _resize(self.narrow(x), size)
        return self.convs(x if joined is None else torch.cat([joined, x], 1))


def _resize(x: Tensor, size: Sequence[int]) -> Tensor:
    mode = {4: "bilinear", 5: "trilinear"}[x.ndim]
    return F.interpolate(x, size=tuple(size), mode=mode, align_corners=False)


class TokenDecoder(nn.Module):
    """MAE's decoder (arXiv 2111.06377, section 3): a small transformer over encoded visible tokens and mask tokens.

    Args:
        config: its own architecture.
        encoder_width: D of the tokens that it is given.
        values: P, the values of one patch.
    """

    class Config(StrictConfig):
        """The default is MAE's; its width is free of the encoder's."""

        width: PositiveInt = 512
        depth: PositiveInt = 8
        heads: PositiveInt = 16

        @model_validator(mode="after")
        def _fits(self) -> TokenDecoder.Config:
            if self.width % self.heads:
                raise ValueError(f"width {self.width} must be a multiple of heads {self.heads}")
            return self

    def __init__(self, config: TokenDecoder.Config, encoder_width: int, values: int) -> None:
        super().__init__()
        self.width = config.width
        self.narrow = nn.Linear(encoder_width, config.width)
        self.mask_token = nn.Parameter(torch.empty(config.width))
        self.blocks = nn.ModuleList(Block(config.width, config.heads) for _ in range(config.depth))
        self.norm = nn.LayerNorm(config.width, eps=1e-6)
        self.predict = nn.Linear(config.width, values)
        self.apply(init_transformer)
        nn.init.normal_(self.mask_token, std=0.02)

    def forward(self, tokens: Tensor, visible: Tensor, hidden: Tensor, grid: Sequence[int]) -> Tensor:
        """tokens (B, n, D) of the patches `visible` (B, n) -> values (B, m, P) of the patches `hidden` (B, m).

        visible and hidden are indices into `grid`. Order does not matter to a transformer, positions do, so the
        hidden tokens follow the visible ones and nothing is shuffled back.
        """
        positions = sincos_positions(grid, self.width, tokens.device)
        x = torch.cat([self.narrow(tokens) + positions[visible], self.mask_token + positions[hidden]], 1)
        *blocks, last = self.blocks
        for block in blocks:
            x = block(x)
        return self.predict(self.norm(last(x, first=visible.shape[1])))  # nobody asks what it makes of visible tokens
