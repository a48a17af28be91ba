"""The N-D ViT: patches, positions and attention against references written another way."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import nn
from torch.autograd.graph import saved_tensors_hooks

from medssl.errors import ConfigError
from medssl.models import ViT
from medssl.models.vit import FUSED_FROM, Block, attention, sincos_positions

axes = st.lists(st.tuples(st.integers(1, 4), st.integers(1, 4)), min_size=2, max_size=3)  # (grid, patch) along each


def make(size, patch, channels=1, **settings):
    torch.manual_seed(0)
    small = {"width": 24, "depth": 2, "heads": 2, **settings}
    return ViT(ViT.Config(size=tuple(size), patch=tuple(patch), channels=channels, **small))


@given(axes=axes, channels=st.integers(1, 3), batch=st.integers(1, 2))
@settings(max_examples=40, deadline=None)
def test_patchify_is_cutting_and_unpatchify_undoes_it(axes, channels, batch):
    grid, patch = zip(*axes, strict=True)
    size = [g * p for g, p in axes]
    vit = make(size, patch, channels)
    x = torch.arange(batch * channels * math.prod(size), dtype=torch.float32).reshape(batch, channels, *size)
    patches = vit.patchify(x)
    for n, place in enumerate(itertools.product(*(range(g) for g in grid))):
        box = tuple(slice(i * p, (i + 1) * p) for i, p in zip(place, patch, strict=True))
        assert torch.equal(patches[:, n], x[(slice(None), slice(None), *box)].flatten(1))
    assert torch.equal(vit.unpatchify(patches, grid), x)


@pytest.mark.parametrize(("size", "patch"), [((16, 24), (8, 4)), ((4, 8, 12), (2, 4, 4))])
def test_embedding_is_the_convolution_it_is_stored_as(size, patch):
    vit = make(size, patch, channels=3)
    x = torch.randn(2, 3, *size)
    convolved = vit.embedding(x).flatten(2).transpose(1, 2)
    torch.testing.assert_close(vit.project(vit.patchify(x)), convolved, rtol=1e-4, atol=1e-5)


def test_embedding_chosen_patches_is_embedding_all_and_choosing():
    vit = make((16, 24), (4, 4), channels=2)
    x, index = torch.randn(2, 2, 16, 24), torch.tensor([[3, 0, 11], [7, 8, 23]])
    chosen = torch.stack([vit.patchify(x)[b, index[b]] for b in range(2)])
    some = vit.project(chosen) + vit.positions(vit.grid, x.device)[index]
    every = vit.embed(x)
    torch.testing.assert_close(some, torch.stack([every[b, index[b]] for b in range(2)]))


def naive_positions(grid, width):
    count = width // (2 * len(grid))
    rows = []
    for place in itertools.product(*(range(n) for n in grid)):
        row = []
        for coordinate in place:
            row += [math.sin(coordinate / 10000 ** (k / count)) for k in range(count)]
            row += [math.cos(coordinate / 10000 ** (k / count)) for k in range(count)]
        rows.append(row + [0.0] * (width - len(row)))
    return np.array(rows)


@pytest.mark.parametrize(("grid", "width"), [((3, 5), 16), ((2, 3, 4), 18), ((2, 3, 4), 32)])
def test_positions_against_the_formula(grid, width):
    ours = sincos_positions(grid, width, torch.device("cpu"))
    np.testing.assert_allclose(ours.numpy(), naive_positions(grid, width), atol=1e-6)


def test_positions_of_another_grid_span_the_same_picture():
    vit = make((32, 32), (4, 4))
    coarse, fine = vit.positions((8, 8), "cpu"), vit.positions((16, 16), "cpu")
    assert torch.equal(coarse, sincos_positions((8, 8), 24, "cpu"))
    # Cell (i, j) lies in the middle of the four fine cells that it holds; slow waves are linear at that scale.
    middle = fine.unflatten(0, (16, 16))[4:6, 4:6].mean((0, 1))
    slow = [k for k in range(24) if k % 6 >= 3]
    torch.testing.assert_close(middle[slow], coarse.unflatten(0, (8, 8))[2, 2][slow], rtol=0, atol=1e-3)


def test_it_takes_pictures_of_another_size():
    vit = make((16, 16), (4, 4))
    assert vit(torch.randn(1, 1, 24, 8)).maps[0].shape == (1, 24, 6, 2)


def naive_attention(q, k, v):
    out = np.zeros_like(v)
    for b, h, n in itertools.product(*(range(s) for s in q.shape[:3])):
        scores = np.array([q[b, h, n] @ k[b, h, m] / math.sqrt(q.shape[3]) for m in range(k.shape[2])])
        weights = np.exp(scores - scores.max())
        out[b, h, n] = (weights / weights.sum()) @ v[b, h]
    return out


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
def test_attention_against_loops(dtype, tolerance):
    q, k, v = torch.randn(3, 2, 2, 5, 8, generator=torch.Generator().manual_seed(0)).to(dtype)
    ours = attention(q, k, v)
    assert ours.dtype == dtype
    truth = naive_attention(*(t.float().numpy() for t in (q, k, v)))
    np.testing.assert_allclose(ours.float().numpy(), truth, atol=tolerance)


def test_attention_to_many_tokens_keeps_no_weights_in_bf16():
    q, k, v = torch.randn(3, 1, 1, FUSED_FROM, 8, generator=torch.Generator().manual_seed(0)).bfloat16()
    kept = []
    with saved_tensors_hooks(lambda t: kept.append(t.numel()) or t, lambda t: t):
        ours = attention(q.requires_grad_(), k, v)
    assert max(kept) < FUSED_FROM**2
    truth = torch.nn.functional.scaled_dot_product_attention(*(t.float() for t in (q, k, v)))
    torch.testing.assert_close(ours.float(), truth, rtol=0, atol=2e-2)


def test_block_agrees_with_torchs_own_layer_forward_and_backward():
    torch.manual_seed(0)
    block = Block(16, 4)
    torchs = nn.TransformerEncoderLayer(16, 4, 64, 0.0, nn.GELU(), 1e-6, batch_first=True, norm_first=True)
    pairs = {
        "self_attn.in_proj_weight": block.qkv.weight, "self_attn.in_proj_bias": block.qkv.bias,
        "self_attn.out_proj.weight": block.out.weight, "self_attn.out_proj.bias": block.out.bias,
        "linear1.weight": block.mlp[0].weight, "linear1.bias": block.mlp[0].bias,
        "linear2.weight": block.mlp[2].weight, "linear2.bias": block.mlp[2].bias,
        "norm1.weight": block.norm1.weight, "norm1.bias": block.norm1.bias,
        "norm2.weight": block.norm2.weight, "norm2.bias": block.norm2.bias,
    }  # fmt: skip
    torchs.load_state_dict({name: tensor.detach().clone() for name, tensor in pairs.items()})
    x = torch.randn(2, 7, 16)
    ours, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
    a, b = block(ours), torchs(theirs)
    torch.testing.assert_close(a, b)
    (a**2).sum().backward()
    (b**2).sum().backward()
    torch.testing.assert_close(ours.grad, theirs.grad)
    for name, parameter in pairs.items():
        torch.testing.assert_close(parameter.grad, torchs.get_parameter(name).grad, rtol=1e-4, atol=1e-5)


def test_a_block_that_leaves_tokens_out_still_attends_to_them():
    torch.manual_seed(0)
    block, x = Block(16, 4), torch.randn(2, 7, 16)
    whole, rest = x.clone().requires_grad_(), x.clone().requires_grad_()
    a, b = block(whole)[:, 3:], block(rest, first=3)
    torch.testing.assert_close(a, b)
    (a**2).sum().backward()
    (b**2).sum().backward()
    torch.testing.assert_close(whole.grad, rest.grad)
    assert rest.grad[:, :3].abs().max() > 0


def test_tokens_may_come_in_any_order():
    vit = make((16, 16), (4, 4))
    tokens, order = vit.embed(torch.randn(1, 1, 16, 16)), torch.randperm(16)
    torch.testing.assert_close(vit.encode(tokens[:, order]), vit.encode(tokens)[:, order], rtol=1e-4, atol=1e-5)


def test_stochastic_depth_keeps_the_mean_and_rests_in_eval():
    torch.manual_seed(0)
    block = Block(8, 2, drop_path=0.5)
    branch = torch.ones(4000, 1, 8)
    dropped = block._dropped(branch)
    assert set(dropped.unique().tolist()) == {0.0, 2.0}
    assert dropped.mean().item() == pytest.approx(1, abs=0.06)
    assert torch.equal(block.eval()._dropped(branch), branch)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"size": (60, 64)}, "multiple of patch"),
        ({"patch": (2, 8, 8)}, "axes"),
        ({"heads": 5}, "multiple of heads"),
    ],
)
def test_a_config_that_does_not_fit_is_refused(wrong, message):
    with pytest.raises(ValidationError, match=message):
        ViT.Config(**{"size": (64, 64), "patch": (8, 8), **wrong})


def test_a_picture_that_patches_do_not_fill_is_refused():
    with pytest.raises(ConfigError, match=r"\(30, 16\) cannot be cut into patches of \(4, 4\)"):
        make((16, 16), (4, 4))(torch.zeros(1, 1, 30, 16))


def test_tokens_without_a_place_are_seen_by_all_and_counted_by_nobody():
    vit = make((16, 16), (4, 4), class_token=True, registers=2)
    x = torch.randn(1, 1, 16, 16)
    features = vit(x)
    assert features.maps[0].shape == (1, 24, 4, 4)
    torch.testing.assert_close(features.pooled, features.maps[0].flatten(2).mean(2))
    assert vit.encode(vit.embed(x)[:, :5]).shape == (1, 5, 24)
    for name in ("class_token", "register_tokens"):
        with torch.no_grad():
            getattr(vit, name).add_(1)
        assert not torch.allclose(vit(x).pooled, features.pooled)
        features = vit(x)


def test_the_class_token_can_stand_for_the_picture():
    with pytest.raises(ValidationError, match="needs class_token"):
        make((16, 16), (4, 4), pooled="class")
    vit, x = make((16, 16), (4, 4), class_token=True, registers=1, pooled="class"), torch.randn(2, 1, 16, 16)
    tokens = torch.cat([vit.class_token.expand(2, 1, -1), vit.register_tokens.expand(2, 1, -1), vit.embed(x)], 1)
    for block in vit.blocks:
        tokens = block(tokens)
    torch.testing.assert_close(vit(x).pooled, vit.norm(tokens)[:, 0])


def test_learned_positions_are_stretched_over_another_grid():
    vit = make((16, 16), (4, 4), positions="learned")
    assert torch.equal(vit.positions((4, 4), "cpu"), vit.position_table.flatten(0, 1))
    nn.init.ones_(vit.position_table)
    torch.testing.assert_close(vit.positions((6, 2), "cpu"), torch.ones(12, 24))


def test_layer_scale_starts_every_block_near_the_identity():
    vit = make((16, 16), (4, 4), layer_scale=1e-6)
    tokens = vit.embed(torch.randn(1, 1, 16, 16))
    torch.testing.assert_close(vit.encode(tokens), vit.norm(tokens), rtol=1e-3, atol=1e-3)
    vit.encode(tokens).pow(3).sum().backward()
    assert vit.blocks[0].scale1.factor.grad.abs().max() > 0
