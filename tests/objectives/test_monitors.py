"""Collapse monitors against definitions by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from medssl.objectives.monitors import effective_rank, feature_std


def tensor(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_feature_std_tells_health_from_collapse():
    assert feature_std(tensor(4000, 64)).item() == pytest.approx(1, abs=0.02)
    assert feature_std(tensor(1, 64).expand(50, 64)).item() == pytest.approx(0, abs=1e-5)
    z = tensor(10, 5)
    by_hand = np.std(z.numpy() / np.linalg.norm(z.numpy(), axis=1, keepdims=True), axis=0, ddof=1).mean() * 5**0.5
    assert feature_std(z).item() == pytest.approx(by_hand, rel=1e-5)


@pytest.mark.parametrize("shape", [(12, 5), (5, 12)])
def test_effective_rank_against_eigenvalues(shape):
    z = tensor(*shape)
    eigenvalues = np.linalg.svd(z.numpy() - z.numpy().mean(0))[1] ** 2
    assert effective_rank(z).item() == pytest.approx(eigenvalues.sum() ** 2 / (eigenvalues**2).sum(), rel=1e-4)


def test_effective_rank_counts_directions():
    directions = torch.linalg.qr(tensor(32, 32))[0][:3]
    z = torch.cat([directions, -directions]) * 7 + 100
    assert effective_rank(z).item() == pytest.approx(3, rel=1e-3)
    assert effective_rank(torch.zeros(6, 32)).item() == 0, "a collapse must not become NaN"


def test_autocast_does_not_round_the_rank():
    z = tensor(12, 40) + 100
    with torch.autocast("cpu", torch.bfloat16):
        inside = effective_rank(z)
    assert inside.item() == effective_rank(z).item()
