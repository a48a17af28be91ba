"""Foreign layouts: whose names a checkpoint has, and what our encoders call the same tensors.

A layout is known by some of its names. Reading it gives an encoder's Config and its tensors under our names; what
stands for a class position, a joined matrix or an absent bias is put so that the outputs stay the same. A tensor that
is neither taken nor known to have no place in an encoder is an error, since it may change what the network answers.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from medssl.errors import RunError

Tensors = Mapping[str, Tensor]


@dataclass
class Reading:
    """What a layout's reader makes of a file. Tensors that it takes leave `waiting`; see `start.Start` for the rest."""

    waiting: dict[str, Tensor]
    encoder: dict[str, Any] = field(default_factory=dict)
    tensors: dict[str, dict[str, Tensor]] = field(default_factory=lambda: {"encoder": {}})
    changed: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def take(self, pattern: str, name: str, part: str = "encoder") -> None:
        """Moves every tensor whose name matches to `name`, a template as re.sub has it."""
        for key in [key for key in self.waiting if re.fullmatch(pattern, key)]:
            self.tensors.setdefault(part, {})[re.sub(pattern, name, key)] = self.waiting.pop(key)


@dataclass(frozen=True)
class Layout:
    """A way to name tensors.

    marks: patterns, each of which some name matches.
    unused: pattern of the names that have no place in an encoder.
    read: fills a Reading; the second argument is config.json's content, {} where there is none.
    """

    name: str
    marks: tuple[str, ...]
    unused: str
    read: Callable[[Reading, Mapping[str, Any]], None]

    def knows(self, tensors: Tensors) -> bool:
        return all(any(re.fullmatch(mark, key) for key in tensors) for mark in self.marks)


HF_TO_TIMM = {
    r"embeddings\.(cls_token|mask_token|register_tokens)": r"\1",
    r"embeddings\.position_embeddings": "pos_embed",
    r"embeddings\.patch_embeddings\.projection\.(.+)": r"patch_embed.proj.\1",
    r"encoder\.layer\.(\d+)\.attention\.attention\.(query|key|value)\.(.+)": r"blocks.\1.attn.\2.\3",
    r"encoder\.layer\.(\d+)\.attention\.output\.dense\.(.+)": r"blocks.\1.attn.proj.\2",
    r"encoder\.layer\.(\d+)\.layernorm_before\.(.+)": r"blocks.\1.norm1.\2",
    r"encoder\.layer\.(\d+)\.layernorm_after\.(.+)": r"blocks.\1.norm2.\2",
    r"encoder\.layer\.(\d+)\.intermediate\.dense\.(.+)": r"blocks.\1.mlp.fc1.\2",
    r"encoder\.layer\.(\d+)\.output\.dense\.(.+)": r"blocks.\1.mlp.fc2.\2",
    r"encoder\.layer\.(\d+)\.layer_scale(\d)\.lambda1": r"blocks.\1.ls\2.gamma",
    r"encoder\.layer\.(\d+)\.((?:norm\d|mlp)\..+)": r"blocks.\1.\2",
    r"layernorm\.(.+)": r"norm.\1",
}
TIMM_TO_OURS = {
    r"patch_embed\.proj\.(weight|bias)": r"embedding.\1",
    r"blocks\.(?:\d+\.)?(\d+)\.(norm[12])\.(weight|bias)": r"blocks.\1.\2.\3",
    r"blocks\.(?:\d+\.)?(\d+)\.attn\.qkv\.(weight|bias)": r"blocks.\1.qkv.\2",
    r"blocks\.(?:\d+\.)?(\d+)\.attn\.proj\.(weight|bias)": r"blocks.\1.out.\2",
    r"blocks\.(?:\d+\.)?(\d+)\.mlp\.fc1\.(weight|bias)": r"blocks.\1.mlp.0.\2",
    r"blocks\.(?:\d+\.)?(\d+)\.mlp\.fc2\.(weight|bias)": r"blocks.\1.mlp.2.\2",
    r"blocks\.(?:\d+\.)?(\d+)\.ls([12])\.gamma": r"blocks.\1.scale\2.factor",
    r"norm\.(weight|bias)": r"norm.\1",
}


def _read_hf_vit(reading: Reading, config: Mapping[str, Any]) -> None:
    if config.get("hidden_act", "gelu") != "gelu" or config.get("use_swiglu_ffn"):
        raise RunError("This ViT's perceptrons are not GELU's", expected="hidden_act gelu, without SwiGLU",
                       remedy="take a smaller model of the family; of DINOv2 only ViT-g has SwiGLU")
    for pattern, name in HF_TO_TIMM.items():
        for key in [key for key in reading.waiting if re.fullmatch(pattern, key)]:
            reading.waiting[re.sub(pattern, name, key)] = reading.waiting.pop(key)
    for key in [key for key in reading.waiting if key.endswith(".attn.query.weight")]:
        block = key.removesuffix("query.weight")
        for kind in ("weight", "bias"):
            if f"{block}query.{kind}" in reading.waiting:
                three = [reading.waiting.pop(f"{block}{each}.{kind}") for each in ("query", "key", "value")]
                reading.waiting[f"{block}qkv.{kind}"] = torch.cat(three)
                number = re.findall(r"\d+", block)[-1]
                reading.changed[f"blocks.{number}.qkv.{kind}"] = "joined from query, key and value"
    scaled = any(key.endswith(".ls1.gamma") for key in reading.waiting)
    _read_vit(reading, {"layer_norm_eps": 1e-6 if scaled else 1e-12, **config})


def _read_vit(reading: Reading, config: Mapping[str, Any]) -> None:
    """timm's names, which DINOv2 and the reference MAE share."""
    _take_tokens(reading)
    for pattern, name in TIMM_TO_OURS.items():
        reading.take(pattern, name)
    ours = reading.tensors["encoder"]
    width, channels, *patch = ours["embedding.weight"].shape
    depth = 1 + max(int(name.split(".")[1]) for name in ours if name.startswith("blocks."))
    for number in range(depth):
        if f"blocks.{number}.qkv.bias" not in ours:
            ours[f"blocks.{number}.qkv.bias"] = torch.zeros(3 * width)
            reading.changed[f"blocks.{number}.qkv.bias"] = "0, as the file has no such bias"
    heads = config.get("num_attention_heads")
    if heads is None:
        heads = 16 if width == 1280 else max(width // 64, 1)
        reading.notes.append(f"the file does not say its number of heads: {heads}, as ViTs of width {width} have")
    reading.encoder = {
        "name": "vit", "channels": channels, "patch": patch, "width": width, "depth": depth, "heads": heads,
        "size": [cells * voxels for cells, voxels in zip(ours["position_table"].shape, patch, strict=False)],
        "mlp_ratio": _ratio(ours["blocks.0.mlp.0.weight"].shape[0], width), "positions": "learned",
        "class_token": "class_token" in ours, "pooled": "class" if "class_token" in ours else "mean",
        "registers": len(ours.get("register_tokens", ())), "norm_eps": config.get("layer_norm_eps", 1e-6),
        "layer_scale": config.get("layerscale_value", 1e-5) if "blocks.0.scale1.factor" in ours else None,
    }


def _take_tokens(reading: Reading) -> None:
    """The class token and registers with their own positions added, and the patches' positions as (*grid, D)."""
    positions = reading.waiting.pop("pos_embed")[0]
    others = {}
    for name, keys in {"class_token": ("cls_token",), "register_tokens": ("register_tokens", "reg_token")}.items():
        key = next((key for key in keys if key in reading.waiting), None)
        if key:
            others[name] = reading.waiting.pop(key)[0]
    counts = (len(others.get("class_token", ())), 0, sum(map(len, others.values())))  # of them with a position
    count = next((n for n in counts if math.isqrt(len(positions) - n) ** 2 == len(positions) - n), None)
    if count is None:
        raise RunError(f"The file has {len(positions)} positions, which are no square grid", remedy="none: the layout "
                       "does not say the grid's sides", expected="a ViT that learnt from square images")
    placed, side = 0, math.isqrt(len(positions) - count)
    for name, tokens in others.items():
        if placed < count:
            tokens = tokens + positions[placed : placed + len(tokens)]
            reading.changed[name] = "its own position added"
            placed += len(tokens)
        reading.tensors["encoder"][name] = tokens
    reading.tensors["encoder"]["position_table"] = positions[count:].unflatten(0, (side, side))


def _ratio(hidden: int, width: int) -> float:
    """A factor of which int(width * factor) is `hidden`."""
    ratio = hidden / width
    return ratio if int(width * ratio) == hidden else math.nextafter(ratio, math.inf)


def _read_mae(reading: Reading, config: Mapping[str, Any]) -> None:
    _read_vit(reading, config)
    reading.encoder["pooled"] = "mean"


def _read_resnet(reading: Reading, config: Mapping[str, Any]) -> None:
    waiting = reading.waiting
    blocks = [len({key.split(".")[1] for key in waiting if key.startswith(f"layer{stage}.")}) for stage in range(1, 5)]
    reading.encoder = {
        "name": "resnet", "channels": waiting["conv1.weight"].shape[1], "dims": 2, "blocks": blocks,
        "block": "bottleneck" if "layer1.0.conv3.weight" in waiting else "basic",
        "widths": [waiting[f"layer{stage}.0.conv1.weight"].shape[0] for stage in range(1, 5)],
        "stem_kernel": waiting["conv1.weight"].shape[2],
    }
    reading.take(r"((?:conv1|bn1|layer[1-4]\.\d+\.(?:conv\d|bn\d|downsample\.[01]))\.\w+)", r"net.\1")


def _read_simsiam(reading: Reading, config: Mapping[str, Any]) -> None:
    for key in [key for key in reading.waiting if re.match(r"encoder\.(?!fc\.)", key)]:
        reading.waiting[key.removeprefix("encoder.")] = reading.waiting.pop(key)
    _read_resnet(reading, config)
    reading.take(r"encoder\.fc\.(?!6\.bias)(.+)", r"\1", "projector")
    reading.take(r"predictor\.(.+)", r"\1", "predictor")


def _read_swin(reading: Reading, config: Mapping[str, Any]) -> None:
    """SwinUNETR's, or its encoder alone as it was pretrained, whose perceptrons have other names."""
    for key in [key for key in reading.waiting if key.startswith("swinViT.")]:
        reading.waiting[key.removeprefix("swinViT.")] = reading.waiting.pop(key)
    reading.take(r"((?:patch_embed|layers[1-4]\.0\.downsample)\..+)", r"net.\1")
    reading.take(r"(layers[1-4]\.0\.blocks\.\d+\.(?:norm\d|attn|mlp\.linear\d)\..+)", r"net.\1")
    reading.take(r"(layers[1-4]\.0\.blocks\.\d+\.mlp\.)fc(\d\..+)", r"net.\1linear\2")
    ours = reading.tensors["encoder"]
    width, channels, patch, *others = ours["net.patch_embed.proj.weight"].shape
    first = "net.layers{}.0.blocks.0.attn.relative_position_{}".format
    tables = [ours[first(stage, "bias_table")] for stage in range(1, 5)]
    dims = 1 + len(others)
    reading.encoder = {
        "name": "swin", "channels": channels, "dims": dims, "width": width, "patch": patch,
        "window": (round(len(tables[0]) ** (1 / dims)) + 1) // 2, "heads": [table.shape[1] for table in tables],
        "depths": [sum(bool(re.fullmatch(rf"net\.layers{stage}\.0\.blocks\.\d+\.norm1\.weight", key)) for key in ours)
                   for stage in range(1, 5)],
    }


VIT_UNUSED = r"(head|fc|pooler|classifier|decoder|lm_head|dino_head|ibot_head|contact_head)\..+|mask_token|decoder_.+"
LAYOUTS = (
    Layout("Hugging Face DINOv2", (r"embeddings\.position_embeddings", r"encoder\.layer\.0\.layer_scale1\.lambda1"),
           VIT_UNUSED, _read_hf_vit),
    Layout("Hugging Face ViT", (r"embeddings\.position_embeddings", r"encoder\.layer\.0\.layernorm_before\.weight"),
           VIT_UNUSED, _read_hf_vit),
    Layout("reference MAE", ("pos_embed", r"blocks\.0\.norm1\.weight", "decoder_pos_embed"), VIT_UNUSED, _read_mae),
    Layout("DINOv2", ("pos_embed", r"blocks\.(0\.)?0\.ls1\.gamma", "mask_token"), VIT_UNUSED, _read_vit),
    Layout("timm ViT", ("pos_embed", r"patch_embed\.proj\.weight", r"blocks\.0\.norm1\.weight"), VIT_UNUSED, _read_vit),
    Layout("reference SimSiam", (r"encoder\.conv1\.weight", r"encoder\.fc\.0\.weight", r"predictor\.0\.weight"),
           r"encoder\.fc\.6\.bias", _read_simsiam),
    Layout("MONAI SwinUNETR", (r"(swinViT\.)?patch_embed\.proj\.weight",
                               r"(swinViT\.)?layers1\.0\.blocks\.0\.attn\.relative_position_bias_table"),
           r"(encoder\d+|decoder\d+|out|rotation_(head|pre)|contrastive_(head|pre)|conv|norm)\..+", _read_swin),
    Layout("torchvision ResNet", (r"conv1\.weight", r"bn1\.weight", r"layer4\.0\.conv1\.weight"), r"fc\..+",
           _read_resnet),
)
"""The first that knows a file's names reads it."""
