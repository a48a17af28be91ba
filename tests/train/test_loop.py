"""medssl.train.loop: a run that was stopped ends bit for bit like one that was not, and a NaN ends it with advice."""

from __future__ import annotations

import json
import math
import shutil
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
from medssl.errors import ConfigError, TrainingError
from medssl.train import checkpoint
from medssl.train.checkpoint import Progress, load_checkpoint
from medssl.train.launch import alone
from medssl.train.loop import TrainConfig, fit
from medssl.train.optim import build_optimizer
from medssl.train.pace import PACE
from medssl.train.pretrain import PretrainConfig, pretrain
from medssl.types import Views, ViewSpec


class Stopped(Exception):
    pass


def metrics(folder: Path) -> list[dict]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key not in ("seconds", *PACE)} for line in lines]


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

    save = checkpoint.save_checkpoint

    def save_at_five(folder, world, module, optimizer, progress: Progress) -> None:
        if progress.step == 5:
            save(folder, world, module, optimizer, progress)

    with monkeypatch.context() as patch:
        patch.setattr("medssl.train.checkpoint.save_checkpoint", save_at_five)
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
    """Loss 1 + w · mean(image); NaN in some calls, when asked. Counts its calls in a buffer, too."""

    per_sample = True

    def __init__(self, *bad_calls: int, gain: float = 1.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.register_buffer("counted", torch.zeros(()))
        self.calls, self.bad_calls, self.gain = 0, bad_calls, gain

    def lr_shares(self) -> dict[str, float]:
        return {}

    def fixed_lr_parameters(self) -> list[nn.Parameter]:
        return []

    def forward(self, views: Views) -> tuple[Tensor, dict[str, Tensor]]:
        self.calls += 1
        self.counted += 1
        loss = 1 + self.gain * (self.weight * views.images[0].mean()).sum()
        return (loss * math.nan if self.calls in self.bad_calls else loss), {"weight": self.weight.detach().sum()}


def run(module: Toy, discs: DataConfig, folder: Path | None, progress=None, **train):
    data = open_data(discs)
    loader = Loader(data.cache, data.cases["case_id"].to_list(), discs.box, 4, seed=0)
    config = TrainConfig.model_validate({"precision": "float32", "steps": 10, "batch_size": 4, "log_every": 1, **train})
    return fit(module, loader, ViewPolicy(PolicyConfig(), ViewSpec(), 0), config, folder, progress)


def test_a_step_whose_loss_is_no_number_is_left_out_and_told(tmp_path, discs, caplog):
    module, clean = Toy(4, 8), Toy()
    run(module, discs, tmp_path / "bad", checkpoint_seconds=0)
    run(clean, discs, tmp_path / "clean")
    assert module.counted == 8  # of ten calls: the buffers are as if the two had not been
    assert torch.isfinite(module.weight).all()
    assert [line["step"] for line in metrics(tmp_path / "bad")] == list(range(10))
    assert caplog.text.count("this step was left out") == 2
    assert "The loss is nan at step 3" in caplog.text


def test_a_gradient_that_is_no_number_is_not_stepped_along(discs):
    module = Toy()
    module.weight.register_hook(lambda gradient: gradient * (math.inf if module.calls == 3 else 1.0))
    run(module, discs, None, steps=5)
    assert torch.isfinite(module.weight).all()


def test_losses_that_are_no_numbers_any_more_say_where_and_what_to_do(tmp_path, discs):
    with pytest.raises(TrainingError) as caught:
        run(Toy(5, 6, 7), discs, tmp_path, checkpoint_seconds=0, optim={"lr": 0.25, "warmup": 0})
    told = str(caught.value)
    for part in ("nan at step 6", "learning rate 0.0864", "3 steps in a row", "lower train.optim.lr",
                 "which is of before these steps"):
        assert part in told
    module = Toy()
    optimizer = build_optimizer(module, TrainConfig().optim)
    found = load_checkpoint(tmp_path / "checkpoints", alone(), module, optimizer)
    assert (found.step, found.refused) == (4, 0)
    assert torch.isfinite(module.weight).all()
    run(Toy(), discs, tmp_path, optim={"lr": 0.25, "warmup": 0})
    assert [line["step"] for line in metrics(tmp_path)] == list(range(10))


def test_a_batch_in_parts_is_the_same_batch(discs):
    whole, parts = Toy(), Toy()
    fits = [run(module, discs, None, accumulate=accumulate) for module, accumulate in ((whole, 1), (parts, 3))]
    assert parts.calls == 3 * whole.calls
    torch.testing.assert_close(parts.weight, whole.weight)
    assert fits[0].loss == pytest.approx(fits[1].loss)
    with pytest.raises(ConfigError, match="train.accumulate is 5, and a process has 4 cases"):
        run(Toy(), discs, None, accumulate=5)


def test_parts_follow_the_recipe_of_the_day_and_are_never_empty(tmp_path, discs):
    with pytest.raises(Stopped):
        run(Toy(), discs, tmp_path / "fewer", accumulate=4, progress=stop_at(5), checkpoint_seconds=0)
    run(Toy(), discs, tmp_path / "fewer", accumulate=1)
    assert [line["parts"] for line in metrics(tmp_path / "fewer")] == [4] * 5 + [1] * 5
    hungry = Hungry(room=1)
    with pytest.raises(Stopped):
        run(hungry, discs, tmp_path / "halved", progress=stop_at(5), checkpoint_seconds=0)
    run(hungry, discs, tmp_path / "halved", accumulate=2)
    assert [line["parts"] for line in metrics(tmp_path / "halved")] == [4] * 10


def stop_at(step: int):
    def stop(done: int, total: int, note: str) -> None:
        if done == step:
            raise Stopped
    return stop


class Hungry(Toy):
    """Has no room for more than `room` cases."""

    def __init__(self, room: int, per_sample: bool = True) -> None:
        super().__init__()
        self.room, self.per_sample = room, per_sample

    def forward(self, views: Views) -> tuple[Tensor, dict[str, Tensor]]:
        if len(views.images[0]) > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")
        return super().forward(views)


def test_a_loss_per_sample_goes_on_in_smaller_parts_and_records_it(tmp_path, discs, caplog):
    hungry, fed = Hungry(room=1), Toy()
    run(hungry, discs, tmp_path)
    run(fed, discs, None)
    torch.testing.assert_close(hungry.weight, fed.weight)
    assert "takes its 4 cases in 4 parts" in caplog.text
    assert [line["parts"] for line in metrics(tmp_path)] == [4] * 10
    assert json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[0])["step"] == 0


@pytest.mark.parametrize(("room", "told"), [
    (2, "a batch of 2 fitted when it was tried just now.*in another --out, with train.batch_size=2"),
    (0, "not even one case fitted.*smaller views"),
])
def test_other_losses_stop_with_a_checkpoint_and_name_a_batch_that_fits(tmp_path, discs, room, told):
    module = Hungry(room=4, per_sample=False)

    def less_room(done: int, total: int, note: str) -> None:
        if done == 5:
            module.room = room

    with pytest.raises(TrainingError, match=f"Out of memory with a batch of 4.*{told}"):
        run(module, discs, tmp_path, progress=less_room)
    kept = Toy()
    found = load_checkpoint(tmp_path / "checkpoints", alone(), kept, build_optimizer(kept, TrainConfig().optim))
    assert found.step == 5
    assert kept.counted == 5
    run(Toy(), discs, tmp_path)
    assert [line["step"] for line in metrics(tmp_path)] == list(range(10))


def test_a_recipe_that_cannot_take_its_first_step_may_be_mended_in_its_folder(tmp_path, discs):
    recipe = {**SMALL, "data": discs, "encoder": {"name": "resnet", "dims": 2, "widths": [4, 8, 8, 8]},
              "objective": {"name": "simsiam", "width": 16}}
    one_at_a_time = {**SMALL["train"], "batch_size": 2, "accumulate": 2}
    with pytest.raises(ConfigError, match="one value a channel"):
        pretrain(PretrainConfig.model_validate({**recipe, "train": one_at_a_time}), tmp_path)
    pretrain(PretrainConfig.model_validate(recipe), tmp_path)
    assert (tmp_path / "model.json").is_file()


@pytest.mark.skipif(not shutil.which("g++"), reason="needs a C++ compiler, g++")
def test_compiled_it_learns_the_same_up_to_rounding(discs):
    plain, compiled = Toy(), Toy()
    run(plain, discs, None)
    run(compiled, discs, None, compile=True)
    torch.testing.assert_close(compiled.weight, plain.weight)


def test_nothing_is_compiled_where_there_is_no_compiler(discs, monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(ConfigError, match="no C.. compiler 'no-such-compiler'.*leave train.compile out"):
        run(Toy(), discs, None, compile=True)


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
