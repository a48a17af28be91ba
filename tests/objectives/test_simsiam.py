"""SimSiam's loss, stop-gradient and monitors."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from medssl.models import ENCODERS
from medssl.objectives.simsiam import SimSiam, negative_cosine
from medssl.types import Views


def tensor(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def simsiam():
    torch.manual_seed(0)
    config = ENCODERS["resnet"].Config(blocks=(1, 1, 1, 1), widths=(4, 4, 8, 8), zero_init_residual=False)
    return SimSiam(ENCODERS["resnet"](config), SimSiam.Config(width=16))


def naive_negative_cosine(p, z):
    """Loss, and its gradient with respect to p by the quotient rule: d cos / dp = z / (|p||z|) - cos p / |p|²."""
    total, gradient = 0.0, np.zeros_like(p)
    for b in range(len(p)):
        norm_p, norm_z = np.sqrt(sum(p[b] ** 2)), np.sqrt(sum(z[b] ** 2))
        cosine = sum(p[b] * z[b]) / (norm_p * norm_z)
        total -= cosine / len(p)
        gradient[b] = -(z[b] / (norm_p * norm_z) - cosine * p[b] / norm_p**2) / len(p)
    return total, gradient


def test_loss_and_gradient_against_the_formula():
    p, z = tensor(6, 9, seed=1).requires_grad_(), tensor(6, 9, seed=2)
    loss = negative_cosine(p, z)
    loss.backward()
    truth, gradient = naive_negative_cosine(p.detach().double().numpy(), z.double().numpy())
    assert loss.item() == pytest.approx(truth, abs=1e-6)
    np.testing.assert_allclose(p.grad.numpy(), gradient, atol=1e-6)


def by_definition(x, simsiam):
    """z = G(F(x)) and p = H(z), with the batch norms of both heads written out, from their tensors by name."""
    def normalise(v):
        centred = v - v.mean(0)
        return centred / (centred.square().mean(0) + 1e-5).sqrt()

    g, h = dict(simsiam.projector.named_parameters()), dict(simsiam.predictor.named_parameters())
    v = simsiam.encoder(x).pooled
    for linear, norm in (("0", "1"), ("3", "4")):
        v = (normalise(v @ g[f"{linear}.weight"].T) * g[f"{norm}.weight"] + g[f"{norm}.bias"]).clamp(min=0)
    z = normalise(v @ g["6.weight"].T)
    hidden = (normalise(z @ h["0.weight"].T) * h["1.weight"] + h["1.bias"]).clamp(min=0)
    return z, hidden @ h["3.weight"].T + h["3.bias"]


def test_the_whole_against_its_definition_forward_and_backward(simsiam, monkeypatch):
    """In float64, through both views, both heads and the encoder: no parameter's gradient may differ."""
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)
    simsiam.double()
    for p in simsiam.parameters():
        p.data += 0.1 * torch.rand(p.shape, generator=torch.Generator().manual_seed(p.numel()), dtype=torch.float64)
    first, second = tensor(6, 1, 32, 32, seed=1).double(), tensor(6, 1, 32, 32, seed=2).double()
    loss, _ = simsiam(Views((first, second)))
    gradients = torch.autograd.grad(loss, list(simsiam.parameters()))

    (z1, p1), (z2, p2) = by_definition(first, simsiam), by_definition(second, simsiam)
    constants = z1.detach().clone(), z2.detach().clone()
    cosines = [(p * z).sum(1) / (p.square().sum(1) * z.square().sum(1)).sqrt()
               for p, z in zip((p2, p1), constants, strict=True)]
    truth = -0.5 * (cosines[0].mean() + cosines[1].mean())
    torch.testing.assert_close(loss, truth, rtol=1e-10, atol=1e-12)
    assert abs(loss.item()) > 1e-3
    for (name, _), ours, theirs in zip(simsiam.named_parameters(), gradients,
                                       torch.autograd.grad(truth, list(simsiam.parameters())), strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-8, atol=1e-12), name


def test_loss_knows_only_directions():
    p, z = tensor(5, 8, seed=1), tensor(5, 8, seed=2)
    scale = tensor(5, 1, seed=3).abs() + 0.1
    torch.testing.assert_close(negative_cosine(p * scale, z / scale), negative_cosine(p, z))
    assert negative_cosine(p, 3 * p).item() == pytest.approx(-1, abs=1e-6)
    assert negative_cosine(p, -p).item() == pytest.approx(1, abs=1e-6)
    rotation = torch.linalg.qr(tensor(8, 8))[0]
    torch.testing.assert_close(negative_cosine(p @ rotation, z @ rotation), negative_cosine(p, z), atol=1e-5, rtol=0)


def test_the_target_gets_no_gradient_at_all():
    p, z = tensor(4, 8, seed=1).requires_grad_(), tensor(4, 8, seed=2).requires_grad_()
    negative_cosine(p, z).backward()
    assert z.grad is None
    assert p.grad.abs().max() > 0


def test_the_encoder_learns_through_the_predictor_alone(simsiam):
    """With a predictor that says the same whatever it is given, only the targets could carry gradient. None does."""
    nn.init.zeros_(simsiam.predictor[-1].weight)
    nn.init.ones_(simsiam.predictor[-1].bias)
    loss, _ = simsiam(Views((tensor(4, 1, 40, 40, seed=1), tensor(4, 1, 40, 40, seed=2))))
    loss.backward()
    assert all(not p.grad.any() for p in simsiam.encoder.parameters())
    assert simsiam.predictor[-1].bias.grad.abs().max() > 0


def test_identical_views_and_an_identity_predictor_reach_minus_one(simsiam):
    simsiam.predictor = nn.Identity()
    x = tensor(4, 1, 40, 40)
    assert simsiam(Views((x, x)))[0].item() == pytest.approx(-1, abs=1e-6)


def test_the_views_may_change_places(simsiam):
    first, second = tensor(4, 1, 40, 40, seed=1), tensor(4, 1, 40, 40, seed=2)
    torch.testing.assert_close(simsiam(Views((first, second)))[0], simsiam(Views((second, first)))[0])


def test_heads_are_the_papers(simsiam):
    linear = [m for m in simsiam.projector if isinstance(m, nn.Linear)]
    assert [(m.in_features, m.out_features) for m in linear] == [(8, 8), (8, 8), (8, 16)]
    assert all(m.bias is None for m in linear), "a batch norm follows"
    assert isinstance(simsiam.projector[-1], nn.BatchNorm1d)
    assert not simsiam.projector[-1].affine
    hidden, last = (m for m in simsiam.predictor if isinstance(m, nn.Linear))
    assert (hidden.out_features, hidden.bias) == (4, None)
    assert last.out_features == 16
    assert last.bias is not None


def test_the_predictors_rate_is_fixed_unless_told_otherwise(simsiam):
    assert {id(p) for p in simsiam.fixed_lr_parameters()} == {id(p) for p in simsiam.predictor.parameters()}
    assert SimSiam(simsiam.encoder, SimSiam.Config(width=16, fix_predictor_lr=False)).fixed_lr_parameters() == []
