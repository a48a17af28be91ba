"""Activation checkpointing: less is kept, and nothing else changes."""

from __future__ import annotations

import pytest
import torch
from pydantic import TypeAdapter
from torch.autograd.graph import saved_tensors_hooks

from medssl.augment import PolicyConfig, ViewPolicy
from medssl.errors import ConfigError
from medssl.models import EncoderConfig, TokenDecoder, build_encoder
from medssl.models.activations import checkpoint_activations
from medssl.objectives.mae import MAE
from medssl.types import Batch

VIT = {"name": "vit", "size": (16, 16, 16), "patch": (4, 4, 4), "width": 24, "depth": 3, "heads": 2, "drop_path": 0.5}
SWIN = {"name": "swin", "dims": 3, "width": 6, "window": 2, "depths": (2, 1, 1, 1), "heads": (1, 2, 3, 3),
        "drop_path": 0.5}
RESNET = {"name": "resnet", "dims": 2, "blocks": (1, 1, 1, 1), "widths": (4, 6, 8, 10)}


def encoder(settings):
    torch.manual_seed(0)
    return build_encoder(TypeAdapter(EncoderConfig).validate_python(settings))


def encoded(settings):
    """An encoder, and its loss on a batch."""
    net, x = encoder(settings), torch.randn(4, 1, *[32 if settings is SWIN else 16] * 3)
    return net, lambda: sum((one.float() ** 2).mean() for one in net(x).maps)


def masked():
    """A MAE, whose decoder is checkpointed too, and its loss."""
    mae = MAE(encoder(VIT), MAE.Config(decoder=TokenDecoder.Config(width=16, depth=2, heads=2)))
    batch = Batch([f"case{b}" for b in range(4)], torch.randn(4, 1, 16, 16, 16))
    views = ViewPolicy(PolicyConfig(), mae.view_spec, seed=0)(batch)
    return mae, lambda: mae(views)[0]


CASES = {"vit": (lambda: encoded(VIT), 3), "swin": (lambda: encoded(SWIN), 5), "mae": (masked, 3 + 2)}


def learnt(module, loss, bf16):
    """The loss, the gradients, and the bytes that were kept for the backward pass."""
    kept = []

    def pack(tensor):
        kept.append(tensor.nbytes)
        return tensor

    torch.manual_seed(1)  # which samples skip which branch
    with saved_tensors_hooks(pack, lambda tensor: tensor), torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        value = loss()
    value.backward()
    gradients = {name: p.grad for name, p in module.named_parameters() if p.grad is not None}
    module.zero_grad()
    return value, gradients, sum(kept)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("bf16", [False, True])
def test_loss_gradients_and_names_stay_and_less_is_kept(case, bf16):
    (module, loss), blocks = CASES[case][0](), CASES[case][1]
    names = list(module.state_dict())
    before, gradients, kept = learnt(module.train(), loss, bf16)
    assert checkpoint_activations(module) == blocks
    after, again, kept_now = learnt(module, loss, bf16)
    assert torch.equal(before, after)
    assert gradients.keys() == again.keys()
    for name in gradients:
        assert torch.equal(gradients[name], again[name]), name
    assert kept_now < 0.6 * kept
    assert list(module.state_dict()) == names


def test_a_sample_that_skipped_a_block_skips_it_again():
    """The draws above must have mattered, or they prove nothing."""
    module, loss = encoded(VIT)
    checkpoint_activations(module.train())
    torch.manual_seed(1)
    first = loss()
    assert not torch.equal(first, loss())


def test_a_compiled_step_is_still_one_graph():
    mae, loss = masked()
    checkpoint_activations(mae)
    torch._dynamo.reset()
    explained = torch._dynamo.explain(loss)()
    assert explained.graph_break_count == 0, [reason.reason for reason in explained.break_reasons]


def test_a_batch_norm_would_track_twice_so_it_is_refused_with_the_way_out():
    with pytest.raises(ConfigError, match=r"ResNetEncoder.*statistics twice.*train\.checkpoint_activations=false"):
        checkpoint_activations(encoder(RESNET))
