"""A vision transformer for images, volumes and clips alike.

Dosovitskiy et al., An Image is Worth 16x16 Words, ICLR 2021 (arXiv 2010.11929), as MAE uses it (He et al., CVPR 2022,
arXiv 2111.06377): pre-norm blocks, fixed sine-cosine positions, and `pooled` the tokens' mean. What other ViTs have
beyond that (a class token, registers, learned positions, LayerScale) is there to start from their weights.

It is `patchify`, `project`, `positions`, then `encode`, so that a masked objective drops tokens without the ViT knowing
about masks. Patches lie in row-major order of their grid; P values a patch, in the order (C, *patch).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from medssl.config import Config as StrictConfig
from medssl.errors import ConfigError
from medssl.models.encoder import Encoder
from medssl.types import Features


class ViT(Encoder):
    """Features: one map (B, D, *grid), and pooled (B, D), the normalised patches' mean or the class token.

    Its skips are the tokens after evenly spaced blocks (B, D, *grid), as UNETR has them (Hatamizadeh et al., WACV 2022,
    arXiv 2103.10504), and the picture. One for each resolution between the patches' and the picture's: blocks 9, 6 and
    3 of 12 for patches of 16 voxels.
    """

    class Config(StrictConfig):
        """The default is ViT-S; its `size` and `patch` must be those of the data at hand."""

        name: Literal["vit"] = "vit"
        channels: PositiveInt = 1
        size: tuple[int, ...] = (224, 224)
        """Voxels along each spatial axis of the pictures it learns from; a clip's first axis is time."""
        patch: tuple[int, ...] = (16, 16)
        """Voxels of one patch along each spatial axis."""
        width: PositiveInt = 384
        depth: PositiveInt = 12
        heads: PositiveInt = 6
        mlp_ratio: PositiveFloat = 4.0
        drop_path: float = Field(0.0, ge=0, lt=1)
        """Share of samples that skip the last block; earlier blocks less, linearly from 0 (stochastic depth)."""
        positions: Literal["sincos", "learned"] = "sincos"
        """Fixed sines and cosines, or a table that is learnt with the rest."""
        class_token: bool = False
        """A token that stands for no patch."""
        registers: NonNegativeInt = 0
        """Further such tokens, which nobody reads (Darcet et al., ICLR 2024, arXiv 2309.16588)."""
        layer_scale: PositiveFloat | None = None
        """First value of a learnt factor per channel of each branch (Touvron et al., ICCV 2021, arXiv 2103.17239)."""
        norm_eps: PositiveFloat = 1e-6
        """What the layer norms add to the variance."""
        pooled: Literal["mean", "class"] = "mean"
        """What stands for the whole picture: the patches' mean, or the class token."""

        @model_validator(mode="after")
        def _fits(self) -> ViT.Config:
            if len(self.size) != len(self.patch) or len(self.size) not in (2, 3):
                raise ValueError(f"size {self.size} and patch {self.patch} must both have 2 axes, or both 3")
            if any(p < 1 or s < 1 or s % p for s, p in zip(self.size, self.patch, strict=True)):
                raise ValueError(f"each axis of size {self.size} must be a multiple of patch {self.patch}")
            if self.width % self.heads:
                raise ValueError(f"width {self.width} must be a multiple of heads {self.heads}")
            if self.pooled == "class" and not self.class_token:
                raise ValueError("pooled: class needs class_token: true")
            return self

    def __init__(self, config: ViT.Config) -> None:
        super().__init__()
        self.config = config
        self.dims, self.channels, self.width = len(config.size), config.channels, config.width
        self.patch = self.stride = config.patch
        self.map_widths = (config.width,)
        self.skipped = evenly_spaced(config.depth, doublings(config.patch))
        self.skip_widths = (*(config.width for _ in self.skipped), config.channels)
        self.grid = self.grid_of(config.size)

        conv = nn.Conv2d if self.dims == 2 else nn.Conv3d
        # Stored as the convolution that other ViTs have, applied as a matrix product to chosen patches.
        self.embedding = conv(config.channels, config.width, config.patch, config.patch)
        rates = torch.linspace(0, config.drop_path, config.depth).tolist()
        self.blocks = nn.ModuleList(
            Block(config.width, config.heads, config.mlp_ratio, rate, config.layer_scale) for rate in rates
        )
        self.norm = nn.LayerNorm(config.width)
        self.layers = (("embedding.", "class_token.", "register_tokens.", "position_table."),
                       *((f"blocks.{number}.",) for number in range(config.depth)))
        for norm in (module for module in self.modules() if isinstance(module, nn.LayerNorm)):
            norm.eps = config.norm_eps
        self.apply(init_transformer)
        nn.init.xavier_uniform_(self.embedding.weight.data.flatten(1))
        nn.init.zeros_(self.embedding.bias)
        if config.class_token:
            self.class_token = _small_normal(1, config.width)
        if config.registers:
            self.register_tokens = _small_normal(config.registers, config.width)
        if config.positions == "learned":
            self.position_table = _small_normal(*self.grid, config.width)

    def forward(self, x: Tensor) -> Features:
        """x (B, C, *S), each axis a multiple of the patch; it need not be the Config's size."""
        others, tokens, skips = self._transform(self.embed(x))
        final, *earlier = (each.transpose(1, 2).unflatten(2, self.grid_of(x.shape[2:])) for each in (tokens, *skips))
        pooled = others[:, 0] if self.config.pooled == "class" else tokens.mean(1)
        return Features(maps=[final], pooled=pooled, skips=[*earlier, x])

    def embed(self, x: Tensor) -> Tensor:
        """(B, C, *S) -> tokens (B, N, D) that know their position."""
        return self.project(self.patchify(x)) + self.positions(self.grid_of(x.shape[2:]), x.device)

    def encode(self, tokens: Tensor) -> Tensor:
        """Any subset of the tokens, (B, n, D) -> (B, n, D), normalised. They see the class token and registers."""
        return self._transform(tokens)[1]

    def _transform(self, tokens: Tensor) -> tuple[Tensor, Tensor, list[Tensor]]:
        """(B, n, D) -> the class token and registers (B, 0 or more, D), and the tokens (B, n, D), both normalised; and
        the tokens after each block of `skipped`, each (B, n, D)."""
        others = [getattr(self, name) for name in ("class_token", "register_tokens") if hasattr(self, name)]
        count = sum(len(tokens) for tokens in others)
        if others:
            tokens = torch.cat([torch.cat(others).expand(tokens.shape[0], -1, -1), tokens], 1)
        after = {}
        for number, block in enumerate(self.blocks, start=1):
            tokens = block(tokens)
            if number in self.skipped:
                after[number] = tokens[:, count:]
        tokens = self.norm(tokens)
        return tokens[:, :count], tokens[:, count:], [after[number] for number in self.skipped]

    def patchify(self, x: Tensor) -> Tensor:
        """(B, C, *S) -> (B, N, P)."""
        self.check_input(x)
        grid = self.grid_of(x.shape[2:])
        split = [n for pair in zip(grid, self.patch, strict=True) for n in pair]
        axes = range(2, 2 + 2 * self.dims)
        x = x.reshape(*x.shape[:2], *split).permute(0, *axes[::2], 1, *axes[1::2])  # (B, *grid, C, *patch)
        return x.reshape(x.shape[0], math.prod(grid), -1)

    def unpatchify(self, patches: Tensor, grid: Sequence[int]) -> Tensor:
        """(B, N, P) -> (B, C, *S), the inverse of `patchify`."""
        x = patches.reshape(patches.shape[0], *grid, -1, *self.patch)
        pairs = [axis for n in range(self.dims) for axis in (1 + n, 2 + self.dims + n)]
        x = x.permute(0, 1 + self.dims, *pairs)  # (B, C, grid 0, patch 0, grid 1, patch 1, ...)
        return x.reshape(*x.shape[:2], *(g * p for g, p in zip(grid, self.patch, strict=True)))

    def project(self, patches: Tensor) -> Tensor:
        """(B, n, P) -> (B, n, D), before positions are added."""
        return F.linear(patches, self.embedding.weight.flatten(1), self.embedding.bias)

    def positions(self, grid: Sequence[int], device: torch.device) -> Tensor:
        """(N, D). A grid unlike the Config's is stretched over it, as MAE interpolates its table."""
        if self.config.positions == "learned":
            return resize_positions(self.position_table, grid).flatten(0, -2)
        return sincos_positions(grid, self.width, device, span=self.grid)

    def grid_of(self, size: Sequence[int]) -> tuple[int, ...]:
        """Patches along each axis of a picture of `size`; ConfigError where they do not fill it."""
        if len(size) != len(self.patch) or any(s % p for s, p in zip(size, self.patch, strict=True)):
            raise ConfigError(
                f"A picture of size {tuple(size)} cannot be cut into patches of {self.patch}",
                expected="as many axes, each a multiple of the patch",
                remedy="change the crop's size or the encoder's `patch`",
            )
        return tuple(s // p for s, p in zip(size, self.patch, strict=True))


class Block(nn.Module):
    """Pre-norm attention and GELU perceptron, each with its residual: (B, N, D) -> (B, N - first, D).

    Tokens before `first` are attended to and then left out, which spares their share of all that follows.
    `recomputed`: keep the input alone for the backward pass, and compute the rest again there (activations.py).
    """

    recomputed = False

    def __init__(
        self, width: int, heads: int, mlp_ratio: float = 4.0, drop_path: float = 0.0, layer_scale: float | None = None
    ) -> None:
        super().__init__()
        self.heads, self.drop_path = heads, drop_path
        hidden = int(width * mlp_ratio)
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.mlp = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))
        self.scale1, self.scale2 = (LayerScale(width, layer_scale) if layer_scale else nn.Identity() for _ in range(2))

    def forward(self, x: Tensor, first: int = 0) -> Tensor:
        if self.recomputed and torch.is_grad_enabled():
            return checkpoint(self._transform, x, first, use_reentrant=False)
        return self._transform(x, first)

    def _transform(self, x: Tensor, first: int) -> Tensor:
        x = x[:, first:] + self._dropped(self.scale1(self._attend(self.norm1(x), first)))
        return x + self._dropped(self.scale2(self.mlp(self.norm2(x))))

    def _attend(self, x: Tensor, first: int) -> Tensor:
        q, k, v = self.qkv(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)  # each (B, heads, N, D / heads)
        return self.out(attention(q[:, :, first:], k, v).transpose(1, 2).flatten(2))

    def _dropped(self, branch: Tensor) -> Tensor:
        """Stochastic depth (Huang et al., ECCV 2016): whole samples skip the branch, the others make up for it."""
        if not self.training or self.drop_path == 0:
            return branch
        kept = torch.empty(branch.shape[0], 1, 1, device=branch.device).bernoulli_(1 - self.drop_path)
        return branch * kept / (1 - self.drop_path)


class LayerScale(nn.Module):
    """(..., D) times a factor per channel."""

    def __init__(self, width: int, first: float) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.full((width,), first))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factor


FUSED_FROM = 1024
"""Tokens attended to, from which bf16 attention on CPUs takes the fused kernel."""


def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """softmax(q kᵀ / √d) v over the last two axes, (..., N, d) each; q may have fewer tokens.

    In bf16 on CPUs the fused kernel's forward and backward took 1.3 to 5 times as long as plain products for 16 to 512
    tokens, and 0.8 to 1.05 times as long for 1024 to 4096, where plain products hold 100 to 1500 MiB and it holds 10 to
    40 (torch 2.13, AVX-512). In float32 and on GPUs the fused kernel wins.
    """
    if q.device.type == "cpu" and q.dtype == torch.bfloat16 and k.shape[-2] < FUSED_FROM:
        return ((q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)).softmax(-1).to(v.dtype) @ v
    return F.scaled_dot_product_attention(q, k, v)


def sincos_positions(
    grid: Sequence[int], width: int, device: torch.device, span: Sequence[int] | None = None
) -> Tensor:
    """Fixed positions (N, width): each axis has its own sines and cosines, of wavelengths 2π to 10000·2π cells.

    The share of `width` that does not divide by twice the number of axes stays 0. `span` is the grid that the cells'
    coordinates spread over, centre on centre; by default `grid` itself, whose coordinates are 0, 1, 2, ...
    """
    span = grid if span is None else span
    count = width // (2 * len(grid))
    frequency = 10000.0 ** (-torch.arange(count, device=device) / count)
    axes = [(torch.arange(n, device=device) + 0.5) * (s / n) - 0.5 for n, s in zip(grid, span, strict=True)]
    places = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).flatten(0, -2)  # (N, axes)
    angle = places[:, :, None] * frequency  # (N, axes, count)
    encoded = torch.cat([angle.sin(), angle.cos()], -1).flatten(1)
    return F.pad(encoded, (0, width - encoded.shape[1]))


def resize_positions(table: Tensor, grid: Sequence[int]) -> Tensor:
    """A table (*other, D) stretched over `grid`, (*grid, D): bicubic over 2 axes, trilinear over 3."""
    if table.shape[:-1] == tuple(grid):
        return table
    mode = {2: "bicubic", 3: "trilinear"}[len(grid)]
    return F.interpolate(table.movedim(-1, 0)[None], tuple(grid), mode=mode, align_corners=False)[0].movedim(0, -1)


def doublings(patch: Sequence[int]) -> int:
    """How often the grid of patches is doubled until it is as fine as the picture along every axis."""
    return (max(patch) - 1).bit_length()


def evenly_spaced(depth: int, parts: int) -> tuple[int, ...]:
    """Blocks, counted from 1, that cut `depth` of them into so many parts, late to early."""
    return tuple(max(depth * part // parts, 1) for part in range(parts - 1, 0, -1))


def _small_normal(*shape: int) -> nn.Parameter:
    return nn.Parameter(nn.init.trunc_normal_(torch.empty(shape), std=0.02))


def init_transformer(module: nn.Module) -> None:
    """Xavier-uniform weights and zero biases for linear layers, as MAE has them; other layers keep torch's own."""
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        nn.init.zeros_(module.bias)
