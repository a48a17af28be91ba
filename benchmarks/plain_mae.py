"""The peer of benchmarks/mae.py: MAE as its paper describes it (He et al., CVPR 2022, arXiv 2111.06377), and no faster.

Written anew from the paper, with what its public implementation does where that costs time: a class token, shuffling
by argsort, mask tokens put back in order, every patch decoded, attention as plain products, the loss masked at the end.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from medssl.models.vit import sincos_positions


class PlainMAE(nn.Module):
    """x (B, C, side, side) -> the loss ()."""

    def __init__(self, side: int, patch: int, channels: int, width: int, depth: int, heads: int, decoder_width: int,
                 decoder_depth: int, decoder_heads: int, ratio: float) -> None:
        super().__init__()
        self.patch, self.ratio, grid = patch, ratio, (side // patch,) * 2
        self.embedding = nn.Conv2d(channels, width, patch, patch)
        self.class_token = nn.Parameter(torch.randn(1, 1, width) * 0.02)
        self.blocks = nn.Sequential(*(PlainBlock(width, heads) for _ in range(depth)))
        self.norm = nn.LayerNorm(width)
        self.narrow = nn.Linear(width, decoder_width)
        self.mask_token = nn.Parameter(torch.randn(1, 1, decoder_width) * 0.02)
        self.decoder = nn.Sequential(*(PlainBlock(decoder_width, decoder_heads) for _ in range(decoder_depth)))
        self.decoder_norm = nn.LayerNorm(decoder_width)
        self.predict = nn.Linear(decoder_width, channels * patch**2)
        for name, size in (("places", width), ("decoder_places", decoder_width)):
            self.register_buffer(name, sincos_positions(grid, size, torch.device("cpu"))[None])

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.embedding(x).flatten(2).transpose(1, 2) + self.places
        visible, mask, restore = self._shuffle(tokens)
        encoded = self.norm(self.blocks(torch.cat([self.class_token.expand(len(x), -1, -1), visible], 1)))
        narrowed = self.narrow(encoded)
        hidden = self.mask_token.expand(len(x), mask.shape[1] + 1 - narrowed.shape[1], -1)
        ordered = torch.cat([narrowed[:, 1:], hidden], 1).gather(1, _along(restore, narrowed)) + self.decoder_places
        decoded = self.decoder(torch.cat([narrowed[:, :1], ordered], 1))
        predicted = self.predict(self.decoder_norm(decoded))[:, 1:]
        target = cut(x, self.patch)
        target = (target - target.mean(-1, keepdim=True)) / (target.var(-1, keepdim=True) + 1e-6).sqrt()
        return masked_error(predicted, target, mask)

    def _shuffle(self, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The visible tokens (B, n, D), the mask (B, N), 1 where hidden, and the order that undoes the shuffling."""
        kept = int(tokens.shape[1] * (1 - self.ratio))
        order = torch.rand(tokens.shape[:2], device=tokens.device).argsort(1)
        restore = order.argsort(1)
        return tokens.gather(1, _along(order[:, :kept], tokens)), (restore >= kept).to(tokens.dtype), restore


class PlainBlock(nn.Module):
    """A transformer's block as timm had it when MAE was written."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        b, n, d = x.shape
        q, k, v = self.qkv(self.norm1(x)).reshape(b, n, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)
        weights = ((q @ k.transpose(-2, -1)) * (d // self.heads) ** -0.5).softmax(-1)
        x = x + self.out((weights @ v).transpose(1, 2).reshape(b, n, d))
        return x + self.mlp(self.norm2(x))


def cut(x: Tensor, patch: int) -> Tensor:
    """(B, C, J, I) -> (B, N, P)."""
    return nn.functional.unfold(x, patch, stride=patch).transpose(1, 2)


def masked_error(predicted: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Mean squared error of the patches (B, N, P) where mask (B, N) is 1."""
    return ((predicted - target).square().mean(-1) * mask).sum() / mask.sum()


def _along(index: Tensor, tokens: Tensor) -> Tensor:
    return index[:, :, None].expand(-1, -1, tokens.shape[2])
