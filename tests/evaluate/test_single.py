"""medssl.evaluate.single: one finetuned run, or one encoder, judged and used."""

from __future__ import annotations

import json
import logging
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from PIL import Image
from small_sets import SMALL, write_discs

from medssl.accounts import print_scores
from medssl.data.manifest import Manifest
from medssl.data.prepare import prepare
from medssl.data.source import DataConfig, open_data
from medssl.errors import ConfigError, LeakageError, RunError
from medssl.evaluate.calibrate import at_temperature, fit_temperature
from medssl.evaluate.scoring import with_intervals
from medssl.evaluate.single import evaluate_elsewhere, evaluate_run, predict_run, probe_run
from medssl.metrics.classify import auroc, ece
from medssl.report.reliability import draw_reliability
from medssl.train.finetune import FinetuneConfig, finetune
from medssl.train.pretrain import PretrainConfig, pretrain

TRAIN = {**SMALL["train"], "steps": 60, "optim": {"lr": 0.02}}


def recipe(discs: DataConfig, **changes) -> FinetuneConfig:
    start = {} if "init" in changes else {"encoder": SMALL["encoder"]}
    return FinetuneConfig.model_validate({
        **start, "data": discs, "augment": SMALL["augment"], "train": TRAIN,
        "task": {"name": "classify", "labels": ["Bright"]}, **changes})


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory, discs: DataConfig) -> Path:
    return finetune(recipe(discs), tmp_path_factory.mktemp("tuned"))


def test_a_run_is_judged_on_a_split_with_intervals_over_its_patients(tuned, discs):
    rows = {row["metric"]: row for row in evaluate_run(tuned, "test", ["train.precision=float32"]).scores}
    assert rows["auroc"]["mean"] > 0.8
    assert all(row["low"] <= row["mean"] <= row["high"] for row in rows.values())
    predictions = pl.read_parquet(tuned / "predictions.parquet")
    cases = open_data(discs).cases.filter(pl.col("split") == "test")
    assert sorted(predictions["case_id"]) == sorted(cases["case_id"])


def test_probabilities_are_calibrated_on_the_validation_split_alone(tuned, discs, tmp_path):
    rows = {row["metric"]: row["mean"] for row in evaluate_run(tuned, "test", ["train.precision=float32"]).scores}
    (scaled,) = (name for name in rows if name.startswith("ece at temperature "))
    value, patients = re.fullmatch(r"ece at temperature ([\d.]+) from (\d+) patients", scaled).groups()
    temperature, held_out = float(value), open_data(discs).cases.filter(pl.col("split") == "validation")
    assert int(patients) == held_out["patient_id"].n_unique()
    predictions = pl.read_parquet(tuned / "predictions.parquet")
    expected = at_temperature(predictions["prediction"].to_numpy(), temperature)
    np.testing.assert_allclose(predictions["calibrated"], expected, atol=5e-3)
    assert rows[scaled] == pytest.approx(ece(predictions["target"].to_numpy(), predictions["calibrated"].to_numpy()))
    evaluate_run(tuned, "validation", ["train.precision=float32"])
    judged = pl.read_parquet(tuned / "predictions.parquet")
    assert "calibrated" not in judged.columns, "what a temperature is fitted on is not judged by it"
    assert fit_temperature(judged["target"], judged["prediction"]) == pytest.approx(temperature, abs=6e-3)
    assert draw_reliability(tuned) is None
    predictions.write_parquet(tuned / "predictions.parquet")
    assert Image.open(draw_reliability(tuned)).size[0] > 300


def test_what_a_judgement_was_of_lies_beside_it_and_goes_with_it(tuned, caplog):
    def account() -> dict:
        return json.loads((tuned / "predictions.json").read_text())

    judged = evaluate_run(tuned, "test", [])
    groups, picture = tuned / "by_view.parquet", draw_reliability(tuned)
    groups.write_bytes(b"")
    assert (account()["card"], account()["split"], account()["patients"]) == ("discs", "test", 12)
    assert account()["scores"] == judged.scores
    assert account()["settings"]["scored_by"] == "image"
    caplog.clear()
    with caplog.at_level(logging.WARNING, "medssl.evaluate.account"):
        evaluate_run(tuned, "test", [])
        assert "from now on" not in caplog.text, "the same again replaces nothing"
        assert groups.exists()
        assert picture.exists(), "it is drawn anew"
        evaluate_run(tuned, "validation", [])
        assert "predictions.parquet was of split test (12 patients), and is of split validation" in caplog.text
        assert "by_view.parquet, reliability.png went with the predictions before" in caplog.text
        assert not picture.exists()
        assert not groups.exists(), "a table by groups of what was replaced"
        assert account()["split"] == "validation"
        groups.write_bytes(b"")
        evaluate_run(tuned, "validation", ["data.where={view: [A]}"])
        assert "was of where – (4 patients), and is of where view A from now on" in caplog.text
        assert not groups.exists()
        assert account()["where"] == "view A"
        groups.write_bytes(b"")
        evaluate_run(tuned, "validation", ["data.where={view: [A]}", "data.box.judged=2"])
        assert not groups.exists(), "another crop of the same cases"
        assert "is of box 2 from now on" in caplog.text
        evaluate_run(tuned, "validation", ["data.where={view: [A]}", "data.box.judged=2", "task.scored_by=study"])
        assert "was of scored_by image (4 patients), and is of scored_by study from now on" in caplog.text


def test_what_a_set_calls_the_labels_is_of_the_judgement(tuned, discs, tmp_path, caplog):
    other = write_discs(tmp_path / "Study #2: [old]", salt="other")
    prepare(Manifest.load(other.manifest), discs.cache, discs.prepare, workers=0)
    folder = evaluate_elsewhere(tuned, other.manifest, "all", {}, []).folder
    groups = folder / "by_view.parquet"
    groups.write_bytes(b"")
    evaluate_elsewhere(tuned, other.manifest, "all", {}, [])
    assert groups.exists(), "the same again"
    evaluate_elsewhere(tuned, other.manifest, "all", {"Bright": "Vague"}, [])
    assert json.loads((folder / "predictions.json").read_text())["names"] == {"Bright": "Vague"}
    assert "and is of label Bright Vague from now on" in caplog.text
    assert not groups.exists()
    shutil.rmtree(tuned / "transfer")


def test_a_label_that_nobody_is_judged_on_is_named(discs, tmp_path, caplog):
    manifest = open_data(discs).manifest
    path = tmp_path / "unsure.parquet"
    replace(manifest, cases=manifest.cases.with_columns(pl.lit(-1.0).alias("label.Vague"))).save(path)
    unsure = discs.model_copy(update={"manifest": path})
    task = {"name": "classify", "labels": ["Bright", "Vague"]}
    run = finetune(recipe(unsure, train={**TRAIN, "steps": 2}, task=task), tmp_path / "run")
    assert "no certain example of both sides of Vague" in caplog.text
    evaluate_run(run, "test", [])
    assert "nobody is judged on Vague: those judged have no certain label of it" in caplog.text


def test_a_damaged_account_hinders_no_judgement(tuned):
    evaluate_run(tuned, "test", [])
    (tuned / "predictions.json").write_text("{")
    evaluate_run(tuned, "test", [])
    assert json.loads((tuned / "predictions.json").read_text())["split"] == "test"


@pytest.fixture(scope="module")
def classes(tmp_path_factory: pytest.TempPathFactory, discs: DataConfig) -> DataConfig:
    """The discs, Vague being where Bright is not, and a patient's two pictures as one study."""
    manifest = open_data(discs).manifest
    dark, study = 1 - pl.col("label.Bright"), pl.lit("s") + pl.col("patient_id").str.slice(1)
    path = tmp_path_factory.mktemp("classes") / "classes.parquet"
    replace(manifest, cases=manifest.cases.with_columns(dark.alias("label.Vague"), study_id=study)).save(path)
    return discs.model_copy(update={"manifest": path})


def test_classes_are_judged_and_calibrated_by_one_softmax(classes, tmp_path):
    task = {"name": "classify", "labels": ["Bright", "Vague"], "kind": "single_label", "balance": True}
    run = finetune(recipe(classes, task=task), tmp_path)
    rows = {row["metric"]: row["mean"] for row in evaluate_run(run, "test", ["train.precision=float32"]).scores}
    assert rows["auroc/Bright"] == pytest.approx(rows["auroc/Vague"])
    assert rows["auroc"] > 0.8
    assert any(name.startswith("ece at temperature ") for name in rows)
    table = pl.read_parquet(run / "predictions.parquet")
    sums = table.group_by("case_id").agg(pl.col("prediction", "calibrated").sum())
    assert len(sums) == 24
    np.testing.assert_allclose(sums.select("prediction", "calibrated"), 1, atol=1e-5)
    assert not np.allclose(table["prediction"], table["calibrated"])


def test_a_finished_run_may_be_judged_by_study(classes, tmp_path):
    run = finetune(recipe(classes, train={**TRAIN, "steps": 2}), tmp_path)
    evaluate_run(run, "test", [])
    images = pl.read_parquet(run / "predictions.parquet")
    evaluate_run(run, "test", ["task.scored_by=study", "task.pool=max"])
    studies = pl.read_parquet(run / "predictions.parquet")
    pooled = images.group_by("patient_id").agg(pl.col("prediction").max(), pl.col("target").n_unique())
    expected, found = (dict(table.select("patient_id", "prediction").iter_rows())
                       for table in (pooled.filter(target=1), studies))
    assert found == pytest.approx(expected)
    assert studies["case_id"].str.starts_with("s").all()


@pytest.mark.parametrize("override", ["task.labels=[Vague]", "task={name: regress}", "encoder.widths=[9, 9]",
                                      "data.prepare.size=[12, 12]", "fraction=0.1", "train.steps=500"])
def test_what_was_trained_cannot_be_judged_as_something_else(tuned, override):
    key = override.partition("=")[0]
    with pytest.raises(ConfigError, match=f"{key} cannot be given anew.*task.pool, task.scored_by"):
        evaluate_run(tuned, "test", [override])


@pytest.mark.parametrize(("task", "patients"), [("classify", 1), ("regress", 4), ("regress", 5), ("segment", 4),
                                                ("segment", 5)])
def test_fewer_than_five_patients_give_no_interval(tuned, task, patients):
    predictions = pl.read_parquet(evaluate_run(tuned, "test", []).folder / "predictions.parquet")
    named = [f"{number % patients}" for number in range(len(predictions))]
    rows = with_intervals(task, predictions.with_columns(patient_id=pl.Series(named)))
    assert rows
    assert all((row["low"] is None) == (row["high"] is None) == (patients < 5) for row in rows)
    print_scores(rows)


def test_an_attribute_to_judge_by_is_looked_for_before_anything_is_judged(tuned):
    with pytest.raises(ConfigError, match="no attribute 'sexx'.*one of view"):
        evaluate_run(tuned, "test", [], by="sexx")


def test_a_run_is_not_judged_on_its_own_training_patients(tuned):
    with pytest.raises(LeakageError, match="trained on 24 of the 24 patients"):
        evaluate_run(tuned, "train", [])


def test_a_split_without_cases_names_the_others(tuned):
    with pytest.raises(ConfigError, match=r"split 'dev'.*one of test \(24 cases\), train \(48 cases\)"):
        evaluate_run(tuned, "dev", [])


def test_new_cases_are_predicted_without_labels(tuned, discs, tmp_path):
    new = write_discs(tmp_path, salt="new")
    data = open_data(new)
    prepare(data.manifest, discs.cache, discs.prepare, workers=0)  # where the run's recipe has its cache
    found = predict_run(tuned, new.manifest)
    assert found.columns == ["case_id", "patient_id", "name", "prediction"]
    assert sorted(found["case_id"]) == sorted(data.cases["case_id"])
    assert found["prediction"].is_between(0, 1).all()
    truth = dict(data.cases.select("case_id", "label.Bright").rows())
    target = np.array([truth[case] for case in found["case_id"]])
    assert auroc(target, found["prediction"].to_numpy()) > 0.8


def test_cases_that_the_recipe_does_not_take_are_counted(tuned, discs, caplog):
    found = predict_run(tuned, discs.manifest, overrides=["data.where={view: [A]}"])
    assert found["case_id"].n_unique() == 40
    assert "cases with view A alone; 40 of 80 cases are others, and left out (data.where" in caplog.text
    caplog.clear()
    predict_run(tuned, discs.manifest)
    assert not caplog.text


def test_a_segmentation_tells_volumes_at_its_threshold(discs, tmp_path):
    volumes = []
    for threshold in (0.5, 0.99):
        task = {"name": "segment", "threshold": threshold}
        out = finetune(recipe(discs, task=task, train={**TRAIN, "steps": 20}), tmp_path / str(threshold))
        volumes.append(predict_run(out, discs.manifest))
    assert volumes[0]["name"].unique().to_list() == ["disc"]
    assert (volumes[0]["prediction"] % 1 == 0).all()
    assert volumes[0]["prediction"].max() <= 24 * 24
    assert volumes[1]["prediction"].sum() < volumes[0]["prediction"].sum()


def test_a_regression_predicts_in_the_labels_unit(discs, tmp_path):
    out = finetune(recipe(discs, task={"name": "regress", "label": "Radius"}), tmp_path)
    assert predict_run(out, discs.manifest)["prediction"].mean() == pytest.approx(5, abs=1.5)
    rows = {row["metric"]: row["mean"] for row in evaluate_run(out, "test", []).scores}
    assert {"mae", "rmse", "r2"} <= rows.keys()
    asked = {row["metric"] for row in evaluate_run(out, "test", ["task.below=[5]"]).scores}
    assert {metric for metric in asked - rows.keys() if metric.endswith("Radius < 5")}


def test_a_probe_of_a_fresh_encoder_is_the_same_every_time(discs):
    config = recipe(discs)
    first = probe_run(config, "test")
    torch.manual_seed(7)
    assert probe_run(config, "test") == first


def test_a_probe_of_a_pretrained_encoder_refuses_what_a_curve_refuses(discs, tmp_path):
    data, config = open_data(discs), PretrainConfig.model_validate({**SMALL, "data": discs})
    run = pretrain(config, tmp_path / "run", data=data)
    assert {row["metric"] for row in probe_run(recipe(discs, init=run, fraction=0.5), "test")} >= {"auroc", "auprc"}
    everyone = pretrain(config, tmp_path / "all", data.cases["patient_id"].unique().to_list(), data)
    with pytest.raises(LeakageError, match="trained on 12 of the 12"):
        probe_run(recipe(discs, init=everyone), "test")
    other = discs.model_copy(update={"prepare": discs.prepare.model_copy(update={"intensity": "zscore"})})
    prepare(data.manifest, other.cache, other.prepare, workers=0)
    with pytest.raises(ConfigError, match="prepared differently"):
        probe_run(recipe(other, init=run), "test")
    with pytest.raises(RunError, match="not a finetuning run"):
        evaluate_run(run, "test", [])


def test_a_probe_is_not_judged_on_those_it_learns_from(discs):
    for split in ("all", "train"):
        with pytest.raises(LeakageError, match="learns from 24 of the patients"):
            probe_run(recipe(discs), split)


def test_an_interval_holds_its_own_point(discs):
    rows = probe_run(recipe(discs), "test")
    assert all(row["low"] <= row["mean"] <= row["high"] for row in rows)


def test_a_leak_through_two_runs_is_found(discs, tmp_path):
    data = open_data(discs)
    everyone = data.cases["patient_id"].unique().to_list()
    run = pretrain(PretrainConfig.model_validate({**SMALL, "data": discs}), tmp_path / "all", everyone, data)
    tuned = finetune(recipe(discs, init=run, train={**TRAIN, "steps": 1}), tmp_path / "tuned")
    with pytest.raises(LeakageError, match="trained on 12 of the 12"):
        evaluate_run(tuned, "test", [])
