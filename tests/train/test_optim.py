"""medssl.train.optim: the learning rate's way, parameters that keep theirs, and what is decayed."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from medssl.train.optim import OptimConfig, build_optimizer, set_lr


class Toy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body, self.norm, self.predictor = nn.Linear(3, 4), nn.LayerNorm(4), nn.Linear(4, 2)
        self.frozen = nn.Parameter(torch.zeros(2, 2), requires_grad=False)

    def lr_shares(self) -> dict[str, float]:
        return {}

    def fixed_lr_parameters(self) -> list[nn.Parameter]:
        return list(self.predictor.parameters())


def rates(config: OptimConfig, steps: int) -> list[float]:
    optimizer = build_optimizer(Toy(), config)
    return [set_lr(optimizer, config, step, steps) for step in range(steps)]


def test_warm_up_is_linear_and_the_rest_a_cosine():
    found = rates(OptimConfig(lr=2.0, warmup=0.1), 100)
    assert found[:10] == pytest.approx([0.2 * n for n in range(1, 11)])
    assert found[10] == pytest.approx(2.0)
    assert found[55] == pytest.approx(1.0)
    assert found[70] == pytest.approx(1 + math.cos(math.pi * 60 / 90))
    assert 0 < found[99] < 0.001
    assert found[10:] == sorted(found[10:], reverse=True)


def test_without_warm_up_it_starts_at_the_top():
    assert rates(OptimConfig(lr=3.0, warmup=0.0), 4) == pytest.approx([3.0, 3 * 0.5 * (1 + math.sqrt(0.5)), 1.5,
                                                                       3 * 0.5 * (1 - math.sqrt(0.5))])
    assert rates(OptimConfig(lr=3.0, warmup=0.0), 1) == [3.0]
    assert rates(OptimConfig(lr=3.0, warmup=1.0), 3) == pytest.approx([1.0, 2.0, 3.0])


@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_named_parameters_keep_their_rate(name):
    module, config = Toy(), OptimConfig(name=name, lr=0.5, warmup=0.5)
    optimizer = build_optimizer(module, config)
    for step in (0, 9, 19):
        share = set_lr(optimizer, config, step, 20) / 0.5
        rate = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
        assert {rate[id(p)] for p in module.predictor.parameters()} == {0.5}
        assert [rate[id(p)] for p in module.body.parameters()] == pytest.approx([0.5 * share] * 2)
        assert share < 1 or step == 9


def test_adamw_spares_biases_and_norms_and_sgd_nothing():
    for name, spared in (("adamw", {"body.bias", "norm.weight", "norm.bias", "predictor.bias"}), ("sgd", set())):
        module = Toy()
        optimizer = build_optimizer(module, OptimConfig(name=name, weight_decay=0.3))
        decay = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
        names = {name: decay.get(id(p)) for name, p in module.named_parameters()}
        assert names.pop("frozen") is None
        assert {name for name, value in names.items() if value == 0} == spared
        assert {value for value in names.values() if value} == {0.3}


@pytest.mark.parametrize("wrong", [{"lr": 0}, {"weight_decay": -1}, {"warmup": 5}])
def test_rates_and_shares_that_cannot_be_are_refused(wrong):
    with pytest.raises(ValueError, match="1 validation error"):
        OptimConfig(**wrong)
