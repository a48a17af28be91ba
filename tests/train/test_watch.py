"""medssl.train.watch: runs that really collapse and really diverge are stopped, and runs that learn are not."""

from __future__ import annotations

import json
import math
from dataclasses import asdict

import numpy as np
import pytest
import torch
from small_sets import SMALL
from torch import nn

from medssl.augment.policy import ViewPolicy
from medssl.data.loader import Loader
from medssl.data.source import Data, DataConfig, open_data
from medssl.errors import TrainingError
from medssl.objectives import OBJECTIVES, simsiam
from medssl.rng import stream
from medssl.train.optim import build_optimizer, set_lr
from medssl.train.pretrain import PretrainConfig, fitted_objective
from medssl.train.watch import LOOKS, START, STEPS, SUSTAINED, Watch

RESNET = {"name": "resnet", "blocks": [1, 1, 1, 1], "widths": [4, 4, 8, 16], "stem_kernel": 3}
VIT = {"name": "vit", "width": 16, "depth": 1, "heads": 2, "patch": [8, 8]}
PAINTERS = {"masked_reconstruction", "inpainting", "context_restoration"}
AUGMENT = {"spatial": {"scale": [0.4, 1.0], "flip": {"i": 0.5}},
           "intensity": [{"name": "jitter", "brightness": 0.5, "contrast": 0.5}]}
SGD = {"name": "sgd", "lr": 0.1, "weight_decay": 0.0001}
MAE = {"name": "mae", "decoder": {"width": 16, "depth": 1, "heads": 2}}
SIMSIAM = {"name": "simsiam", "width": 64}


@pytest.fixture(scope="module")
def opened(discs: DataConfig) -> Data:
    return open_data(discs)


def train(data: Data, objective: dict, optim: dict, steps: int, encoder: dict = RESNET, without_norm: bool = False,
          batch_size: int = 16) -> list[tuple[float, dict[str, float]]]:
    """The loss and the health of every step, until a watch stops it."""
    config = PretrainConfig.model_validate({
        **SMALL, "data": data.config, "encoder": encoder, "objective": objective, "augment": AUGMENT,
        "train": {"steps": steps, "batch_size": batch_size, "optim": optim}})
    torch.manual_seed(0)
    module, _ = fitted_objective(config, data, None)
    if without_norm:
        module.projector[-1] = nn.Identity()
    loader = Loader(data.cache, data.cases.filter(data.cases["split"] == "train")["case_id"].to_list(),
                    config.data.box, batch_size, seed=0)
    policy, optimizer = ViewPolicy(config.augment, module.view_spec, 0), build_optimizer(module, config.train.optim)
    watch, history = Watch(), []
    for step, batch in enumerate(loader.batches(0, steps)):
        set_lr(optimizer, config.train.optim, step, steps)
        loss, health = module(policy(batch))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        history.append((loss.item(), {name: float(value) for name, value in health.items()}))
        watch.see(step, *history[-1])
    return history


def replayed(history: list[tuple[float, dict[str, float]]], watch: Watch, first: int = 0) -> int | None:
    """The step, from the first on, at which a watch stops it."""
    for step, seen in enumerate(history[first:], start=first):
        try:
            watch.see(step, *seen)
        except TrainingError:
            return step
    return None


@pytest.fixture
def no_stop_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the paper's section 4.1 shows to collapse."""
    monkeypatch.setattr(simsiam, "negative_cosine", lambda p, z: -nn.functional.cosine_similarity(p, z, dim=1).mean())


def test_a_collapse_to_a_line_is_stopped(opened, no_stop_gradient):
    with pytest.raises(TrainingError) as caught:
        train(opened, SIMSIAM, SGD, 200)
    told = str(caught.value)
    for part in ("collapsed to a line: feature_std 0.", "effective_rank 1", "no better since step",
                 "Expected a feature_std near 1", "train.batch_size", "train.optim.lr", "augment.spatial",
                 "objective.fix_predictor_lr=true", "train.watch=false", "another --out", "in this folder"):
        assert part in told


def test_a_collapse_to_a_point_is_stopped(opened, no_stop_gradient):
    with pytest.raises(TrainingError, match=r"collapsed to a point: feature_std 0\.0\d+ and effective_rank"):
        train(opened, SIMSIAM, SGD, 200, without_norm=True)


def test_a_divergence_is_stopped(opened):
    with pytest.raises(TrainingError) as caught:
        train(opened, MAE, {"lr": 10.0, "warmup": 0.5}, 500, VIT, batch_size=8)
    told = str(caught.value)
    for part in ("The loss diverges: ", f"for the last {SUSTAINED} steps", "lower train.optim.lr", "train.optim.warmup",
                 "train.clip=1.0", "train.watch=false"):
        assert part in told


@pytest.mark.parametrize("name", OBJECTIVES)
def test_a_run_that_learns_is_left_alone(opened, name):
    objective = {"simsiam": SIMSIAM, "mae": MAE, "masked_reconstruction": SMALL["objective"]}.get(name, {"name": name})
    encoder, optim = {"mae": (VIT, {}), **dict.fromkeys(PAINTERS, (SMALL["encoder"], {}))}.get(name, (RESNET, SGD))
    history = train(opened, objective, optim, START + SUSTAINED + 5, encoder, batch_size=8)
    assert all(math.isfinite(loss) for loss, _ in history)


def test_the_keys_of_the_advice_are_a_recipe_s(discs):
    PretrainConfig.model_validate({
        **SMALL, "data": discs, "objective": {"name": "simsiam", "fix_predictor_lr": True},
        "augment": {"spatial": {}, "intensity": []},
        "train": {"batch_size": 8, "clip": 1.0, "optim": {"lr": 0.1, "warmup": 0.1}}})


GOOD, LINE, POINT = ({"feature_std": spread, "effective_rank": rank}
                     for spread, rank in ((0.9, 12.0), (0.6, 1.01), (0.02, 1.3)))
STORIES = {
    "line": [(-0.5, GOOD)] * 30 + [(-0.9, LINE)] * 100,
    "point, seldom read": [(-0.9, (POINT if step > 40 else GOOD) if step % 10 == 0 else {}) for step in range(140)],
    "never sound": [(-0.9, POINT)] * 800,
    "diverging": [(1.0 + 0.2 * math.sin(step), {}) for step in range(60)] + [(4.0, {})] * 200,
    "a cosine": [(-0.02 * (-1) ** step, {}) for step in range(60)] + [(2.0, {})] * 200,
}


@pytest.mark.parametrize("story", STORIES)
@pytest.mark.parametrize("break_at", [3, 25, 47, 77])
def test_a_resumed_run_stops_at_the_very_step_of_an_uninterrupted_one(story, break_at):
    history = STORIES[story]
    stopped = replayed(history, Watch())
    assert stopped is not None
    watch = Watch()
    assert replayed(history[:break_at], watch) is None
    again = Watch(**json.loads(json.dumps(asdict(watch))))
    assert replayed(history, again, break_at) == stopped


def test_a_collapse_is_several_looks_and_dozens_of_steps_old():
    assert replayed(STORIES["line"], Watch()) == 30 + STEPS
    assert replayed(STORIES["point, seldom read"], Watch()) == 50 + STEPS
    seldom = [(-0.9, (POINT if step else GOOD) if step % 40 == 0 else {}) for step in range(400)]
    assert replayed(seldom, Watch()) == LOOKS * 40
    recovering = [(0.0, POINT if step % 40 else GOOD) for step in range(1000)]
    assert replayed(recovering, Watch()) is None


def test_an_embedding_that_never_was_sound_is_given_time():
    assert replayed(STORIES["never sound"], Watch()) == 10 * STEPS
    slow = [(0.5, POINT)] * (10 * STEPS) + [(0.4, GOOD)] * 1000
    assert replayed(slow, Watch()) is None


@pytest.mark.parametrize("health", [
    {"feature_std": 1.2, "effective_rank": 1.0}, {"feature_std": math.nan, "effective_rank": 0.9},
    {"effective_rank": math.nan}, {"explained_variance": 0.0, "masked_error": 0.0},
], ids=["a batch of two", "a batch of one", "no number", "a painter's"])
def test_figures_that_tell_nothing_stop_nobody(health):
    assert replayed([(0.5, health)] * 1000, Watch()) is None


def test_a_loss_three_times_its_start_is_a_divergence_after_a_while_only():
    start = [(0.5, {})] * 200
    assert 200 + SUSTAINED < replayed(start + [(1.6, {})] * 300, Watch()) < 200 + 2 * SUSTAINED
    assert replayed(start + [(1.4, {})] * 1000, Watch()) is None
    assert replayed(start + [(1e12, {})] * 20 + [(0.5, {})] * 1000, Watch()) is None
    assert replayed([(8.0 / (1 + step), {}) for step in range(1000)], Watch()) is None


@pytest.mark.parametrize("bound", [(-1, 1), (0, 1), (-1, 0.2)])
def test_a_bounded_loss_never_diverges_by_noise(bound):
    for seed in range(20):
        noise = stream("noise", seed).uniform(*bound, 3000)
        assert replayed([(float(loss), {}) for loss in noise], Watch()) is None


def test_a_loss_with_outliers_does_not_diverge_while_it_stays_as_it_is():
    for seed in range(50):
        squares = np.square(stream("outliers", seed).normal(size=(3000, 2))).mean(axis=1)  # batches of two
        assert replayed([(float(loss), {}) for loss in squares], Watch()) is None
