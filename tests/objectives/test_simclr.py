"""NT-Xent against the formula in loops, its invariances and known values; the head and the health figures."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from medssl.models import ENCODERS
from medssl.objectives.simclr import SimCLR, nt_xent
from medssl.types import Views


def tensor(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@pytest.fixture
def simclr():
    torch.manual_seed(0)
    config = ENCODERS["resnet"].Config(blocks=(1, 1, 1, 1), widths=(4, 4, 8, 8), zero_init_residual=False)
    return SimCLR(ENCODERS["resnet"](config), SimCLR.Config(width=16, temperature=0.5))


def naive_nt_xent(z1, z2, temperature):
    """Equation 1 and algorithm 1 of the paper, view by view: pairs (2k-1, 2k) stand next to each other there.

    Gradient: with unit vectors u, ∂L/∂u_i gathers from every row, then through u = z / |z|.
    """
    z = np.stack([z1, z2], axis=1).reshape(-1, z1.shape[1])
    count = len(z)
    norms = [math.sqrt(sum(value * value for value in row)) for row in z]
    u = [row / norm for row, norm in zip(z, norms, strict=True)]
    loss, by_u = 0.0, np.zeros_like(z)
    for i in range(count):
        j = i + 1 if i % 2 == 0 else i - 1
        weights = {k: math.exp(float(np.dot(u[i], u[k])) / temperature) for k in range(count) if k != i}
        total = sum(weights.values())
        loss -= math.log(weights[j] / total) / count
        for k, weight in weights.items():
            slope = (weight / total - (k == j)) / (temperature * count)
            by_u[i] += slope * u[k]
            by_u[k] += slope * u[i]
    gradient = np.stack([(g - np.dot(g, v) * v) / norm for g, v, norm in zip(by_u, u, norms, strict=True)])
    return loss, gradient[0::2], gradient[1::2]


@pytest.mark.parametrize("temperature", [0.1, 0.5, 2.0])
@pytest.mark.parametrize("shape", [(2, 3), (7, 5)])
def test_loss_and_gradients_against_loops(shape, temperature):
    z1, z2 = tensor(*shape, seed=1).requires_grad_(), tensor(*shape, seed=2).requires_grad_()
    loss, _ = nt_xent(z1, z2, temperature)
    loss.backward()
    truth, gradient1, gradient2 = naive_nt_xent(z1.detach().numpy(), z2.detach().numpy(), temperature)
    assert loss.item() == pytest.approx(truth, abs=1e-12)
    np.testing.assert_allclose(z1.grad.numpy(), gradient1, atol=1e-12)
    np.testing.assert_allclose(z2.grad.numpy(), gradient2, atol=1e-12)


@pytest.mark.parametrize("n", [1, 2, 9])
def test_equal_embeddings_leave_only_guessing(n):
    same = tensor(1, 6).expand(n, 6)
    assert nt_xent(same, same, 0.1)[0].item() == pytest.approx(math.log(2 * n - 1), abs=1e-9)


def test_pairs_alone_on_their_axes():
    """Partners equal, all others orthogonal: -log(e^(1/t) / (e^(1/t) + 2n - 2))."""
    loss, accuracy = nt_xent(torch.eye(4), torch.eye(4), 0.5)
    assert loss.item() == pytest.approx(-math.log(math.exp(2) / (math.exp(2) + 6)), abs=1e-6)
    assert accuracy.item() == 1


def test_only_angles_count_and_no_order_does():
    z1, z2 = tensor(6, 8, seed=1), tensor(6, 8, seed=2)
    loss = nt_xent(z1, z2, 0.2)[0]
    rotation = torch.linalg.qr(tensor(8, 8))[0]
    scale = tensor(6, 1, seed=3).abs() + 0.1
    order = torch.tensor([3, 0, 5, 1, 2, 4])
    for other in [(z1 @ rotation, z2 @ rotation), (z1 * scale, z2 / scale), (z1[order], z2[order]), (z2, z1)]:
        torch.testing.assert_close(nt_xent(*other, 0.2)[0], loss)
    assert abs(nt_xent(z1, z2[order], 0.2)[0] - loss) > 0.01, "a case with another's view is no pair"
    even = torch.arange(6)[:, None] % 2 == 0
    mixed = torch.where(even, z1, z2), torch.where(even, z2, z1)
    torch.testing.assert_close(nt_xent(*mixed, 0.2)[0], loss, msg="which of two views is the first says nothing")


def test_bf16_embeddings_are_compared_in_float32():
    z1, z2 = tensor(16, 32, seed=1).bfloat16(), tensor(16, 32, seed=2).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        loss, _ = nt_xent(z1, z2, 0.1)
    assert loss.dtype == torch.float32
    truth, _, _ = naive_nt_xent(z1.double().numpy(), z2.double().numpy(), 0.1)
    assert loss.item() == pytest.approx(truth, abs=1e-5)


def test_accuracy_counts_the_views_that_find_their_partner():
    z1 = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.1]])
    z2 = torch.tensor([[1.0, 0.1], [0.1, 1.0], [1.0, -0.2]])  # the third pair looks in opposite directions
    assert nt_xent(z1, z2, 0.1)[1].item() == pytest.approx(4 / 6)


def test_head_is_the_papers_codes(simclr):
    hidden, last = (m for m in simclr.projector if isinstance(m, nn.Linear))
    assert (hidden.in_features, hidden.out_features, last.in_features, last.out_features) == (8, 8, 8, 16)
    assert (hidden.bias, last.bias) == (None, None), "a batch norm follows"
    first_norm, last_norm = (m for m in simclr.projector if isinstance(m, nn.BatchNorm1d))
    assert first_norm.bias.requires_grad
    assert last_norm.weight.requires_grad
    assert not last_norm.bias.requires_grad, "the last norm has a scale and no offset"
    assert [isinstance(m, nn.ReLU) for m in simclr.projector] == [False, False, True, False, False]


def test_health_figures(simclr):
    first, second = tensor(4, 1, 40, 40, seed=1, dtype=torch.float32), tensor(4, 1, 40, 40, seed=2, dtype=torch.float32)
    same = simclr(Views((first, first)))[1]
    assert same["alignment"].item() == pytest.approx(1, abs=1e-5)
    assert same["contrastive_accuracy"].item() == 1
    loss, health = simclr(Views((first, second)))
    assert health["alignment"].item() < 0.99
    swapped = simclr(Views((second, first)))[0]
    torch.testing.assert_close(swapped, loss)


def test_the_batch_norms_see_both_views_at_once(simclr):
    """As in the paper's code: the statistics are over all 2n views."""
    seen = []
    simclr.projector[1].register_forward_hook(lambda module, args, output: seen.append(args[0].shape[0]))
    simclr(Views((tensor(3, 1, 40, 40, dtype=torch.float32), tensor(3, 1, 40, 40, dtype=torch.float32))))
    assert seen == [6]
