"""medssl.train.loop: a run that was stopped ends bit for bit like one that was not, and a NaN ends it with advice."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from small_sets import SMALL
from torch import Tensor, nn

from medssl.augment.policy import PolicyConfig, ViewPolicy
from medssl.data.loader import Loader
from medssl.data.source import DataConfig, open_data
from medssl.errors import TrainingError
from medssl.train import checkpoint
from medssl.train.checkpoint import Progress, load_checkpoint
from medssl.train.loop import TrainConfig, fit
from medssl.train.optim import build_optimizer
from medssl.train.pretrain import PretrainConfig, pretrain
from medssl.types import Views, ViewSpec


class Stopped(Exception):
    pass


def metrics(folder: Path) -> list[dict]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "seconds"} for line in lines]


def same_weights(a: Path, b: Path) -> bool:
    ours, theirs = (load_file(folder / "model.safetensors") for folder in (a, b))
    return ours.keys() == theirs.keys() and all(torch.equal(ours[key], theirs[key]) for key in ours)


@pytest.mark.parametrize("objective", [
    SMALL["objective"], {"name": "simsiam", "width": 16},
], ids=["noise and AdamW", "batch norm and SGD"])
def test_a_stopped_run_goes_on_as_if_nothing_had_happened(tmp_path, discs, monkeypatch, objective):
    sgd = {"optim": {"name": "sgd", "lr": 0.05}} if objective["name"] == "simsiam" else {}
    train = {**SMALL["train"], "steps": 12, "checkpoint_seconds": 0.0, **sgd}
    config = PretrainConfig.model_validate({**SMALL, "data": discs, "objective": objective, "train": train})
    data = open_data(discs)
    pretrain(config, tmp_path / "whole", data=data)

    def stop(done: int, total: int, note: str) -> None:
        if done == 9:
            raise Stopped

    def save_at_five(folder, module, optimizer, progress: Progress) -> None:
        if progress.step == 5:
            checkpoint.save_checkpoint(folder, module, optimizer, progress)

    with monkeypatch.context() as patch:
        patch.setattr("medssl.train.loop.save_checkpoint", save_at_five)
        with pytest.raises(Stopped):
            pretrain(config, tmp_path / "parts", data=data, progress=stop)
    assert [line["step"] for line in metrics(tmp_path / "parts")] == [0, 2, 4, 6, 8]
    torch.manual_seed(99)
    pretrain(config, tmp_path / "parts", data=data)
    assert same_weights(tmp_path / "whole", tmp_path / "parts")
    assert metrics(tmp_path / "whole") == metrics(tmp_path / "parts")
    assert [line["step"] for line in metrics(tmp_path / "parts")] == [0, 2, 4, 6, 8, 10, 11]
    losses = [json.loads((tmp_path / name / "provenance.json").read_text())["loss"] for name in ("whole", "parts")]
    assert losses[0] == losses[1]


def test_stopped_after_the_last_step_it_still_knows_its_loss(tmp_path, discs):
    config = PretrainConfig.model_validate({**SMALL, "data": discs})
    data = open_data(discs)
    pretrain(config, tmp_path / "run", data=data)
    loss = json.loads((tmp_path / "run/provenance.json").read_text())["loss"]
    (tmp_path / "run/model.json").unlink()
    pretrain(config, tmp_path / "run", data=data)
    assert json.loads((tmp_path / "run/provenance.json").read_text())["loss"] == loss
    assert math.isfinite(loss)


class Toy(nn.Module):
    """Loss 1 + w · mean(image); NaN once, when asked."""

    def __init__(self, bad_call: int | None = None, gain: float = 1.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.calls, self.bad_call, self.gain = 0, bad_call, gain

    def fixed_lr_parameters(self) -> list[nn.Parameter]:
        return []

    def forward(self, views: Views) -> tuple[Tensor, dict[str, Tensor]]:
        self.calls += 1
        loss = 1 + self.gain * (self.weight * views.images[0].mean()).sum()
        return (loss * math.nan if self.calls == self.bad_call else loss), {"weight": self.weight.detach().sum()}


def run(module: Toy, discs: DataConfig, folder: Path | None, **train):
    data = open_data(discs)
    loader = Loader(data.cache, data.cases["case_id"].to_list(), discs.box, 4, seed=0)
    config = TrainConfig.model_validate({"precision": "float32", "steps": 10, "log_every": 1, **train})
    return fit(module, loader, ViewPolicy(PolicyConfig(), ViewSpec(), 0), config, folder)


def test_a_loss_that_is_no_number_says_where_and_what_to_do(tmp_path, discs):
    with pytest.raises(TrainingError) as caught:
        run(Toy(bad_call=7), discs, tmp_path, checkpoint_seconds=0, optim={"lr": 0.25, "warmup": 0})
    told = str(caught.value)
    for part in ("nan at step 6", "learning rate 0.0864", "lower train.optim.lr", "last checkpoint is kept"):
        assert part in told
    module = Toy()
    config = TrainConfig()
    found = load_checkpoint(tmp_path / "checkpoints", module, build_optimizer(module, config.optim))
    assert found.step == 6
    assert torch.isfinite(module.weight).all()
    run(Toy(), discs, tmp_path, optim={"lr": 0.25, "warmup": 0})
    assert [line["step"] for line in metrics(tmp_path)] == list(range(10))


def test_gradients_are_clipped_to_the_norm_asked_for(discs):
    sgd = {"optim": {"name": "sgd", "lr": 1.0, "warmup": 0, "weight_decay": 0, "momentum": 0}, "steps": 1}
    free, clipped = Toy(gain=100.0), Toy(gain=100.0)
    run(free, discs, None, **sgd)
    run(clipped, discs, None, clip=0.5, **sgd)
    assert abs(float(free.weight.detach())) > 10
    assert abs(float(clipped.weight.detach())) == pytest.approx(0.5, rel=1e-4)


def test_loss_is_the_mean_of_the_last_tenth(tmp_path, discs):
    fitted = run(Toy(), discs, tmp_path, steps=20, optim={"lr": 0.1})
    assert fitted.loss == pytest.approx(np.mean([line["loss"] for line in metrics(tmp_path)][-2:]), rel=1e-5)
    assert run(Toy(), discs, None, steps=3).loss < 1


def test_without_a_folder_nothing_is_written(tmp_path, discs, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run(Toy(), discs, None, steps=2)
    assert list(tmp_path.iterdir()) == []
