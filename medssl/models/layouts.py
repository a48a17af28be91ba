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
OTHER_WEIGHTS = "take other weights, of those that docs/weights.md lists, or pretrain anew"


@dataclass
class Reading:
    """What a layout's reader makes of a file. Tensors that it takes leave `waiting`; see `start.Start` for the rest.

    what: the file and whose it seems to be, for messages.
    named: {name under which a tensor waits: its name in the file}; taken: {part.name: the same}.
    """

    waiting: dict[str, Tensor]
    what: str = ""
    named: dict[str, str] = field(default_factory=dict)
    taken: dict[str, str] = field(default_factory=dict)
    encoder: dict[str, Any] = field(default_factory=dict)
    tensors: dict[str, dict[str, Tensor]] = field(default_factory=lambda: {"encoder": {}})
    changed: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.named = {name: name for name in self.waiting}

    def take(self, pattern: str, name: str, part: str = "encoder") -> None:
        """Moves every tensor whose name matches to `name`, a template as re.sub has it."""
        place = self.tensors.setdefault(part, {})
        for new, told, tensor in self._renamed(pattern, name):
            self._require_free(new, place, told)
            self.taken[f"{part}.{new}"], place[new] = told, tensor

    def rename(self, pattern: str, name: str) -> None:
        """The same, but they wait on."""
        for new, told, tensor in self._renamed(pattern, name):
            self._require_free(new, self.waiting, told)
            self.named[new], self.waiting[new] = told, tensor

    def need(self, name: str, *axes: int) -> torch.Size:
        """The shape of a waiting tensor without which the layout cannot be read, and which has so many axes."""
        if name not in self.waiting:
            raise self.refuse(f"they have no {name}", "every tensor of the encoder",
                              "save the model's whole state_dict")
        shape = self.waiting[name].shape
        if len(shape) not in axes:
            raise self.refuse(f"their {self.named[name]} has the shape {tuple(shape)}",
                              f"{' or '.join(map(str, axes))} axes")
        return shape

    def refuse(self, why: str, expected: str, remedy: str = OTHER_WEIGHTS) -> RunError:
        return RunError(f"{self.what}, but {why}", expected=expected, remedy=remedy)

    def _renamed(self, pattern: str, name: str) -> list[tuple[str, str, Tensor]]:
        """New name, the file's name and tensor of each that matches; they wait no more."""
        matches = [match for key in self.waiting if (match := re.fullmatch(pattern, key))]
        return [(match.expand(name), self.named.pop(match.string), self.waiting.pop(match.string)) for match in matches]

    def _require_free(self, new: str, place: Tensors, told: str) -> None:
        if new in place:
            raise self.refuse(f"{told} and another would both be {new}", "one tensor of each name",
                              "save the state_dict of the one model that you mean")


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
    r"embeddings\.distillation_token": "dist_token",
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
    r"blocks\.(\d+)\.(norm[12])\.(weight|bias)": r"blocks.\1.\2.\3",
    r"blocks\.(\d+)\.attn\.qkv\.(weight|bias)": r"blocks.\1.qkv.\2",
    r"blocks\.(\d+)\.attn\.proj\.(weight|bias)": r"blocks.\1.out.\2",
    r"blocks\.(\d+)\.mlp\.fc1\.(weight|bias)": r"blocks.\1.mlp.0.\2",
    r"blocks\.(\d+)\.mlp\.fc2\.(weight|bias)": r"blocks.\1.mlp.2.\2",
    r"blocks\.(\d+)\.ls([12])\.gamma": r"blocks.\1.scale\2.factor",
    r"norm\.(weight|bias)": r"norm.\1",
}


def _read_hf_vit(reading: Reading, config: Mapping[str, Any]) -> None:
    if config.get("hidden_act", "gelu") != "gelu":
        raise reading.refuse(f"their config.json says hidden_act {config['hidden_act']!r}", "'gelu'")
    reading.need("embeddings.patch_embeddings.projection.weight", 4)
    for pattern, name in HF_TO_TIMM.items():
        reading.rename(pattern, name)
    reading.what += " (in timm's names)"
    for key in [key for key in reading.waiting if re.fullmatch(r"blocks\.\d+\.attn\.query\.(weight|bias)", key)]:
        three = [key.replace("query", each) for each in ("query", "key", "value")]
        for each in three:
            reading.need(each, reading.waiting[key].ndim)
        joined = key.replace(".query", ".qkv")
        reading.waiting[joined] = torch.cat([reading.waiting.pop(each) for each in three])
        reading.named[joined] = reading.named[key]
        reading.changed[joined.replace(".attn", "")] = "joined from query, key and value"
    scaled = any(key.endswith(".ls1.gamma") for key in reading.waiting)
    _read_vit(reading, {"layer_norm_eps": 1e-6 if scaled else 1e-12, **config})


def _read_vit(reading: Reading, config: Mapping[str, Any]) -> None:
    """timm's names, which DINOv2 and the reference MAE share."""
    reading.rename(r"blocks\.\d+\.(\d+\..+)", r"blocks.\1")  # DINOv2's training keeps them in chunks
    width, channels, *patch = reading.need("patch_embed.proj.weight", 4)
    hidden = _hidden_width(reading, config)
    _take_tokens(reading)
    for pattern, name in TIMM_TO_OURS.items():
        reading.take(pattern, name)
    ours = reading.tensors["encoder"]
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
        "mlp_ratio": _ratio(hidden, width), "positions": "learned",
        "class_token": "class_token" in ours, "pooled": "class" if "class_token" in ours else "mean",
        "registers": len(ours.get("register_tokens", ())), "norm_eps": config.get("layer_norm_eps", 1e-6),
        "layer_scale": config.get("layerscale_value", 1e-5) if "blocks.0.scale1.factor" in ours else None,
    }


def _hidden_width(reading: Reading, config: Mapping[str, Any]) -> int:
    """Of the perceptrons, which SwiGLU's make in two halves, by names of their own or in one tensor."""
    gates = r"blocks\.0\.mlp\.(w\d+|weights_in|fc1_[gx])\.weight"
    gated = config.get("use_swiglu_ffn") or any(re.fullmatch(gates, key) for key in reading.waiting)
    if not gated:
        hidden = reading.need("blocks.0.mlp.fc1.weight", 2)[0]
        gated = hidden != reading.need("blocks.0.mlp.fc2.weight", 2)[1]
    if gated:
        raise reading.refuse("their perceptrons are SwiGLU's", "GELU's",
                             "take a smaller model of the family; of DINOv2 only ViT-g has SwiGLU")
    return hidden


def _take_tokens(reading: Reading) -> None:
    """The tokens beside the patches with their own positions added, and the patches' positions as (*grid, D).

    DeiT's distillation token is, to the class token and the patches, a register.
    """
    reading.need("pos_embed", 3)
    positions, others = reading.waiting.pop("pos_embed")[0], {}
    for name, keys in {"class_token": ("cls_token",),
                       "register_tokens": ("register_tokens", "reg_token", "dist_token")}.items():
        key = next((key for key in keys if key in reading.waiting), None)
        if key:
            reading.need(key, 3)
            others[name] = reading.waiting.pop(key)[0]
    counts = (len(others.get("class_token", ())), 0, sum(map(len, others.values())))  # of them with a position
    count = next((n for n in counts if math.isqrt(max(len(positions) - n, 0)) ** 2 == len(positions) - n), None)
    if count is None:
        raise reading.refuse(f"their {len(positions)} positions are no square grid", "a ViT that learnt from square "
                             "images: the layout does not say the grid's sides")
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
    _, channels, side, _ = reading.need("conv1.weight", 4)
    widths = [reading.need(f"layer{stage}.0.conv1.weight", 4)[0] for stage in range(1, 5)]
    blocks = [len({key.split(".")[1] for key in reading.waiting if key.startswith(f"layer{stage}.")})
              for stage in range(1, 5)]
    bottleneck = "layer1.0.conv3.weight" in reading.waiting
    _require_plain_blocks(reading, bottleneck)
    if side != 7:
        reading.notes.append(
            f"the file does not say how its first convolution, {side}×{side}, strides: by 2, with max-pooling after "
            "it; if wrong, give an `encoder` with stem_stride: 1 and stem_pool: false in a pretraining recipe")
    reading.encoder = {
        "name": "resnet", "channels": channels, "dims": 2, "blocks": blocks, "widths": widths,
        "block": "bottleneck" if bottleneck else "basic", "stem_kernel": side,
    }
    reading.take(r"((?:conv1|bn1|layer[1-4]\.\d+\.(?:conv\d|bn\d|downsample\.[01]))\.\w+)", r"net.\1")


def _require_plain_blocks(reading: Reading, bottleneck: bool) -> None:
    inner, taken, *_ = reading.need("layer1.0.conv2.weight", 4)
    if inner != taken:
        raise reading.refuse("their convolutions are in groups, as ResNeXt's", "a ResNet without groups")
    if bottleneck and reading.need("layer1.0.conv3.weight", 4)[0] != 4 * inner:
        raise reading.refuse("their bottlenecks are not a quarter of what they put out, as a wide ResNet's",
                             "a plain ResNet")


def _read_simsiam(reading: Reading, config: Mapping[str, Any]) -> None:
    reading.rename(r"encoder\.(?!fc\.)(.+)", r"\1")
    _read_resnet(reading, config)
    reading.take(r"encoder\.fc\.(?!6\.bias)(.+)", r"\1", "projector")
    reading.take(r"predictor\.(.+)", r"\1", "predictor")


def _read_swin(reading: Reading, config: Mapping[str, Any]) -> None:
    """SwinUNETR's, or its encoder alone as it was pretrained, whose perceptrons have other names."""
    reading.rename(r"swinViT\.(.+)", r"\1")
    width, channels, patch, *others = reading.need("patch_embed.proj.weight", 4, 5)
    tables = [reading.need(f"layers{stage}.0.blocks.0.attn.relative_position_bias_table", 2) for stage in range(1, 5)]
    dims = 1 + len(others)
    reading.encoder = {
        "name": "swin", "channels": channels, "dims": dims, "width": width, "patch": patch,
        "window": (round(tables[0][0] ** (1 / dims)) + 1) // 2, "heads": [heads for _, heads in tables],
        "depths": [sum(bool(re.fullmatch(rf"layers{stage}\.0\.blocks\.\d+\.norm1\.weight", key))
                       for key in reading.waiting) for stage in range(1, 5)],
    }
    reading.take(r"((?:patch_embed|layers[1-4]\.0\.downsample)\..+)", r"net.\1")
    reading.take(r"(layers[1-4]\.0\.blocks\.\d+\.(?:norm\d|attn|mlp\.linear\d)\..+)", r"net.\1")
    reading.take(r"(layers[1-4]\.0\.blocks\.\d+\.mlp\.)fc(\d\..+)", r"net.\1linear\2")


def _read_r2plus1d(reading: Reading, config: Mapping[str, Any]) -> None:
    stem, channels, *_ = reading.need("stem.0.weight", 5)
    reading.encoder = {
        "name": "r2plus1d", "channels": channels, "stem_width": stem,
        "widths": [reading.need(f"layer{stage}.0.conv1.0.3.weight", 5)[0] for stage in range(1, 5)],
        "blocks": [len({key.split(".")[1] for key in reading.waiting if key.startswith(f"layer{stage}.")})
                   for stage in range(1, 5)],
    }
    reading.take(r"((?:stem\.\d|layer[1-4]\.\d+\.(?:conv\d\.\d(?:\.\d)?|downsample\.[01]))\.\w+)", r"\1")


VIT_UNUSED = (r"(head|head_dist|fc|pooler|classifier|\w+_classifier|decoder|lm_head|dino_head|ibot_head|contact_head)"
              r"\..+|mask_token|decoder_.+")
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
    Layout("torchvision R(2+1)D", (r"stem\.0\.weight", r"layer1\.0\.conv1\.0\.0\.weight"), r"fc\..+", _read_r2plus1d),
    Layout("torchvision ResNet", (r"conv1\.weight", r"bn1\.weight", r"layer4\.0\.conv1\.weight"), r"fc\..+",
           _read_resnet),
)
"""The first that knows a file's names reads it."""
