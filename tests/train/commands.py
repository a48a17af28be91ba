"""`medssl pretrain` and `finetune` as a person starts them, in processes that can be killed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from small_sets import SMALL

from medssl.data.source import DataConfig
from medssl.train.pace import PACE

MARK = "MEDSSL_RUN_UNDER_TEST"
"""In the surroundings of every process of a run that is started here."""
VIT = {"name": "vit", "size": [24, 24], "patch": [4, 4], "width": 24, "depth": 2, "heads": 2, "drop_path": 0.1}
TRAIN = {"steps": 40, "batch_size": 8, "precision": "float32", "log_every": 1, "checkpoint_seconds": 0.0,
         "optim": {"lr": 0.001}}
RUNS: dict[str, dict[str, Any]] = {
    "MAE of a ViT with drop path, AdamW": {
        "step": "pretrain", "encoder": VIT,
        "objective": {"name": "mae", "decoder": {"width": 16, "depth": 1, "heads": 2}}},
    "SimSiam with batch norms, SGD with momentum, clipped": {
        "step": "pretrain", "encoder": {"name": "resnet", "blocks": [1, 1, 1, 1], "widths": [4, 4, 8, 8]},
        "objective": {"name": "simsiam", "width": 16}, "train": {"clip": 1.0, "optim": {"name": "sgd", "lr": 0.02}}},
    "noise in the holes of a U-Net, a process that reads ahead, in two parts": {
        "step": "pretrain", "encoder": SMALL["encoder"], "objective": SMALL["objective"],
        "train": {"workers": 1, "accumulate": 2}},
    "finetuning": {
        "step": "finetune", "encoder": SMALL["encoder"], "task": {"name": "classify", "labels": ["Bright"]}},
    "finetuning after a teacher": {
        "step": "finetune", "encoder": VIT,
        "task": {"name": "classify", "labels": ["Bright", "Vague"], "uncertain": "self_trained"}},
}
"""Recipes without their data. Between them they keep everything that a step could depend on."""


def write_recipe(folder: Path, discs: DataConfig, run: str, **train: Any) -> Path:
    recipe = {"data": discs.model_dump(mode="json"), "augment": SMALL["augment"], **RUNS[run]}
    recipe["train"] = {**TRAIN, **RUNS[run].get("train", {}), **train}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "recipe.yaml").write_text(json.dumps(recipe))
    return folder / "recipe.yaml"


def start(recipe: Path, out: Path, *overrides: str, env: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
    step = json.loads(recipe.read_text())["step"]
    return subprocess.Popen([sys.executable, "-m", "medssl", step, str(recipe), *overrides, "--out", str(out)],
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
                            env=os.environ | {"OMP_NUM_THREADS": "1", MARK: str(out)} | (env or {}))


def left_behind(out: Path, patience: float = 30) -> list[int]:
    """Processes of the run that are still there after so many seconds."""
    deadline = time.monotonic() + patience
    while (left := list(processes_of(out))) and time.monotonic() < deadline:
        time.sleep(1)
    return left


def processes_of(out: Path, words: str = "") -> Iterator[int]:
    """Those of the run with these words in their command line."""
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has ended, or is somebody else's
            if (f"{MARK}={out}".encode() in (process / "environ").read_bytes().split(b"\0")
                    and words.encode() in (process / "cmdline").read_bytes()):
                yield int(process.name)


def steps_done(out: Path) -> int:
    """Whole lines of its metrics."""
    lines = out / "metrics.jsonl"
    return lines.read_bytes().count(b"\n") if lines.is_file() else 0


def wait_for_step(process: subprocess.Popen[str], out: Path, step: int, seconds: float = 600) -> bool:
    """Whether it got there before it ended."""
    deadline = time.monotonic() + seconds
    while steps_done(out) < step and process.poll() is None:
        assert time.monotonic() < deadline, f"step {step} was not reached in {seconds} s"
        time.sleep(0.002)
    return process.poll() is None


def differences(one: Path, other: Path) -> list[str]:
    """What two finished runs do not have in common, bit for bit: weights and metrics, times left out."""
    ours, theirs = (load_file(run / "model.safetensors") for run in (one, other))
    different = [name for name in ours.keys() | theirs.keys()
                 if name not in ours or name not in theirs or not _alike(ours[name], theirs[name])]
    return different + ["metrics.jsonl"] * (_figures(one) != _figures(other))


def _alike(a, b) -> bool:
    return a.dtype == b.dtype and a.numpy().tobytes() == b.numpy().tobytes()


def _figures(run: Path) -> list[dict[str, float]]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name not in ("seconds", *PACE)} for line in lines]
