"""medssl.evaluate.choice: the rate whose models judge held-out patients best, and none where nothing can be told."""

from __future__ import annotations

import json
import math

import polars as pl
import pytest
from small_sets import SMALL

from medssl.config import validate
from medssl.data.source import DataConfig, open_data
from medssl.errors import TrainingError
from medssl.evaluate.choice import ChoiceConfig, choose_lr
from medssl.evaluate.curve import CurveConfig
from medssl.evaluate.failures import DIVERGED, UNCHOSEN
from medssl.evaluate.points import run_curve
from medssl.tasks import Classify, Regress
from medssl.train.bar import Bar
from medssl.train.step import OutOfMemory

BRIGHT = Classify.Config(labels=("Bright",))


def judged(cases: pl.DataFrame, label: str, predicted) -> pl.DataFrame:
    truth = cases[f"label.{label}"].to_list()
    return cases.select("case_id", "patient_id").with_columns(
        name=pl.lit(label), target=pl.Series(truth, dtype=pl.Float64),
        prediction=pl.Series([predicted(value) for value in truth], dtype=pl.Float64))


@pytest.fixture(scope="module")
def cases(discs: DataConfig) -> pl.DataFrame:
    return open_data(discs).training


def test_the_best_on_patients_that_were_held_out(cases):
    tried = []

    def attempt(inside: pl.DataFrame, outside: pl.DataFrame, lr: float) -> pl.DataFrame:
        tried.append((lr, set(inside["patient_id"]), set(outside["patient_id"])))
        return judged(outside, "Bright", lambda value: value if lr == 0.1 else 1 - value)

    choice = choose_lr(ChoiceConfig(lrs=(0.01, 0.1, 1.0), repeats=2), BRIGHT, cases, 0, attempt)
    assert choice.lr == 0.1
    assert choice.scores == {0.01: 0.0, 0.1: 1.0, 1.0: 0.0}
    assert [lr for lr, *_ in tried] == [0.01, 0.1, 1.0] * 2
    everyone = set(cases["patient_id"])
    for _, inside, outside in tried:
        assert not inside & outside
        assert inside | outside == everyone
        assert len(outside) == len(everyone) // 4
    assert tried[0][1:] == tried[1][1:], "the same for every rate"
    assert tried[0][2] != tried[3][2], "and drawn anew"


def test_a_rate_that_diverges_is_not_chosen_and_ends_nothing(cases):
    def attempt(inside: pl.DataFrame, outside: pl.DataFrame, lr: float) -> pl.DataFrame:
        if lr == 1.0:
            raise TrainingError("The loss is nan")
        return judged(outside, "Bright", lambda value: math.nan if lr == 0.1 else 0.5)

    choice = choose_lr(ChoiceConfig(lrs=(0.01, 0.1, 1.0)), BRIGHT, cases, 0, attempt)
    assert choice.lr == 0.01
    assert set(choice.scores) == {0.01}
    assert choice.diverged == (0.1, 1.0)
    with pytest.raises(OutOfMemory):
        choose_lr(ChoiceConfig(lrs=(0.01, 0.1)), BRIGHT, cases, 0, lambda *_: (_ for _ in ()).throw(OutOfMemory("")))


def test_errors_are_best_when_small(cases):
    config = ChoiceConfig(lrs=(0.01, 0.1))
    choice = choose_lr(config, Regress.Config(label="Radius"), cases, 0, lambda inside, outside, lr:
                       judged(outside, "Radius", lambda value: value + lr))
    assert choice.lr == 0.01


def test_held_out_patients_of_one_class_choose_nothing(cases):
    alike = cases.filter(pl.col("label.Bright") == 1)
    choice = choose_lr(ChoiceConfig(lrs=(0.01, 0.1)), BRIGHT, alike, 0, lambda inside, outside, lr:
                       judged(outside, "Bright", lambda value: lr))
    assert choice.lr is None
    assert choice.scores == {}


def test_two_patients_leave_nobody_to_hold_out(cases):
    two = cases.filter(pl.col("patient_id").is_in(cases["patient_id"].unique().sort()[:2].to_list()))
    choice = choose_lr(ChoiceConfig(lrs=(0.01, 0.1)), BRIGHT, two, 0, lambda *_: pytest.fail("nothing to try"))
    assert choice.lr is None


def test_each_point_of_a_curve_chooses_for_itself_and_says_what(discs: DataConfig, tmp_path):
    config = validate(CurveConfig, {
        "data": discs.model_dump(), "task": {"name": "classify", "labels": ["Bright"]}, "augment": SMALL["augment"],
        "train": {**SMALL["train"], "steps": 1}, "fractions": [0.08, 1.0], "seeds": 12,
        "choice": {"lrs": [0.001, 0.01, 1e30]},
        "arms": {"scratch": {"encoder": SMALL["encoder"]}, "given": {"encoder": SMALL["encoder"], "lr": 0.5}},
    }, "recipe")
    run_curve(config, tmp_path, 1, Bar)
    points = [json.loads(path.read_text()) for path in sorted(tmp_path.glob("points/*/*.json"))]
    told = {(point["arm"], point["fraction"]): point.get("lr") for point in points}
    assert told["scratch", 1.0] in (0.001, 0.01)
    assert told["scratch", 0.08] == SMALL["train"]["optim"]["lr"], "two patients leave nobody to choose by"
    assert told["given", 1.0] is None
    scores = [point["held_out_score"] for point in points if point["arm"] == "scratch" and point["fraction"] == 1]
    assert all(score is not None and math.isfinite(score) for score in scores)
    assert all(point["diverged"] == [1e30] for point in points if point["arm"] == "scratch" and point["fraction"] == 1)
    assert pl.read_parquet(tmp_path / "failed_rates.parquet").rows() == [
        ("scratch", SMALL["train"]["optim"]["lr"], UNCHOSEN, 12), ("scratch", 1e30, DIVERGED, 12)]
    assert pl.read_parquet(tmp_path / "points.parquet").filter(pl.col("arm") == "scratch")["lr"].is_not_null().all()
