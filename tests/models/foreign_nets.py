"""Foreign networks written by hand from their papers: their checkpoints' tensors, drawn at random, and their answers.

All in float64, from plain products, so that they share nothing with the encoders that read them.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def drawn(shapes: dict[str, tuple[int, ...]], seed: int = 0) -> dict[str, Tensor]:
    """Random tensors, of which norms stay near the identity and variances positive."""
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for name, shape in shapes.items():
        spread = 0.3 if len(shape) < 2 else shape[0] ** -0.5
        tensors[name] = spread * torch.randn(shape, generator=generator)
        if name.endswith(("running_var", "norm1.weight", "norm2.weight", "norm.weight")):
            tensors[name] = 1 + tensors[name].abs()
    return tensors


def vit_shapes(
    width: int = 128, depth: int = 2, grid: int = 3, patch: int = 4, hidden: int = 96, channels: int = 3,
    registers: int = 0, scaled: bool = False, prefix: int = 1,
) -> dict[str, tuple[int, ...]]:
    """timm's names. prefix: tokens beside the patches that have a position."""
    shapes = {"cls_token": (1, 1, width), "pos_embed": (1, grid**2 + prefix, width),
              "patch_embed.proj.weight": (width, channels, patch, patch), "patch_embed.proj.bias": (width,)}
    if registers:
        shapes["reg_token"] = (1, registers, width)
    for n in range(depth):
        block = {"norm1.weight": (width,), "norm1.bias": (width,), "attn.qkv.weight": (3 * width, width),
                 "attn.qkv.bias": (3 * width,), "attn.proj.weight": (width, width), "attn.proj.bias": (width,),
                 "norm2.weight": (width,), "norm2.bias": (width,), "mlp.fc1.weight": (hidden, width),
                 "mlp.fc1.bias": (hidden,), "mlp.fc2.weight": (width, hidden), "mlp.fc2.bias": (width,)}
        if scaled:
            block |= {"ls1.gamma": (width,), "ls2.gamma": (width,)}
        shapes |= {f"blocks.{n}.{name}": shape for name, shape in block.items()}
    return shapes | {"norm.weight": (width,), "norm.bias": (width,)}


def vit_answer(
    tensors: dict[str, Tensor], x: Tensor, heads: int, eps: float = 1e-6, kept: list[int] | None = None
) -> Tensor:
    """Every token (B, class + registers + patches, D) after the last norm, float64; of the patches only those kept."""
    t = {name: tensor.double().numpy() for name, tensor in tensors.items()}
    x = x.double().numpy()
    kernel = t["patch_embed.proj.weight"]
    patch = kernel.shape[-1]
    tokens = [np.tensordot(x[:, :, j : j + patch, i : i + patch], kernel, ((1, 2, 3), (1, 2, 3)))
              for j in range(0, x.shape[2], patch) for i in range(0, x.shape[3], patch)]
    tokens = np.stack(tokens, 1) + t["patch_embed.proj.bias"]
    others = np.concatenate([t["cls_token"], t.get("reg_token", t["cls_token"][:, :0])], 1).repeat(len(x), 0)
    positions = t["pos_embed"]
    count = positions.shape[1] - tokens.shape[1]  # of the tokens beside the patches that have a position
    others[:, :count] += positions[:, :count]
    tokens += positions[:, count:]
    z = np.concatenate([others, tokens if kept is None else tokens[:, kept]], 1)
    for n in range(len({name.split(".")[1] for name in t if name.startswith("blocks.")})):
        b = {name.removeprefix(f"blocks.{n}."): value for name, value in t.items() if name.startswith(f"blocks.{n}.")}
        y = _layer_norm(z, b["norm1.weight"], b["norm1.bias"], eps) @ b["attn.qkv.weight"].T + b.get("attn.qkv.bias", 0)
        q, k, v = (part.reshape(*part.shape[:2], heads, -1) for part in np.split(y, 3, -1))
        weights = np.exp(np.einsum("bnhd,bmhd->bhnm", q, k) / np.sqrt(q.shape[-1]))
        y = np.einsum("bhnm,bmhd->bnhd", weights / weights.sum(-1, keepdims=True), v).reshape(z.shape)
        z = z + b.get("ls1.gamma", 1) * (y @ b["attn.proj.weight"].T + b["attn.proj.bias"])
        y = _layer_norm(z, b["norm2.weight"], b["norm2.bias"], eps) @ b["mlp.fc1.weight"].T + b["mlp.fc1.bias"]
        y = 0.5 * y * (1 + torch.erf(torch.from_numpy(y) / 2**0.5).numpy())
        z = z + b.get("ls2.gamma", 1) * (y @ b["mlp.fc2.weight"].T + b["mlp.fc2.bias"])
    return torch.from_numpy(_layer_norm(z, t["norm.weight"], t["norm.bias"], eps))


def _layer_norm(z: np.ndarray, weight: np.ndarray, bias: np.ndarray, eps: float) -> np.ndarray:
    return (z - z.mean(-1, keepdims=True)) / np.sqrt(z.var(-1, keepdims=True) + eps) * weight + bias


def to_hugging_face(tensors: dict[str, Tensor], dino: bool) -> dict[str, Tensor]:
    """The same tensors under the names of ViTModel or Dinov2Model."""
    width, named = tensors["cls_token"].shape[2], {}
    norms = {"norm1": "norm1", "norm2": "norm2"} if dino else {"norm1": "layernorm_before", "norm2": "layernorm_after"}
    inner = {"attn.proj": "attention.output.dense", **norms,
             **({"mlp.fc1": "mlp.fc1", "mlp.fc2": "mlp.fc2", "ls1.gamma": "layer_scale1.lambda1",
                 "ls2.gamma": "layer_scale2.lambda1"} if dino
                else {"mlp.fc1": "intermediate.dense", "mlp.fc2": "output.dense"})}
    outer = {"cls_token": "embeddings.cls_token", "pos_embed": "embeddings.position_embeddings",
             "reg_token": "embeddings.register_tokens",
             "patch_embed.proj.weight": "embeddings.patch_embeddings.projection.weight",
             "patch_embed.proj.bias": "embeddings.patch_embeddings.projection.bias",
             "norm.weight": "layernorm.weight", "norm.bias": "layernorm.bias"}
    for name, tensor in tensors.items():
        if not name.startswith("blocks."):
            named[outer[name]] = tensor
            continue
        _, n, rest = name.split(".", 2)
        if rest.startswith("attn.qkv"):
            for kind, part in zip(("query", "key", "value"), tensor.split(width), strict=True):
                named[f"encoder.layer.{n}.attention.attention.{kind}.{rest.rpartition('.')[2]}"] = part.contiguous()
            continue
        old = next(key for key in inner if rest.startswith(key))
        named[f"encoder.layer.{n}.{rest.replace(old, inner[old])}"] = tensor
    return named
