"""medssl.evaluate.scaling: sizes and budgets as the runs had them, and sentences that claim no more than the tables."""

from __future__ import annotations

import json

import polars as pl
import pytest
from small_sets import SMALL

from medssl.config import validate
from medssl.data.source import DataConfig
from medssl.evaluate.curve import CurveConfig
from medssl.evaluate.points import run_curve
from medssl.evaluate.scaling import Axis, size_in_words, told_in_words
from medssl.evaluate.statistics import COMPARISON, SUMMARY, Experiment
from medssl.models.weights import load_encoder
from medssl.train.bar import Bar

MODEL = Axis("model", ["tiny", "small", "base"], [0.116304, 0.8, 6.34], [100, 100, 100], [3200, 3200, 3200])


def told(*tests: tuple[float, float | None], axis: Axis = MODEL) -> str:
    """Of a difference and its corrected p at each fraction; without a p there is no interval either."""
    fractions = [0.1, 1.0][: len(tests)]
    points = [(arm, fraction, None, "auroc", 0.7, 0.6, 0.8, 10, 1, 120, 236, 1)
              for arm in axis.arms for fraction in fractions]
    ends = [(axis.arms[-1], axis.arms[0], fraction, "auroc", difference, None if p is None else difference - 0.03,
             None if p is None else difference + 0.03, p, 1.0 if p is None else p, 1.0, 1.0, 1.0)
            for fraction, (difference, p) in zip(fractions, tests, strict=True)]
    table = pl.DataFrame(ends, schema=COMPARISON, orient="row").select(pl.lit(axis.name).alias("axis"), *COMPARISON)
    return told_in_words(Experiment("classify"), pl.DataFrame(points, schema=SUMMARY, orient="row"), table, axis)


def test_a_difference_is_told_where_it_was_shown_and_only_there():
    assert told((0.05, 0.004), (0.02, 0.3)) == (
        "Model size, from 0.116 to 6.34 million parameters (100 steps and 3,200 images seen each): larger was better "
        "at 10 % of the labels (+0.050, 95 % interval +0.020 to +0.080; corrected p = 0.004); no difference could be "
        "shown at 100 % of the labels (+0.020, 95 % interval −0.010 to +0.050; corrected p = 0.3). Corrected for 2 "
        "fractions.")
    assert "larger was worse at 10 % of the labels (−0.050" in told((-0.05, 0.004), (0.02, 0.3))


def test_a_null_is_a_null():
    text = told((0.05, 0.06), (-0.01, 0.5))
    assert "): no difference could be shown at 10 % of the labels (+0.050" in text
    assert "larger" not in text
    assert "no difference could be shown at 10 % of the labels (+0.050, no interval" in told((0.05, None))


def test_arms_of_one_size_tell_nothing_of_size():
    alike = Axis("batch", ["a", "b"], [32, 32], [100, 100], [3200, 3200])
    assert told((0.05, 0.004), axis=alike) == (
        "Batch size: the arms a and b do not differ in it (32 images each), so nothing can be told of it.")


@pytest.mark.parametrize(("steps", "batches", "words"), [
    ((400, 100), (32, 128), "12,800 images seen each"),
    ((100, 100), (32, 128), "100 steps each"),
    ((390, 98), (33, 131), "12,870 images seen each"),
    ((200, 100), (32, 128), "neither steps nor images seen held equal"),
])
def test_the_budget_is_told_as_it_was(steps, batches, words):
    images = [step * batch for step, batch in zip(steps, batches, strict=True)]
    assert Axis("batch", ["a", "b"], list(batches), list(steps), images).budget == words


@pytest.mark.parametrize(("size", "text"), [(0.116304, "0.116"), (48.5, "48.5"), (302.6, "303"), (32, "32"),
                                            (2048, "2,048"), (64534, "64,534")])
def test_sizes_in_words(size, text):
    assert size_in_words(size) == text


def test_a_curve_tells_its_sizes_and_compares_the_ends(discs: DataConfig, tmp_path):
    short = {**SMALL["train"], "steps": 2}
    ssl = {"step": "pretrain", **SMALL, "data": discs.model_dump(), "train": short}
    config = validate(CurveConfig, {
        "data": discs.model_dump(), "task": {"name": "classify", "labels": ["Bright"]}, "augment": SMALL["augment"],
        "train": short, "fractions": [0.5, 1.0], "seeds": 2, "arms": {
            "wide": {"how": "probe", "pretrain": {**ssl, "encoder": {**SMALL["encoder"], "widths": [8, 16]}}},
            "all": {"pretrain": ssl},
            "frozen": {"how": "probe", "weights_of": "all"},
            "some": {"how": "probe", "pretrain": {**ssl, "share": 0.25}},
        }, "scaling": {"model": ["wide", "frozen"], "patients": ["some", "frozen"]}}, "recipe")
    verdict = run_curve(config, tmp_path, 1, Bar)
    model, patients = json.loads((tmp_path / "curve.json").read_text())["scaling"]
    assert [model["told"], patients["told"]] == verdict[-2:]
    assert (model["axis"], model["arms"]) == ("model", ["frozen", "wide"])
    counts = [sum(parameter.numel() for parameter in load_encoder(tmp_path / f"pretrain/{arm}-k0").parameters()) / 1e6
              for arm in ("all", "wide")]
    assert model["sizes"] == counts
    assert (patients["arms"], patients["sizes"]) == (["some", "frozen"], [6, 24])
    assert patients["budget"] == "2 steps and 16 images seen each"
    ends = pl.read_parquet(tmp_path / "scaling.parquet")
    assert ends.select("axis", "arm", "baseline", "fraction").rows() == [
        ("model", "wide", "frozen", 0.5), ("model", "wide", "frozen", 1.0),
        ("patients", "frozen", "some", 0.5), ("patients", "frozen", "some", 1.0)]
    mean = {(row["arm"], row["fraction"]): row["mean"] for row in
            pl.read_parquet(tmp_path / "summary.parquet").filter(pl.col("metric") == "auroc").iter_rows(named=True)}
    for row in ends.iter_rows(named=True):
        largest, smallest = (mean[row[end], row["fraction"]] for end in ("arm", "baseline"))
        assert row["difference"] == pytest.approx(largest - smallest)
        assert row["low"] < row["difference"] < row["high"]
