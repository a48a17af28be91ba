"""Foreign checkpoints: each layout answers as an independent forward does, and nothing in a file is ever run."""

from __future__ import annotations

import argparse
import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from foreign_nets import drawn, to_hugging_face, vit_answer, vit_shapes
from monai.networks.nets import swin_unetr
from pydantic import TypeAdapter
from safetensors.torch import save_file
from torch import Tensor

from medssl.errors import RunError
from medssl.models import Encoder, EncoderConfig, build_encoder
from medssl.models.cnn import ResNetEncoder
from medssl.models.start import Start, open_start
from medssl.models.weights import known_encoder, save_model
from medssl.objectives.simsiam import SimSiam


def started(path: Path) -> tuple[Start, Encoder, str]:
    """The file, an encoder built as it says and filled from it, in float64, and the account."""
    start = open_start(path)
    encoder = build_encoder(TypeAdapter(EncoderConfig).validate_python(start.encoder))
    account = start.account([start.fill_encoder(encoder)])
    return start, encoder.double().eval(), account


def picture(size: int = 12, channels: int = 3) -> Tensor:
    return torch.randn(2, channels, size, size, generator=torch.Generator().manual_seed(5), dtype=torch.float64)


def agrees(encoder: Encoder, tokens: Tensor, prefix: int, pooled: str) -> None:
    """tokens (B, prefix + N, D) in row-major order of the patches."""
    features = encoder(picture())
    torch.testing.assert_close(features.maps[0].flatten(2).transpose(1, 2), tokens[:, prefix:], rtol=1e-6, atol=1e-6)
    expected = tokens[:, 0] if pooled == "class" else tokens[:, prefix:].mean(1)
    torch.testing.assert_close(features.pooled, expected, rtol=1e-6, atol=1e-6)


# ------------------------------------------------------------------------------------------------ vision transformers

@pytest.mark.parametrize(("changes", "prefix"), [
    ({}, 1),
    ({"registers": 4, "scaled": True, "prefix": 0}, 5),  # DINOv2 with registers as timm has it
    ({"registers": 3, "prefix": 4}, 4),
])
def test_timm(tmp_path, changes, prefix):
    tensors = drawn(vit_shapes(**changes) | {"head.weight": (5, 128), "head.bias": (5,)})
    torch.save({"state_dict": {f"module.{name}": tensor for name, tensor in tensors.items()},
                "args": argparse.Namespace(lr=1), "epoch": 3}, tmp_path / "vit.pth")
    start, encoder, account = started(tmp_path / "vit.pth")
    assert start.layout == "timm ViT"
    agrees(encoder, vit_answer(tensors, picture(), heads=2), prefix, "class")
    assert "left over in the file, not used: 2\n  module.head.bias\n  module.head.weight" in account
    assert "taken off the file's names: module.\n" in account
    assert "number of heads: 2, as ViTs of width 128 have" in account
    assert "whom these weights saw is unknown" in account


@pytest.mark.parametrize("hugging_face", [False, True])
def test_the_distillation_token_of_deit_is_kept(tmp_path, hugging_face):
    tensors = drawn(vit_shapes(registers=1, prefix=2))
    named, token, heads = tensors, "dist_token", ("head.bias", "head_dist.bias")
    if hugging_face:
        named, token = to_hugging_face(tensors, dino=False), "embeddings.distillation_token"
        heads = ("cls_classifier.bias", "distillation_classifier.bias")
    named = {name.replace("embeddings.register_tokens", token).replace("reg_token", token): tensor
             for name, tensor in named.items()} | dict.fromkeys(heads, torch.zeros(5))
    torch.save(named, tmp_path / "deit.pth")
    _, encoder, account = started(tmp_path / "deit.pth")
    agrees(encoder, vit_answer(tensors, picture(), heads=2, eps=1e-12 if hugging_face else 1e-6), 2, "class")
    assert "not used: 2" in account


def test_a_masked_objective_shows_it_some_patches_as_the_reference_mae_does(tmp_path):
    tensors, kept = drawn(vit_shapes(registers=2)), [7, 0, 4]
    torch.save(tensors, tmp_path / "vit.pth")
    encoder = started(tmp_path / "vit.pth")[1]
    visible = encoder.project(encoder.patchify(picture())[:, kept]) + encoder.positions((3, 3), "cpu")[kept]
    expected = vit_answer(tensors, picture(), heads=2, kept=kept)[:, 3:]
    torch.testing.assert_close(encoder.encode(visible), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("chunked", [False, True])
def test_dinov2(tmp_path, chunked):
    tensors = drawn(vit_shapes(registers=2, scaled=True, depth=3))
    named = {name.replace("reg_token", "register_tokens"): tensor for name, tensor in tensors.items()}
    if chunked:  # as its training keeps them: blocks.<chunk>.<block>
        named = {name.replace("blocks.", "blocks.0.").replace("blocks.0.2", "blocks.1.2"): tensor
                 for name, tensor in named.items()}
    teacher = {f"backbone.{name}": tensor for name, tensor in named.items()}
    others = {"backbone.mask_token": torch.zeros(1, 128), "dino_head.mlp.0.weight": torch.zeros(3, 3)}
    torch.save({"teacher": teacher | others}, tmp_path / "dino.pth")
    start, encoder, account = started(tmp_path / "dino.pth")
    assert start.layout == "DINOv2"
    agrees(encoder, vit_answer(tensors, picture(), heads=2), 3, "class")
    assert "  backbone.mask_token\n  dino_head.mlp.0.weight" in account


def test_the_reference_mae_keeps_its_own_table_of_sines_and_drops_its_decoder(tmp_path):
    tensors = drawn(vit_shapes())
    decoder = drawn({"mask_token": (1, 1, 32), "decoder_pos_embed": (1, 10, 32), "decoder_embed.weight": (32, 128),
                     "decoder_blocks.0.norm1.weight": (32,), "decoder_norm.weight": (32,), "decoder_pred.bias": (48,)})
    torch.save({"model": tensors | decoder}, tmp_path / "mae.pth")
    start, encoder, account = started(tmp_path / "mae.pth")
    assert start.layout == "reference MAE"
    agrees(encoder, vit_answer(tensors, picture(), heads=2), 1, "mean")
    assert "not used: 6\n  decoder_blocks.0.norm1.weight" in account


@pytest.mark.parametrize("dino", [False, True])
@pytest.mark.parametrize("kind", ["file", "folder", "without bias"])
def test_hugging_face(tmp_path, dino, kind):
    """RAD-DINO is the second: Dinov2Model's names, and a config.json beside them."""
    tensors = drawn(vit_shapes(scaled=dino))
    if kind == "without bias":
        tensors = {name: tensor for name, tensor in tensors.items() if not name.endswith("qkv.bias")}
    prefix = "" if kind == "folder" else "dinov2." if dino else "vit."
    named = {prefix + name: tensor for name, tensor in to_hugging_face(tensors, dino).items()}
    save_file(named | {"classifier.bias": torch.zeros(2)}, tmp_path / "model.safetensors")
    heads, eps, path = 2, 1e-6 if dino else 1e-12, tmp_path / "model.safetensors"
    if kind == "folder":
        heads, eps, path = 4, 1e-3, tmp_path
        told = {"num_attention_heads": 4, "layer_norm_eps": eps, "hidden_act": "gelu"}
        (tmp_path / "config.json").write_text(json.dumps(told))
    start, encoder, account = started(path)
    assert start.layout == ("Hugging Face DINOv2" if dino else "Hugging Face ViT")
    assert encoder.config.norm_eps == eps
    agrees(encoder, vit_answer(tensors, picture(), heads, eps), 1, "class")
    how = "0, as the file has no such bias" if kind == "without bias" else "joined from query, key and value"
    assert f"adapted, {how}: blocks.0,1.qkv.bias" in account


# -------------------------------------------------------------------------------------------------------------- others

def resnet_shapes(widths: tuple[int, ...] = (6, 8, 10, 12), bottleneck: bool = True) -> dict[str, tuple[int, ...]]:
    """torchvision's names, two blocks a stage."""
    shapes, before = {"conv1.weight": (6, 3, 7, 7)}, 6
    norms = {"bn1": 6}
    for stage, width in enumerate(widths, start=1):
        after = width * (4 if bottleneck else 1)
        for n in range(2):
            kernels = ((before, width, 1), (width, width, 3), (width, after, 1)) if bottleneck else (
                (before, width, 3), (width, width, 3))
            for number, (i, o, side) in enumerate(kernels, start=1):
                shapes[f"layer{stage}.{n}.conv{number}.weight"] = (o, i, side, side)
                norms[f"layer{stage}.{n}.bn{number}"] = o
            if n == 0 and (before != after or stage > 1):
                shapes[f"layer{stage}.0.downsample.0.weight"] = (after, before, 1, 1)
                norms[f"layer{stage}.0.downsample.1"] = after
            before = after
    kinds = ("weight", "bias", "running_mean", "running_var")
    return shapes | {f"{name}.{kind}": (width,) for name, width in norms.items() for kind in kinds}


def resnet_answer(tensors: dict[str, Tensor], x: Tensor) -> Tensor:
    """(B, D): He et al. 2016, with the stride in a bottleneck's middle convolution as torchvision has it."""
    t = {name: tensor.double() for name, tensor in tensors.items()}

    def norm(x: Tensor, name: str) -> Tensor:
        return F.batch_norm(x, *(t[f"{name}.{kind}"] for kind in ("running_mean", "running_var", "weight", "bias")))

    x = F.relu(norm(F.conv2d(x, t["conv1.weight"], stride=2, padding=3), "bn1"))
    x = F.max_pool2d(x, 3, 2, 1)
    for stage, n in ((stage, n) for stage in range(1, 5) for n in range(2)):
        name, stride = f"layer{stage}.{n}", 2 if stage > 1 and n == 0 else 1
        strided = 2 if f"{name}.conv3.weight" in t else 1
        y = x
        for number in range(1, 4 if strided == 2 else 3):
            kernel = t[f"{name}.conv{number}.weight"]
            y = F.conv2d(y, kernel, stride=stride if number == strided else 1, padding=kernel.shape[-1] // 2)
            y = norm(y, f"{name}.bn{number}")
            if f"{name}.conv{number + 1}.weight" in t:
                y = F.relu(y)
        if f"{name}.downsample.0.weight" in t:
            x = norm(F.conv2d(x, t[f"{name}.downsample.0.weight"], stride=stride), f"{name}.downsample.1")
        x = F.relu(x + y)
    return x.mean((2, 3))


@pytest.mark.parametrize("bottleneck", [False, True])
def test_torchvision_resnet(tmp_path, bottleneck):
    tensors = drawn(resnet_shapes(bottleneck=bottleneck))
    np.savez(tmp_path / "resnet.npz", **tensors, **{"fc.weight": np.zeros((3, 12), np.float32)})
    start, encoder, account = started(tmp_path / "resnet.npz")
    assert start.layout == "torchvision ResNet"
    torch.testing.assert_close(encoder(picture(70)).pooled, resnet_answer(tensors, picture(70)))
    assert "missing in the file, kept fresh: net.bn1.num_batches_tracked" in account
    assert "not used: 1\n  fc.weight" in account


def r2plus1d_shapes() -> dict[str, tuple[int, ...]]:
    """torchvision's names, of one block a stage."""
    shapes, norms = {"stem.0.weight": (5, 3, 1, 7, 7), "stem.3.weight": (6, 5, 3, 1, 1)}, {"stem.1": 5, "stem.4": 6}
    before = 6
    for stage, width in enumerate((6, 8, 10, 12), start=1):
        middle = before * width * 27 // (before * 9 + 3 * width)
        for conv, given in (("conv1", before), ("conv2", width)):
            name = f"layer{stage}.0.{conv}"
            shapes |= {f"{name}.0.0.weight": (middle, given, 1, 3, 3), f"{name}.0.3.weight": (width, middle, 3, 1, 1)}
            norms |= {f"{name}.0.1": middle, f"{name}.1": width}
        if stage > 1:
            shapes[f"layer{stage}.0.downsample.0.weight"] = (width, before, 1, 1, 1)
            norms[f"layer{stage}.0.downsample.1"] = width
        before = width
    kinds = ("weight", "bias", "running_mean", "running_var")
    return shapes | {f"{name}.{kind}": (width,) for name, width in norms.items() for kind in kinds}


def r2plus1d_answer(tensors: dict[str, Tensor], x: Tensor) -> Tensor:
    """(B, D) of clips (B, C, T, J, I): Tran et al. 2018, a plain convolution over a plane and one over time in turn."""
    t = {name: tensor.double() for name, tensor in tensors.items()}

    def norm(x: Tensor, name: str) -> Tensor:
        return F.batch_norm(x, *(t[f"{name}.{kind}"] for kind in ("running_mean", "running_var", "weight", "bias")))

    def planes(x: Tensor, kernel: Tensor, stride: int) -> Tensor:
        frames = [F.conv2d(frame, kernel[:, :, 0], stride=stride, padding=kernel.shape[-1] // 2)
                  for frame in x.unbind(2)]
        return torch.stack(frames, 2)

    def times(x: Tensor, kernel: Tensor, stride: int) -> Tensor:
        lines = x.permute(0, 3, 4, 1, 2)  # (B, J, I, C, T)
        moved = F.conv1d(lines.flatten(0, 2), kernel[..., 0, 0], stride=stride, padding=1)
        return moved.unflatten(0, lines.shape[:3]).permute(0, 3, 4, 1, 2)

    x = F.relu(norm(planes(x.double(), t["stem.0.weight"], 2), "stem.1"))
    x = F.relu(norm(times(x, t["stem.3.weight"], 1), "stem.4"))
    for stage in range(1, 5):
        name, stride, y = f"layer{stage}.0", 1 if stage == 1 else 2, x
        for conv, step in (("conv1", stride), ("conv2", 1)):
            y = F.relu(norm(planes(y, t[f"{name}.{conv}.0.0.weight"], step), f"{name}.{conv}.0.1"))
            y = norm(times(y, t[f"{name}.{conv}.0.3.weight"], step), f"{name}.{conv}.1")
            y = F.relu(y) if conv == "conv1" else y
        if stage > 1:
            x = norm(F.conv3d(x, t[f"{name}.downsample.0.weight"], stride=2), f"{name}.downsample.1")
        x = F.relu(x + y)
    return x.mean((2, 3, 4))


def test_torchvision_r2plus1d_as_echonet_saves_it(tmp_path):
    tensors = drawn(r2plus1d_shapes())
    named = {f"module.{name}": tensor for name, tensor in tensors.items()} | {"module.fc.weight": torch.zeros(1, 12)}
    torch.save({"epoch": 3, "state_dict": named}, tmp_path / "echo.pt")
    start, encoder, account = started(tmp_path / "echo.pt")
    clip = torch.randn(2, 3, 7, 20, 18, generator=torch.Generator().manual_seed(2)).double()
    assert start.layout == "torchvision R(2+1)D"
    torch.testing.assert_close(encoder(clip).pooled, r2plus1d_answer(tensors, clip))
    assert "not used: 1" in account


def test_a_small_first_convolution_is_told_to_stride(tmp_path):
    save_file(drawn(resnet_shapes(bottleneck=False) | {"conv1.weight": (6, 3, 3, 3)}), tmp_path / "r.safetensors")
    account = started(tmp_path / "r.safetensors")[2]
    assert "first convolution, 3×3, strides: by 2, with max-pooling" in account
    assert "give an `encoder` with stem_stride: 1 and stem_pool: false" in account


def test_the_reference_simsiam_brings_its_heads(tmp_path):
    tensors, kinds = drawn(resnet_shapes()), ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    heads = {f"encoder.fc.{n}.weight": (48, 48) for n in (0, 3)} | {
        "encoder.fc.6.weight": (16, 48), "encoder.fc.6.bias": (16,), "predictor.0.weight": (4, 16),
        "predictor.3.weight": (16, 4), "predictor.3.bias": (16,)}
    heads |= {f"encoder.fc.{n}.{kind}": (48,) for n in (1, 4) for kind in kinds[:4]}
    heads |= {f"predictor.1.{kind}": (4,) for kind in kinds[:4]}
    heads |= {f"encoder.fc.7.{kind}": (16,) for kind in kinds[2:4]}
    named = {f"encoder.{name}": tensor for name, tensor in tensors.items()} | drawn(heads, seed=1)
    named |= {f"{name}.num_batches_tracked": torch.tensor(7) for name in (
        "encoder.fc.1", "encoder.fc.4", "encoder.fc.7", "predictor.1")}
    torch.save({"state_dict": {f"module.{name}": tensor for name, tensor in named.items()}}, tmp_path / "simsiam.tar")
    start, encoder, _ = started(tmp_path / "simsiam.tar")
    assert start.layout == "reference SimSiam"
    torch.testing.assert_close(encoder(picture(70)).pooled, resnet_answer(tensors, picture(70)))
    objective = SimSiam(encoder, SimSiam.Config(width=16)).float()
    account = start.account([start.fill_encoder(encoder), *start.fill_others(objective)])
    assert torch.equal(objective.projector[6].weight, named["encoder.fc.6.weight"])
    assert torch.equal(objective.predictor[3].bias, named["predictor.3.bias"])
    assert "not used: 1\n  module.encoder.fc.6.bias" in account
    wider = SimSiam(encoder, SimSiam.Config(width=32))
    assert start.fill_others(wider) == [], "heads of another width stay fresh, and are left over"
    assert "  module.encoder.fc.0,1,3,4,6.weight\n" in start.account([])


def _rearranged(x: Tensor, how: str) -> Tensor:
    """The four rearrangements that MONAI asks of einops: channels to the end, and back."""
    return x.movedim(1, -1) if how.split(" -> ")[1].endswith(" c") else x.movedim(-1, 1)


@pytest.mark.parametrize(("dims", "pretrained"), [(3, False), (3, True), (2, False)])
def test_monai_swin_unetr(tmp_path, monkeypatch, dims, pretrained):
    monkeypatch.setattr(swin_unetr, "rearrange", _rearranged)
    torch.manual_seed(0)
    settings = {"feature_size": 12, "spatial_dims": dims, "depths": (2, 1, 1, 1), "window_size": 3}
    net = swin_unetr.SwinUNETR(1, 2, **settings).eval()
    state = net.state_dict()
    if pretrained:  # model_swinvit.pt: the encoder alone, beside the heads that it was pretrained with
        state = {"module." + name.removeprefix("swinViT.").replace("mlp.linear", "mlp.fc"): tensor
                 for name, tensor in state.items() if name.startswith("swinViT.")}
        state = {"state_dict": state | {"module.rotation_head.weight": torch.zeros(4, 8)}}
    torch.save(state, tmp_path / "swin.pt")
    start, encoder, account = started(tmp_path / "swin.pt")
    assert start.layout == "MONAI SwinUNETR"
    x = torch.randn(1, 1, *(32,) * dims, dtype=torch.float64)
    theirs = net.double().swinViT(x, net.normalize)
    for ours, map_ in zip(encoder(x).maps, theirs[::-1], strict=True):
        torch.testing.assert_close(ours, map_)
    assert ("  module.rotation_head.weight" if pretrained else "  decoder1-5.") in account


# ------------------------------------------------------------------------------------------------------------ refusals

class Evil:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize("writer", ["torch", "pickle", "npz"])
def test_a_file_that_would_run_something_is_refused_and_runs_nothing(tmp_path, writer):
    file, trace = tmp_path / f"evil.{'npz' if writer == 'npz' else 'pth'}", tmp_path / "ran"
    contents = {"state_dict": drawn(vit_shapes()), "extra": Evil(trace)}
    if writer == "torch":
        torch.save(contents, file)
    elif writer == "pickle":
        file.write_bytes(pickle.dumps(contents, protocol=2))
    else:
        np.savez(file, cls_token=np.array([Evil(trace)], dtype=object))
    with pytest.raises(RunError, match="cannot be read.*nothing in a file is ever run.*safetensors") as caught:
        open_start(file)
    assert not trace.exists()
    assert "weights_only" not in str(caught.value)
    assert "\x1b" not in str(caught.value)
    assert "holds more than tensors" in str(caught.value)


@pytest.mark.parametrize("name", ["cut.safetensors", "cut.pth", "cut.npz"])
def test_a_damaged_file_is_refused(tmp_path, name):
    (tmp_path / name).write_bytes(b"PK\x03\x04" + bytes(50))
    with pytest.raises(RunError, match="cannot be read"):
        open_start(tmp_path / name)


def test_an_unknown_layout_lists_the_known_ones_and_the_first_names(tmp_path):
    save_file({f"trunk.{n}.w": torch.zeros(1) for n in range(20)}, tmp_path / "x.safetensors")
    with pytest.raises(RunError, match=r"(?s)of its 20 names.*trunk\.0\.w.*timm ViT.*MONAI SwinUNETR"):
        open_start(tmp_path / "x.safetensors")


@pytest.mark.parametrize(("extra", "missing", "told"), [
    ({"blocks.0.attn.q_norm.weight": (64,)}, None, r"(?s)look like a timm ViT.*q_norm"),  # normalised queries
    ({}, "blocks.1.attn.proj.bias",
     r"(?s)vit.safetensors, of layout timm ViT,.*blocks.1.out.bias is missing.*encoder: \d+ matched"),
    ({}, "norm.weight", r"norm.weight is missing"),
])
def test_what_would_change_the_answers_is_refused(tmp_path, extra, missing, told):
    tensors = drawn(vit_shapes() | extra)
    tensors.pop(missing, None)
    save_file(tensors, tmp_path / "vit.safetensors")
    with pytest.raises(RunError, match=told):
        started(tmp_path / "vit.safetensors")


@pytest.mark.parametrize(("first", "dino"), [("fc1", True), ("weights_in", True), ("w12", False), ("fc1_g", False),
                                             ("packed", False)])
def test_swiglu_is_refused_by_name(tmp_path, first, dino):
    tensors = drawn(vit_shapes(scaled=True, hidden=64))
    if dino:
        tensors = to_hugging_face(tensors, dino=True)
        (tmp_path / "config.json").write_text(json.dumps({"use_swiglu_ffn": first == "fc1"}))
    if first == "packed":  # both halves in the first matrix, as timm has it
        tensors = {name: torch.cat([tensor, tensor]) if "mlp.fc1" in name else tensor
                   for name, tensor in tensors.items()}
    else:
        tensors = {name.replace("mlp.fc1", f"mlp.{first}"): tensor for name, tensor in tensors.items()}
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(RunError, match=r"model.safetensors look like a .*SwiGLU.*smaller model"):
        open_start(tmp_path / "model.safetensors")


@pytest.mark.parametrize(("change", "told"), [
    ({"layer1.0.conv2.weight": (6, 3, 3, 3)}, "in groups, as ResNeXt"),
    ({"layer1.0.conv3.weight": (12, 6, 1, 1)}, "as a wide ResNet"),
    ({"conv1.weight": (6, 3, 7, 7, 7)}, r"conv1.weight has the shape \(6, 3, 7, 7, 7\).*4 axes"),
])
def test_a_resnet_of_another_kind_is_refused_by_name(tmp_path, change, told):
    save_file(drawn(resnet_shapes() | change), tmp_path / "r.safetensors")
    with pytest.raises(RunError, match=f"r.safetensors look like a torchvision ResNet, but their .*{told}"):
        open_start(tmp_path / "r.safetensors")


def swin_shapes() -> dict[str, tuple[int, ...]]:
    table = "layers{}.0.blocks.0.attn.relative_position_bias_table"
    return {"patch_embed.proj.weight": (12, 1, 2, 2)} | {table.format(stage): (25, 3) for stage in range(1, 5)}


@pytest.mark.parametrize(("layout", "tensors", "missing"), [
    ("timm ViT", vit_shapes(), "blocks.0.mlp.fc1.weight"),
    ("DINOv2", vit_shapes(scaled=True) | {"mask_token": (1, 128)}, "patch_embed.proj.weight"),
    ("reference MAE", vit_shapes() | {"decoder_pos_embed": (1, 10, 32)}, "patch_embed.proj.weight"),
    ("torchvision ResNet", resnet_shapes(), "layer3.0.conv1.weight"),
    ("torchvision ResNet", resnet_shapes(), "layer1.0.conv2.weight"),
    ("MONAI SwinUNETR", swin_shapes(), "layers4.0.blocks.0.attn.relative_position_bias_table"),
])
def test_what_a_layout_cannot_be_read_without_is_named(tmp_path, layout, tensors, missing):
    save_file(drawn({name: shape for name, shape in tensors.items() if name != missing}), tmp_path / "cut.safetensors")
    with pytest.raises(RunError, match=f"cut.safetensors look like a {layout}, but they have no {missing}.*state_dict"):
        open_start(tmp_path / "cut.safetensors")


@pytest.mark.parametrize(("missing", "told"), [
    ("embeddings.patch_embeddings.projection.weight", "embeddings.patch_embeddings.projection.weight"),
    ("encoder.layer.1.attention.attention.key.weight", "blocks.1.attn.key.weight"),
    ("encoder.layer.0.output.dense.weight", "blocks.0.mlp.fc2.weight"),
])
def test_a_hugging_face_file_that_is_not_whole_says_what_it_lacks(tmp_path, missing, told):
    tensors = to_hugging_face(drawn(vit_shapes()), dino=False)
    del tensors[missing]
    save_file(tensors, tmp_path / "cut.safetensors")
    with pytest.raises(RunError, match=f"look like a Hugging Face ViT.* they have no {told}"):
        open_start(tmp_path / "cut.safetensors")


@pytest.mark.parametrize("text", ["{", "[1, 2]", "\"vit\""])
def test_a_config_that_is_none_is_refused(tmp_path, text):
    save_file(to_hugging_face(drawn(vit_shapes()), dino=False), tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(RunError, match=r"config.json is not a model's config.json.*JSON, an object"):
        open_start(tmp_path)


def test_two_models_in_one_file_do_not_overwrite_each_other(tmp_path):
    tensors = drawn(vit_shapes())
    torch.save(tensors | {f"module.{name}": tensor + 1 for name, tensor in tensors.items()}, tmp_path / "two.pth")
    with pytest.raises(RunError, match=r"module.cls_token and another would both be cls_token.*one model"):
        open_start(tmp_path / "two.pth")


def test_names_are_only_the_same_once_all_are_renamed(tmp_path):
    tensors = drawn(vit_shapes())
    torch.save({f"module.{name}": tensor for name, tensor in tensors.items() if name != "cls_token"}
               | {"cls_token": tensors["cls_token"]}, tmp_path / "vit.pth")
    started(tmp_path / "vit.pth")
    torch.save({".": torch.zeros(1), "..": torch.zeros(1)}, tmp_path / "dots.pth")
    with pytest.raises(RunError, match="layout of the weights .* is unknown"):
        open_start(tmp_path / "dots.pth")


def test_the_weights_of_a_run_are_the_runs_whatever_is_named(tmp_path):
    encoder = ResNetEncoder(ResNetEncoder.Config(blocks=(1, 1, 1, 1), widths=(4, 6, 8, 10), stem_pool=False))
    save_model(tmp_path / "run", {"encoder": encoder}, {"patients_seen": ["a1"]})
    start = open_start(tmp_path / "run/model.safetensors")
    assert start.patients_known
    assert start.description["patients_seen"] == ["a1"]
    (tmp_path / "alone.safetensors").write_bytes((tmp_path / "run/model.safetensors").read_bytes())
    with pytest.raises(RunError, match="without the model.json that says whom they saw.*name the folder of the run"):
        open_start(tmp_path / "alone.safetensors")


def test_a_prefix_that_every_name_has_is_taken_off_and_told(tmp_path):
    torch.save({f"trunk.model.{name}": tensor for name, tensor in drawn(vit_shapes()).items()}, tmp_path / "vit.pth")
    assert "taken off the file's names: trunk.model.\n" in started(tmp_path / "vit.pth")[2]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_that_are_none_are_refused_where_they_would_be_used(tmp_path, value):
    tensors = drawn(vit_shapes() | {"head.weight": (5, 128)})
    tensors["head.weight"][0] = value
    torch.save(tensors, tmp_path / "vit.pth")
    started(tmp_path / "vit.pth")
    tensors["blocks.1.attn.qkv.bias"][7] = value
    torch.save(tensors, tmp_path / "vit.pth")
    with pytest.raises(RunError, match=r"vit.pth look like.* 1 of .* NaN or infinity, blocks.1.attn.qkv.bias first"):
        open_start(tmp_path / "vit.pth")


def test_an_encoder_that_cannot_be_guessed_is_asked_for(tmp_path):
    torch.save(drawn(vit_shapes(width=200)), tmp_path / "vit.pth")
    with pytest.raises(RunError, match=r"vit.pth cannot be built: width 200 must be a multiple of heads 3.*`encoder`"):
        known_encoder(open_start(tmp_path / "vit.pth").encoder, tmp_path / "vit.pth")


@pytest.mark.parametrize(("files", "told"), [
    (None, r"No file or folder .*x\. Expected the folder of a run, a file of weights"),
    ([], "is no run and has no weights.*check the path"),
    (["net.pth"], r"is no run and has no weights.*name one of its files, such as .*net\.pth"),
    (["model.safetensors"], "no config.json.*put the config.json"),
    (["config.json", "model.safetensors.index.json", "model-00001-of-00002.safetensors"],
     "lie in several files.*join them.*max_shard_size"),
    (["recipe.yaml", "model.safetensors"], "has not finished"),
])
def test_where_there_is_nothing_to_start_from_it_says_what_there_is(tmp_path, files, told):
    if files is not None:
        (tmp_path / "x").mkdir()
    for name in files or []:
        (tmp_path / "x" / name).touch()
    with pytest.raises(RunError, match=told):
        open_start(tmp_path / "x")
