"""Curve and pretrain folders with made-up numbers, laid out as `medssl curve` and `medssl pretrain` write them."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from small_sets import discs, one_thread  # noqa: F401 (fixtures)

from medssl.report.scans import save_reconstructions, save_views
from medssl.rng import stream

FRACTIONS = (0.04, 0.1, 0.25, 0.5, 1.0)
PATIENTS = 300
LABELS = {"scratch": "From scratch", "mae": "MAE on own scans", "simsiam": "SimSiam on own scans",
          "age": "Age and sex only"}
GAINS = {"scratch": 0.0, "mae": 0.07, "simsiam": 0.035}
METRICS = {
    "classify": ["auroc", "auroc/Edema", "auroc/Pleural Effusion", "auroc/Cardiomegaly"],
    "segment": ["dice", "dice/WT", "dice/TC", "dice/ET"],
    "regress": ["mae", "rmse", "r2"],
}


@pytest.fixture
def make_curve(tmp_path: Path):
    def make(task: str = "classify", name: str = "curve", **head: object) -> Path:
        folder = tmp_path / name
        folder.mkdir(parents=True)
        write_curve(folder, task, **head)
        return folder

    return make


@pytest.fixture
def make_pretrain(tmp_path: Path):
    def make(name: str = "mae-run") -> Path:
        folder = tmp_path / name
        folder.mkdir(parents=True)
        write_pretrain(folder)
        return folder

    return make


def write_curve(folder: Path, task: str, **head: object) -> None:
    lower = task == "regress"
    summary = pl.DataFrame([row for metric in METRICS[task] for row in _scores(task, metric)])
    comparison = pl.DataFrame([row for metric in METRICS[task] for row in _comparisons(task, metric)],
                              infer_schema_length=None)
    summary.write_parquet(folder / "summary.parquet")
    comparison.write_parquet(folder / "comparison.parquet")
    (folder / "curve.json").write_text(json.dumps({
        "title": f"Synthetic {task} curve", "task": task, "primary": METRICS[task][0],
        "higher_is_better": not lower, "unit": "EF points" if lower else "",
        "baselines": {"mae": "scratch", "simsiam": "scratch"}, "labels": LABELS, "fractions": list(FRACTIONS),
        "verdict": ["MAE on own scans reached with 12 labelled patients what scratch training reached with 22.",
                    "With every label there is, no clear difference remained.",
                    "For scale: with 12 labelled patients, age and sex only scored far below every other arm."],
        "protocol": "Numbers of this curve are invented by a test. No patient stands behind them.", **head}))
    (folder / "provenance.json").write_text(json.dumps({
        "versions": {"medssl": "0.1.0", "torch": "2.13.0", "python": "3.12.1"}, "revision": "0123abc",
        "manifest_digest": "9f86d081884c", "seeds": [0, 1, 2, 3, 4], "device": "cpu", "seconds": 4361.5,
        "command": "medssl curve pipelines/chexpert/curve.yaml arms.mae.init=runs/mae",
        "machine": {"cores": 2, "system": "Linux"}}))
    (folder / "recipe.yaml").write_text("seed: 0\narms:\n  mae:\n    init: /data/Smith^John/mae\n")
    if task == "segment":
        _write_examples(folder / "examples")


def write_pretrain(folder: Path) -> None:
    rng = stream(0, "test", "pretrain")
    lines = []
    for step in range(0, 8000, 10):
        noise = float(rng.normal(0, 0.02))
        lines.append({"step": step, "loss": 0.3 + math.exp(-step / 900) + noise, "lr": 1e-4, "seconds": step / 7,
                      "feature_std": 0.9 - 0.5 * math.exp(-step / 500) + noise / 4,
                      "effective_rank": 60 - 45 * math.exp(-step / 1200) + 20 * noise})
    (folder / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n")
    (folder / "model.json").write_text('{"format": 1}')
    (folder / "provenance.json").write_text(json.dumps({"revision": "0123abc", "seed": 0, "seconds": 1143}))
    (folder / "recipe.yaml").write_text("objective:\n  name: mae\n")
    images = np.stack([_chest(stream(0, "test", "picture", case)) for case in range(3)])
    save_views(folder / "pictures" / "views.png", [images, images[:, :, ::-1], np.roll(images, 9, 1)])
    masked = images.copy()
    hidden = rng.random((3, 8, 8)) < 0.75
    masked[np.kron(hidden, np.ones((12, 12))).astype(bool)] = np.nan
    save_reconstructions(folder / "pictures" / "reconstruction.png", images, masked, 0.9 * images)


def _score(arm: str, index: int, task: str, part: int) -> float:
    if arm == "age":
        return 9.7 if task == "regress" and part < 2 else 0.58
    share = FRACTIONS[index]
    value = 0.86 - 0.03 * part - 0.2 * math.exp(-1.4 * (index + 0.3)) + GAINS.get(arm, 0.0) * (1 - share) ** 1.5
    return 25 * (1.15 - value) if task == "regress" and part < 2 else value


def _scores(task: str, metric: str) -> list[dict]:
    part = METRICS[task].index(metric)
    rows = []
    for arm in LABELS:
        for index, fraction in enumerate(FRACTIONS):
            mean = _score(arm, index, task, part)
            half = (0.035 - 0.005 * index) * (25 if task == "regress" and part < 2 else 1)
            rows.append({"arm": arm, "fraction": fraction, "train_patients": round(PATIENTS * fraction),
                         "metric": metric,
                         "mean": mean + float(stream(arm, fraction, metric).normal(0, 0.1 * half)),
                         "low": mean - half, "high": mean + half, "seeds": 1 if arm == "age" else 5, "folds": 1,
                         "test_patients": 120, "test_cases": 214})
    return rows


def _comparisons(task: str, metric: str) -> list[dict]:
    part = METRICS[task].index(metric)
    sign = -1 if task == "regress" and part < 2 else 1
    rows = []
    for arm in ("mae", "simsiam"):
        for index, fraction in enumerate(FRACTIONS):
            gain = sign * (_score(arm, index, task, part) - _score("scratch", index, task, part))
            half = (0.03 - 0.004 * index) * (25 if sign < 0 else 1)
            times = _multiplier(task, part, arm, index)
            rows.append({"arm": arm, "baseline": "scratch", "fraction": fraction, "metric": metric, "difference": gain,
                         "low": gain - half, "high": gain + half, "p": 0.0004 * (index + 1) ** 4,
                         "p_holm": min(1.0, 0.0009 * (index + 1) ** 4), "multiplier": times,
                         "multiplier_low": None if times is None else 1.3,
                         "multiplier_high": None if times is None else math.inf})
    return rows


def _multiplier(task: str, part: int, arm: str, index: int) -> float | None:
    """Where scratch's line, straight between fractions on the log axis, first reaches the arm's score."""
    sign = -1 if task == "regress" and part < 2 else 1
    scratch = [sign * _score("scratch", i, task, part) for i in range(len(FRACTIONS))]
    reached = sign * _score(arm, index, task, part)
    if index == len(FRACTIONS) - 1:
        return None
    if reached > max(scratch):
        return math.inf
    return math.exp(np.interp(reached, scratch, np.log(FRACTIONS))) / FRACTIONS[index]


def _chest(rng: np.random.Generator) -> np.ndarray:
    rows, columns = np.mgrid[-1:1:96j, -1:1:96j]
    body = np.exp(-(rows**2 + columns**2))
    for side in (-0.42, 0.42):
        body -= 0.5 * np.exp(-((columns - side) / 0.22) ** 2 - ((rows + 0.05) / 0.5) ** 2)
    return (body + rng.normal(0, 0.03, body.shape)).astype(np.float32)


def _write_examples(folder: Path) -> None:
    folder.mkdir()
    rows, columns = np.mgrid[-1:1:96j, -1:1:96j]
    radius = np.hypot(rows - 0.2, columns + 0.15)
    truth = (radius < 0.45).astype(np.uint8) + (radius < 0.28) + (radius < 0.14)
    image = np.stack([_chest(stream(0, "test", "example", case)) + 0.2 * truth for case in range(4)])
    for arm, shift in (("scratch", 7), ("mae", 2)):
        np.savez(folder / f"{arm}.npz", image=image, truth=np.stack([truth] * 4),
                 prediction=np.stack([np.roll(truth, shift + case, 1) for case in range(4)]),
                 regions=np.array(["WT", "TC", "ET"]))
