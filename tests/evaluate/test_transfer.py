"""A finetuned run judged on another set without training, and in groups of patients."""

from __future__ import annotations

import json
import logging
import re
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from small_sets import SMALL, write_discs

from medssl.data.manifest import Manifest
from medssl.data.prepare import prepare
from medssl.data.source import DataConfig, open_data
from medssl.errors import ConfigError, LeakageError
from medssl.evaluate.by_group import scores_by_group
from medssl.evaluate.single import evaluate_elsewhere, evaluate_run
from medssl.evaluate.transfer import in_our_names, read_names
from medssl.metrics.classify import auroc
from medssl.models import build_encoder
from medssl.models.cnn import UNetEncoder
from medssl.tasks import Classify, Regress, build_task
from medssl.train.finetune import FinetuneConfig, finetune

TRAIN = {**SMALL["train"], "steps": 60, "optim": {"lr": 0.02}}


def recipe(discs: DataConfig, **task) -> FinetuneConfig:
    return FinetuneConfig.model_validate({
        "encoder": SMALL["encoder"], "data": discs, "augment": SMALL["augment"], "train": TRAIN, "task": task})


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory, discs: DataConfig) -> Path:
    return finetune(recipe(discs, name="classify", labels=["Bright", "Vague"]), tmp_path_factory.mktemp("tuned"))


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory, discs: DataConfig) -> Path:
    """Other patients, whose card has other names, and a region that was drawn as it was."""
    new = write_discs(tmp_path_factory.mktemp("elsewhere"), salt="elsewhere",
                      called={"Bright": "Shining", "Vague": "Hazy", "disc": "ball"})
    prepare(Manifest.load(new.manifest), discs.cache, discs.prepare, workers=0)  # where the run's recipe has its cache
    return new.manifest


def test_another_set_is_judged_by_its_own_names_without_training(tuned, elsewhere, caplog):
    before = (tuned / "model.safetensors").read_bytes()
    with caplog.at_level(logging.WARNING):
        judged = evaluate_elsewhere(tuned, elsewhere, "all", {"Bright": "Shining"}, [])
    assert (tuned / "model.safetensors").read_bytes() == before
    assert "not judged, since the manifest has none of that name: Vague" in caplog.text
    assert judged.folder == tuned / "transfer/discs"
    predictions = pl.read_parquet(judged.folder / "predictions.parquet")
    cases = Manifest.load(elsewhere).cases
    assert dict(predictions.select("case_id", "target").rows()) == dict(cases.select("case_id", "label.Shining").rows())
    assert set(predictions["name"]) == {"Bright"}
    (found,) = (row for row in judged.scores if row["metric"] == "auroc")
    assert found["mean"] == pytest.approx(auroc(predictions["target"], predictions["prediction"]))
    assert 0.8 < found["low"] <= found["mean"] <= found["high"] <= 1
    assert not any("temperature" in row["metric"] for row in judged.scores), "nothing is fitted on their labels"
    account = json.loads((judged.folder / "predictions.json").read_text())
    assert account["manifest"] == Manifest.load(elsewhere).digest
    assert (account["card"], account["split"], account["cases"]) == ("discselsewhere", "all", len(cases))
    assert account["scores"] == judged.scores
    caplog.clear()
    swapped = evaluate_elsewhere(tuned, elsewhere, "test", {"Bright": "Hazy", "Vague": "Shining"}, [])
    assert re.search(r"was of split all, label Bright .*\(40 patients\), and is of split test, label Br", caplog.text)
    assert len(swapped.predictions.filter(name="Vague")) == 24
    assert len(swapped.predictions.filter(name="Bright")) == 12, "what is uncertain or blank there is not judged"


@pytest.mark.parametrize(("names", "message"), [
    ({"Bright": "Glowing"}, "'Glowing', which the manifest does not have.*Shining, Hazy, Radius"),
    ({"Dim": "Shining"}, "'Dim', which the run does not have.*Bright, Vague"),
    ({}, "no 'Bright', 'Vague'.*Shining, Hazy, Radius.*--label 'Bright=their name'"),
])
def test_names_that_nobody_has_are_refused(tuned, elsewhere, names, message):
    with pytest.raises(ConfigError, match=message):
        evaluate_elsewhere(tuned, elsewhere, "all", names, [])


def test_classes_of_which_a_case_has_one_are_judged_all_or_not_at_all(elsewhere, discs):
    config = Classify.Config(labels=("Bright", "Vague"), kind="single_label")
    task = build_task(config, build_encoder(UNetEncoder.Config(dims=2, widths=(4, 8))), {})
    data = open_data(discs.model_copy(update={"manifest": elsewhere}))
    with pytest.raises(ConfigError, match="no 'Vague'.*Shining, Hazy, Radius.*--label 'Vague=their name'"):
        in_our_names(task, data, {"Bright": "Shining"})
    judged = in_our_names(task, data, {"Bright": "Shining", "Vague": "Hazy"})
    assert judged.cases["label.Vague"].equals(data.cases["label.Hazy"], null_equal=True)


def test_patients_that_the_run_saw_are_refused_elsewhere_too(tuned, discs):
    with pytest.raises(LeakageError, match="trained on 24 of the 40"):
        evaluate_elsewhere(tuned, discs.manifest, "all", {}, [])


def test_a_segmentation_finds_its_regions_by_their_names_there(discs, elsewhere, tmp_path):
    run = finetune(recipe(discs, name="segment"), tmp_path)
    with pytest.raises(ConfigError, match="no 'disc'.*regions.*ball"):
        evaluate_elsewhere(run, elsewhere, "test", {}, [])
    judged = evaluate_elsewhere(run, elsewhere, "test", {"disc": "ball"}, [])
    (dice,) = (row["mean"] for row in judged.scores if row["metric"] == "dice")
    assert dice > 0.3
    assert set(judged.predictions.filter(~pl.col("name").str.contains("/"))["name"]) == {"disc"}


def test_names_are_given_in_pairs():
    assert read_names(["Pleural Effusion=Effusion", "A = b=c"]) == {"Pleural Effusion": "Effusion", "A": "b=c"}
    for text in ("Edema", "=Edema", "Edema="):
        with pytest.raises(ConfigError, match="'Pleural Effusion=Effusion'"):
            read_names([text])
    with pytest.raises(ConfigError, match="--label names 'A' twice"):
        read_names(["A=b", "A=c"])


def table(sizes: dict[str | None, int]) -> pl.DataFrame:
    rng, rows = np.random.default_rng(0), []
    for group, patients in sizes.items():
        for number in range(2 * patients):
            target = float(number // 2 % 2)
            rows.append((f"{group}{number}", f"{group}{number // 2}", "Edema", target,
                         float(np.clip(target + rng.normal(0, 0.6), 0, 1)), group, float(number)))
    return pl.DataFrame(rows, orient="row", schema={
        "case_id": pl.String, "patient_id": pl.String, "name": pl.String, "target": pl.Float64,
        "prediction": pl.Float64, "attr.sex": pl.String, "attr.age": pl.Float64})


def test_each_group_is_judged_on_its_own_and_small_ones_not_at_all():
    task = Classify.Config(labels=("Edema",))
    predictions = table({"female": 20, "male": 12, None: 6, "other": 2})
    found = scores_by_group(task, predictions, "sex")
    assert dict(found.select("group", "patients").unique().rows()) == {"female": 20, "male": 12, "missing": 6,
                                                                       "others": 2}
    for group in ("female", "male"):
        part = predictions.filter(pl.col("attr.sex") == group)
        (row,) = found.filter(group=group, metric="auroc").to_dicts()
        assert row["mean"] == pytest.approx(auroc(part["target"], part["prediction"]))
        assert row["low"] < row["mean"] < row["high"] or row["high"] == 1
        assert row["cases"] == 2 * row["patients"]
    assert found.filter(group="others")["metric"].to_list() == [None]


def test_findings_and_bounds_that_cannot_be_judged_are_named(caplog):
    predictions = table({"female": 20, "male": 12}).with_columns(
        target=pl.when(pl.col("attr.sex") == "male").then(0.0).otherwise("target"))
    scores_by_group(Classify.Config(labels=("Edema",)), predictions, "sex")
    scores_by_group(Regress.Config(label="Edema", below=(0.5, 7)), predictions, "sex")
    assert [record.getMessage() for record in caplog.records] == [
        "no AUROC of Edema: the judged of male are all on one side",
        "no AUROC of Edema < 7: the judged of female are all on one side",
        "no AUROC of Edema < 0.5, Edema < 7: the judged of male are all on one side"]


def test_numbers_are_judged_in_bands():
    found = scores_by_group(Classify.Config(labels=("Edema",)), table({"female": 40}), "age")
    assert found["group"].unique(maintain_order=True).to_list() == [
        "below 20", "20 to below 40", "40 to below 60", "60 and more"]
    with pytest.raises(ConfigError, match="no attribute 'site'.*sex, age"):
        scores_by_group(Classify.Config(labels=("Edema",)), table({"female": 8}), "site")


def test_a_run_on_its_own_set_tells_its_groups(tuned):
    judged = evaluate_run(tuned, "test", [])
    found = scores_by_group(judged.task, judged.predictions, "view")
    assert set(found["group"]) == {"A", "B"}
    assert found.filter(metric="auroc/Bright")["mean"].min() > 0.7
