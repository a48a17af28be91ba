"""Exemplar: the triplet loss against plain loops, and what it must not depend on."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from medssl.errors import TrainingError
from medssl.objectives.exemplar import triplet_loss


def tensor(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def naive_triplet_loss(first, second, margin):
    """Every anchor, its positive and every negative in turn, and the gradients by the quotient rule."""
    count = len(first)
    views, gradients = (first, second), (np.zeros_like(first), np.zeros_like(second))
    total = closer = active = 0

    def distance(a, b):
        """1 - cos(a, b), and its gradients."""
        size_a, size_b = np.sqrt((a**2).sum()), np.sqrt((b**2).sum())
        cosine = (a * b).sum() / (size_a * size_b)
        return (1 - cosine, -(b / (size_a * size_b) - cosine * a / size_a**2),
                -(a / (size_a * size_b) - cosine * b / size_b**2))

    triplets = [(side, a, n) for side in (0, 1) for a in range(count) for n in range(count) if n != a]
    for side, a, n in triplets:
        near, near_anchor, near_other = distance(views[side][a], views[1 - side][a])
        far, far_anchor, far_other = distance(views[side][a], views[1 - side][n])
        closer += near < far
        if near - far + margin > 0:
            active += 1
            total += (near - far + margin) / len(triplets)
            gradients[side][a] += (near_anchor - far_anchor) / len(triplets)
            gradients[1 - side][a] += near_other / len(triplets)
            gradients[1 - side][n] -= far_other / len(triplets)
    return total, gradients, closer / len(triplets), active / len(triplets)


@pytest.mark.parametrize("margin", [0.1, 0.5])
def test_loss_and_gradient_against_plain_loops(margin):
    first = tensor(6, 9, seed=1).requires_grad_()
    second = (first.detach() + tensor(6, 9, seed=2)).requires_grad_()
    loss, health = triplet_loss(first, second, margin)
    loss.backward()
    truth, gradients, closer, active = naive_triplet_loss(
        first.detach().double().numpy(), second.detach().double().numpy(), margin)
    assert 0 < active < 1, "both sides of the hinge"
    assert loss.item() == pytest.approx(truth, rel=1e-5)
    np.testing.assert_allclose(first.grad.numpy(), gradients[0], atol=1e-6)
    np.testing.assert_allclose(second.grad.numpy(), gradients[1], atol=1e-6)
    assert health["accuracy"].item() == pytest.approx(closer)
    assert health["active_triplets"].item() == pytest.approx(active)


def test_it_knows_only_directions():
    first, second = tensor(5, 8, seed=1), tensor(5, 8, seed=2)
    loss = triplet_loss(first, second, 0.5)[0]
    scale, rotation = tensor(5, 1, seed=3).abs() + 0.1, torch.linalg.qr(tensor(8, 8))[0]
    torch.testing.assert_close(triplet_loss(first * scale, second / scale, 0.5)[0], loss)
    torch.testing.assert_close(triplet_loss(first @ rotation, second @ rotation, 0.5)[0], loss)
    torch.testing.assert_close(triplet_loss(second, first, 0.5)[0], loss)


def test_collapse_costs_the_margin_and_exemplars_apart_cost_nothing():
    together = tensor(1, 8).expand(5, 8)
    assert triplet_loss(together, together, 0.5)[0].item() == pytest.approx(0.5, abs=1e-6)
    apart = torch.eye(8)[:5]
    loss, health = triplet_loss(apart, apart, 0.5)
    assert loss == 0
    assert health["accuracy"] == 1
    assert health["active_triplets"] == 0


def test_bf16_embeddings_are_compared_in_float32():
    first, second = tensor(6, 9, seed=1).bfloat16(), tensor(6, 9, seed=2).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        loss, _ = triplet_loss(first, second, 0.5)
    truth, *_ = naive_triplet_loss(first.double().numpy(), second.double().numpy(), 0.5)
    assert loss.item() == pytest.approx(truth, rel=1e-5)


def test_a_batch_of_one_has_no_negatives():
    with pytest.raises(TrainingError, match="no negatives"):
        triplet_loss(tensor(1, 8), tensor(1, 8), 0.5)
