"""MAE as its paper's section 3 tells it, from weights alone, sharing no step with medssl.

Shuffle, drop, encode, append mask tokens, unshuffle, decode everything, and weigh the loss by the mask.
"""

from __future__ import annotations

import itertools

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

Weights = dict[str, Tensor]


def mae_loss(weights: Weights, image: Tensor, hidden: Tensor, *, heads: int, per_channel: bool) -> Tensor:
    """image (B, C, *S), hidden (B, N) bool, `heads` of the encoder and the decoder alike -> the loss ()."""
    embed = F.conv2d if image.ndim == 4 else F.conv3d
    kernel = weights["encoder.embedding.weight"]
    maps = embed(image, kernel, weights["encoder.embedding.bias"], stride=kernel.shape[2:])
    grid = maps.shape[2:]
    tokens = maps.flatten(2).mT + position_table(grid, kernel.shape[0])

    shuffle = (hidden + 0.5 * torch.rand(hidden.shape)).argsort(1)  # the visible first, in any order
    restore = shuffle.argsort(1)
    kept = int((~hidden[0]).sum())
    x = rows(tokens, shuffle[:, :kept])
    x = layer_norm(transformer(x, weights, "encoder.blocks", heads), weights, "encoder.norm")

    x = linear(x, weights, "decoder.narrow")
    mask_tokens = weights["decoder.mask_token"].expand(len(x), hidden.shape[1] - kept, -1)
    x = rows(torch.cat([x, mask_tokens], 1), restore) + position_table(grid, x.shape[2])
    x = layer_norm(transformer(x, weights, "decoder.blocks", heads), weights, "decoder.norm")
    predicted = linear(x, weights, "decoder.predict")

    target = normalised_patches(image, kernel.shape[2:], per_channel)
    error = ((predicted - target) ** 2).mean(2)
    return (error * hidden).sum() / hidden.sum()


def transformer(x: Tensor, weights: Weights, name: str, heads: int) -> Tensor:
    depth = 1 + max(int(key.split(".")[2]) for key in weights if key.startswith(name))
    for block in (f"{name}.{n}" for n in range(depth)):
        q, k, v = linear(layer_norm(x, weights, f"{block}.norm1"), weights, f"{block}.qkv").chunk(3, 2)
        attended = []
        for q_head, k_head, v_head in zip(q.chunk(heads, 2), k.chunk(heads, 2), v.chunk(heads, 2), strict=True):
            agreement = q_head @ k_head.mT / q_head.shape[2] ** 0.5
            share = agreement.exp() / agreement.exp().sum(2, keepdim=True)
            attended.append(share @ v_head)
        x = x + linear(torch.cat(attended, 2), weights, f"{block}.out")
        wide = linear(layer_norm(x, weights, f"{block}.norm2"), weights, f"{block}.mlp.0")
        x = x + linear(wide * (1 + torch.erf(wide / 2**0.5)) / 2, weights, f"{block}.mlp.2")
    return x


def linear(x: Tensor, weights: Weights, name: str) -> Tensor:
    return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]


def layer_norm(x: Tensor, weights: Weights, name: str) -> Tensor:
    centred = x - x.mean(2, keepdim=True)
    scaled = centred / ((centred**2).mean(2, keepdim=True) + 1e-6) ** 0.5
    return scaled * weights[f"{name}.weight"] + weights[f"{name}.bias"]


def rows(x: Tensor, index: Tensor) -> Tensor:
    return torch.stack([sample[places] for sample, places in zip(x, index, strict=True)])


def position_table(grid: tuple[int, ...], width: int) -> Tensor:
    """(N, width): each axis has sines, then cosines, of frequencies from 1 down towards 1/10000; the rest is 0."""
    count = width // (2 * len(grid))
    table = np.zeros((int(np.prod(grid)), width))
    for row, place in enumerate(itertools.product(*map(range, grid))):
        for axis, n in itertools.product(range(len(grid)), range(count)):
            angle = place[axis] / 10000 ** (n / count)
            table[row, 2 * axis * count + n] = np.sin(angle)
            table[row, (2 * axis + 1) * count + n] = np.cos(angle)
    return torch.from_numpy(table)


def normalised_patches(image: Tensor, patch: tuple[int, ...], per_channel: bool) -> Tensor:
    """(B, N, P), cut out one by one: unbiased variance plus 1e-6, as the papers' codes have it."""
    patches = []
    starts = [range(0, length, side) for length, side in zip(image.shape[2:], patch, strict=True)]
    for corner in itertools.product(*starts):
        cut = image[(..., *(slice(at, at + side) for at, side in zip(corner, patch, strict=True)))]
        groups = cut.flatten(2) if per_channel else cut.flatten(1)[:, None]  # (B, groups, values)
        centred = groups - groups.mean(2, keepdim=True)
        variance = (centred**2).sum(2, keepdim=True) / (groups.shape[2] - 1)
        patches.append((centred / (variance + 1e-6) ** 0.5).flatten(1))
    return torch.stack(patches, 1)
