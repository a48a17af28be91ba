"""Runs of two real processes: whatever the objective, they learn what one process learns on the same batches."""

from __future__ import annotations

import json
import multiprocessing
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.multiprocessing
from safetensors.torch import load_file

from medssl.data.source import DataConfig
from medssl.errors import ConfigError
from medssl.objectives import OBJECTIVES
from medssl.train.finetune import FinetuneConfig, finetune
from medssl.train.launch import launch, shard
from medssl.train.pretrain import PretrainConfig, pretrain
from medssl.train.rank import refuse_several

VIT = {"name": "vit", "size": [48, 48], "patch": [8, 8], "width": 24, "depth": 2, "heads": 2}
RESNET = {"name": "resnet", "blocks": [1, 1, 1, 1], "widths": [4, 4, 8, 8]}
NARROW = {"simsiam": {"width": 8}, "simclr": {"width": 8}, "mae": {"decoder": {"width": 16, "depth": 1, "heads": 2}}}
TRAIN = {"steps": 3, "batch_size": 8, "precision": "float32", "log_every": 1, "clip": 1.0,
         "optim": {"name": "sgd", "lr": 0.002, "warmup": 0}}
WAYS = {name: {"objective": {"name": name, **NARROW.get(name, {})}, "encoder": VIT if name == "mae" else RESNET}
        for name in OBJECTIVES}
WAYS |= {
    "sharded ViT": {**WAYS["mae"], "train": {**TRAIN, "strategy": "fsdp"}},
    "sharded ViT in parts, computed twice": {**WAYS["mae"], "train": {
        **TRAIN, "strategy": "fsdp", "accumulate": 2, "checkpoint_activations": True}},
    "in parts": {**WAYS["mae"], "train": {**TRAIN, "accumulate": 2}},
    "AdamW and workers": {**WAYS["mae"], "train": {**TRAIN, "workers": 1, "optim": {"lr": 0.001, "warmup": 0}}},
}

TASKS = {
    "a finding": {"name": "classify", "labels": ["Bright"]},
    "findings that are blank here and there": {"name": "classify", "labels": ["Bright", "Vague"], "balance": True},
    "outlines": {"name": "segment"},
    "a quantity": {"name": "regress", "label": "Radius"},
}


def pretraining(discs: DataConfig, way: str, **train) -> PretrainConfig:
    recipe = {"train": TRAIN, **WAYS[way]}
    return PretrainConfig.model_validate({"data": discs, "augment": {"size": [48, 48]}, **recipe,
                                          "train": {**recipe["train"], **train}})


def finetuning(discs: DataConfig, task: str) -> FinetuneConfig:
    return FinetuneConfig.model_validate({"data": discs, "encoder": RESNET, "train": TRAIN, "task": TASKS[task]})


def self_training(discs: DataConfig, strategy: str) -> FinetuneConfig:
    return FinetuneConfig.model_validate({"data": discs, "encoder": VIT, "augment": {"size": [48, 48]},
                                          "train": {**TRAIN, "strategy": strategy}, "task": {
        "name": "classify", "labels": ["Bright", "Vague"], "uncertain": "self_trained"}})


def as_torchrun_does(rank: int, port: int) -> None:
    torch.set_num_threads(1)
    os.environ |= {"TORCHELASTIC_RUN_ID": "test", "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2",
                   "LOCAL_WORLD_SIZE": "2", "GROUP_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}


def interrupt(done: int, total: int, note: str) -> None:
    if done == 2:
        raise InterruptedError


def work(rank: int, port: int, discs: DataConfig, folder: Path) -> None:
    """What each of two processes does: every way of pretraining and every task, one after another."""
    as_torchrun_does(rank, port)
    with pytest.raises(ConfigError, match="2 processes were started for a curve"):
        refuse_several("a curve")
    for way in WAYS:
        if way == "sharded ViT":  # goes on where it was interrupted, sharded again
            with pytest.raises(InterruptedError):
                pretrain(pretraining(discs, way, checkpoint_seconds=0.0), folder / way, progress=interrupt)
        pretrain(pretraining(discs, way), folder / way)
    for task in TASKS:
        finetune(finetuning(discs, task), folder / task)
    for strategy in ("ddp", "fsdp"):
        finetune(self_training(discs, strategy), folder / "taught" / strategy)
    with pytest.raises(ConfigError, match=r"train.batch_size is 7, to be shared by 2 .*train.batch_size=8"):
        pretrain(pretraining(discs, "mae", batch_size=7), folder / "odd")
    torch.distributed.destroy_process_group()


def two(function, *given: object) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    multiprocessing.set_forkserver_preload(["medssl.train.pretrain", "medssl.train.finetune"])
    torch.multiprocessing.start_processes(function, (port, *given), nprocs=2, start_method="forkserver")


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory, discs: DataConfig) -> Path:
    folder = tmp_path_factory.mktemp("together")
    two(work, discs, folder)
    return folder


def figures(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def assert_same(one: Path, two: Path, atol: float = 2e-6) -> None:
    """atol: of weights; three steps of SGD move most of them by 1e-5 or more, of AdamW by 1e-3."""
    for ours, theirs in zip(figures(one), figures(two), strict=True):
        assert theirs["loss"] == pytest.approx(ours["loss"], rel=1e-3, abs=1e-4)
        assert theirs["gradient_norm"] == pytest.approx(ours["gradient_norm"], rel=1e-3)
    ours, theirs = (load_file(run / "model.safetensors") for run in (one, two))
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        torch.testing.assert_close(theirs[name], tensor, rtol=1e-3, atol=atol, msg=name)


@pytest.mark.parametrize("way", WAYS)
def test_two_processes_learn_what_one_does(tmp_path, discs, together, way):
    pretrain(pretraining(discs, way), tmp_path)
    assert_same(tmp_path, together / way, atol=1e-4 if "AdamW" in way else 2e-6)
    assert json.loads((together / way / "provenance.json").read_text())["processes"] == 2


@pytest.mark.parametrize("task", TASKS)
def test_two_processes_finetune_as_one_does(tmp_path, discs, together, task):
    finetune(finetuning(discs, task), tmp_path)
    assert_same(tmp_path, together / task)


def test_a_teacher_that_was_sharded_says_what_a_whole_one_does(together):
    assert_same(together / "taught/ddp", together / "taught/fsdp")


def half(rank: int, port: int, discs: DataConfig, folder: Path) -> None:
    """The first two steps of three, as a run that was killed then leaves them: sharded, and not."""
    as_torchrun_does(rank, port)
    world = launch()
    for strategy in ("ddp", "fsdp"):
        with pytest.raises(InterruptedError):
            pretrain(pretraining(discs, "AdamW and workers", checkpoint_seconds=0.0, strategy=strategy),
                     folder / strategy, progress=interrupt)
    assert world.size == 2


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_one_process_goes_on_where_two_were(tmp_path, discs, halves, strategy):
    pretrain(pretraining(discs, "AdamW and workers"), tmp_path / "whole")
    pretrain(pretraining(discs, "AdamW and workers"), halves / strategy)
    assert_same(tmp_path / "whole", halves / strategy, atol=1e-4)
    told = json.loads((halves / strategy / "provenance.json").read_text())
    (change,) = told["went_on"]
    assert change["with"][0] == "train.checkpoint_seconds"
    assert (told["processes"], change["processes"]) == (2, 1)
    assert not {"medssl", "python", "packages"} & change.keys(), "what stayed as it was"


@pytest.fixture(scope="module")
def halves(tmp_path_factory: pytest.TempPathFactory, discs: DataConfig) -> Path:
    folder = tmp_path_factory.mktemp("halves")
    two(half, discs, folder)
    return folder


def test_the_command_starts_its_other_processes_itself(tmp_path, discs):
    config = pretraining(discs, "mae", devices=2)
    (tmp_path / "recipe.yaml").write_text(config.model_dump_json())
    done = subprocess.run([sys.executable, "-m", "medssl", "pretrain", "recipe.yaml", "--out", "run"], cwd=tmp_path,
                          capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"}, timeout=300)
    assert (done.returncode, done.stdout) == (0, "run\n"), done.stderr
    assert json.loads((tmp_path / "run/provenance.json").read_text())["processes"] == 2


def test_more_processes_than_gpus_are_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(ConfigError, match=r"4 processes on a machine with 2 GPU\(s\).*train.devices"):
        launch(4)


def test_only_vits_are_sharded():
    with pytest.raises(ConfigError, match="train.strategy=fsdp shares out the blocks of a ViT.*train.strategy=ddp"):
        shard(torch.nn.Linear(2, 2), mesh=None)
