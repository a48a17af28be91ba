"""Synchronised batch norm against torch's own on the whole batch. Two threads stand in for two processes here.

tests/objectives/test_distributed.py has real processes.
"""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import nn

from medssl.models import batchnorm
from medssl.models.batchnorm import SynchronisedBatchNorm, synchronise_batch_norms

KINDS = {nn.BatchNorm1d: (), nn.BatchNorm2d: (5, 4), nn.BatchNorm3d: (3, 4, 2)}


def tensor(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 3 + 50


def filled(norm):
    norm = norm.double()
    for p, seed in zip(norm.parameters(), (1, 2), strict=False):
        nn.init.normal_(p, generator=torch.Generator().manual_seed(seed))
    return norm


@pytest.fixture
def together(monkeypatch):
    """A function that gives two norms a part of the batch each, at the same time."""
    barrier, shown, own = threading.Barrier(2, timeout=20), {}, threading.local()

    def gathered(x):
        shown[own.rank] = x
        barrier.wait()
        everyones = torch.cat([shown[0], shown[1]])
        barrier.wait()
        return everyones

    def call(rank, norm, part):
        own.rank = rank
        return norm(part)

    def run(norms, parts):
        with ThreadPoolExecutor(2) as threads:
            return torch.cat(list(threads.map(call, range(2), norms, parts)))

    monkeypatch.setattr(batchnorm, "processes", lambda: 2)
    monkeypatch.setattr(batchnorm, "gathered", gathered)
    return run


@pytest.mark.parametrize("settings", [{}, {"affine": False}, {"momentum": None}, {"track_running_stats": False}])
@pytest.mark.parametrize("kind", KINDS)
def test_unequal_parts_equal_the_whole(kind, settings, together):
    x, weight = tensor(8, 6, *KINDS[kind]), tensor(8, 6, *KINDS[kind], seed=3)
    whole_x, parts_x = x.clone().requires_grad_(), x.clone().requires_grad_()
    whole = filled(kind(6, **settings))
    norms = [synchronise_batch_norms(filled(kind(6, **settings))) for _ in range(2)]
    for _ in range(2):  # the running statistics move twice
        expected, found = whole(whole_x), together(norms, parts_x.split([3, 5]))
    torch.testing.assert_close(found, expected)
    (expected * weight).sin().sum().backward()
    (found * weight).sin().sum().backward()
    torch.testing.assert_close(parts_x.grad, whole_x.grad)
    for ours, theirs in zip(zip(*(n.parameters() for n in norms), strict=True), whole.parameters(), strict=True):
        torch.testing.assert_close(ours[0].grad + ours[1].grad, theirs.grad)
    for norm in norms:
        for ours, theirs in zip(norm.buffers(), whole.buffers(), strict=True):
            torch.testing.assert_close(ours, theirs)


def test_bf16_comes_back_as_bf16_and_is_summed_in_float32(together):
    x = tensor(8, 6, 4, 4).bfloat16()
    norms = [synchronise_batch_norms(nn.BatchNorm2d(6)) for _ in range(2)]
    found = together(norms, x.split(4))
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found, nn.BatchNorm2d(6)(x.float()).bfloat16())


def test_evaluation_asks_nobody(together):
    norm = synchronise_batch_norms(nn.BatchNorm2d(6)).eval()
    x = tensor(2, 6, 4, 4).float()
    torch.testing.assert_close(norm(x), nn.BatchNorm2d(6).eval()(x))


def test_alone_it_is_the_plain_one():
    x = tensor(8, 6, 4, 4).float()
    norm, plain = synchronise_batch_norms(nn.BatchNorm2d(6)), nn.BatchNorm2d(6)
    assert torch.equal(norm(x), plain(x))
    assert torch.equal(norm.running_var, plain.running_var)
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        norm(x[:1, :, :1, :1])


def test_conversion_keeps_tensors_names_and_what_is_not_a_batch_norm():
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Sequential(nn.InstanceNorm2d(4), nn.GroupNorm(2, 4)))
    net[1].bias.requires_grad_(False)
    before, kinds = net.state_dict(keep_vars=True), [type(m) for m in net.modules()]
    assert synchronise_batch_norms(net) is net
    after = net.state_dict(keep_vars=True)
    assert list(after) == list(before)
    assert all(after[name] is before[name] for name in before)
    kinds[kinds.index(nn.BatchNorm2d)] = SynchronisedBatchNorm
    assert [type(m) for m in net.modules()] == kinds
