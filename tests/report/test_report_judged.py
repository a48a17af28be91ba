"""A finetuned run's page, from what its judgements left in its folder; and failures, on it and on a curve's."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from small_sets import SMALL, write_discs
from test_report_page import Page

from medssl.data.manifest import Manifest
from medssl.data.prepare import prepare
from medssl.data.source import DataConfig
from medssl.errors import RunError
from medssl.evaluate import single
from medssl.evaluate.by_group import scores_by_group
from medssl.evaluate.failures import CASES, FALSE_ALARM, MISSED, UNCHOSEN
from medssl.evaluate.ood import strangers
from medssl.evaluate.robustness import robustness_run
from medssl.evaluate.single import evaluate_elsewhere, evaluate_run
from medssl.export.one_file import write_file
from medssl.files import write_table
from medssl.report.pages import report_runs
from medssl.report.reliability import draw_reliability
from medssl.report.robustness import draw_robustness
from medssl.train.finetune import FinetuneConfig, finetune


def config(discs: DataConfig, task: dict) -> FinetuneConfig:
    return FinetuneConfig.model_validate({
        "title": "Which discs are bright?", "encoder": SMALL["encoder"], "data": discs, "augment": SMALL["augment"],
        "task": task, "train": {**SMALL["train"], "steps": 60, "optim": {"lr": 0.02}}})


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory, discs: DataConfig) -> Path:
    task = {"name": "classify", "labels": ["Bright"]}
    return finetune(config(discs, task), tmp_path_factory.mktemp("tuned") / "discs")


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory, discs: DataConfig) -> Path:
    elsewhere = write_discs(tmp_path_factory.mktemp("other"), salt="other")
    prepare(Manifest.load(elsewhere.manifest), discs.cache, discs.prepare, workers=0)
    moved = elsewhere.manifest.with_name("ward.parquet")
    return Path(elsewhere.manifest).rename(moved)


@pytest.fixture(scope="module")
def judged_once(tuned: Path, other: Path) -> Path:
    found = evaluate_run(tuned, "test", [], "view")
    draw_reliability(found.folder)
    write_table(found.folder / "by_view.parquet", scores_by_group(found.task, found.predictions, "view"))
    evaluate_elsewhere(tuned, other, "all", {}, [])
    robustness_run(tuned, "test", [])
    draw_robustness(tuned)
    strangers(tuned, other, "test", [])
    return tuned


@pytest.fixture
def judged(judged_once: Path, tmp_path: Path) -> Path:
    """A test's own copy."""
    return shutil.copytree(judged_once, tmp_path / "discs")


def test_a_run_that_was_not_judged_is_told_how_to(discs, tmp_path):
    run = finetune(config(discs, {"name": "regress", "label": "Radius", "unit": "pixels"}), tmp_path / "radius")
    page = Page(report_runs([run], tmp_path / "page.html", "A page"))
    assert "It was not judged yet: medssl evaluate does" in page.text
    assert "Its finetuning" in page.text
    assert "How to read this page" not in page.text, "which is about curves"
    found = evaluate_run(run, "test", []).predictions
    page = Page(report_runs([run], tmp_path / "page.html", "A page"))
    assert "MAE, pixels" in page.text
    assert "The worst cases" in page.text
    assert "Agreement, pixels, with 95 % intervals" in page.text
    differences = (found["prediction"] - found["target"]).to_numpy()
    bias, spread = differences.mean(), 1.96 * differences.std(ddof=1)
    shown = [value for value, _ in page.data if value is not None]
    for expected in (bias, bias - spread, bias + spread):
        assert min(abs(value - expected) for value in shown) < 1e-9
    assert "judged best, at the median, and worst: their middle slice" in page.text


def test_a_segmentation_shows_what_it_drew_best_at_the_median_and_worst(discs, tmp_path):
    run = finetune(config(discs, {"name": "segment"}), tmp_path / "outlines")
    dice = evaluate_run(run, "test", []).predictions["prediction"]
    page = Page(report_runs([run], tmp_path / "page.html", "A page"))
    assert f"Of {len(dice)} cases, those that it drew best, at the median, and worst." in page.text
    shown, = (attrs["alt"] for tag, attrs in page.tags if tag == "img" and "drew best" in attrs["alt"])
    assert "Regions: disc." in shown
    kept = np.load(run / "examples.npz")["score"]
    assert (kept.min(), kept.max()) == (dice.min(), dice.max())


def test_pictures_of_a_judgement_never_lie_beside_another_s(judged, monkeypatch):
    def full(*_: object) -> None:
        raise OSError("no space left")

    before = evaluate_run(judged, "test", []).folder / "examples.npz"
    assert before.exists()
    monkeypatch.setattr(single, "leave", full)
    with pytest.raises(OSError, match="no space left"):
        evaluate_run(judged, "validation", [])
    assert not before.exists()


def test_every_score_and_interval_of_every_judgement_is_on_the_page(judged, tmp_path):
    page = Page(report_runs([judged], tmp_path / "page.html", "A page"))
    accounts = [judged / "predictions.json", judged / "transfer/ward/predictions.json", judged / "robustness.json",
                judged / "ood/ward.json"]
    shown = {value for value, _ in page.data}
    for account in accounts:
        told = json.loads(account.read_text())
        assert {score["mean"] for score in told["scores"]} <= shown, account
        assert f"{told['patients']} patients, {told['cases']} cases" in page.text
    for title in ("On its own set", "On another set: ward", "On worse scans", "Does it notice strange cases: ward",
                  "By view, each group's interval on its own", "The worst cases", "AUROC by energy"):
        assert title in page.text
    pictures = [attrs for tag, attrs in page.tags if tag == "img"]
    assert len(pictures) == 5, "reliability, cases of two sets, robustness, training"
    told = np.load(judged / "transfer/ward/examples.npz")["told"]
    assert ["truth" in each for each in told] == [True] * 3
    assert all(any(each in attrs["alt"] for attrs in pictures) for each in told)
    assert all(link.startswith(("data:", "#")) for link in page.links())
    worst = pl.read_parquet(judged / "failure_cases.parquet")
    assert set(worst["case_id"]) <= set(page.text.split())


def test_sensitivity_says_the_specificity_of_its_judgement(judged, tmp_path):
    evaluate_run(judged, "test", ["task.specificity=0.6"])
    page = Page(report_runs([judged], tmp_path / "page.html", "A page"))
    assert "sensitivity at 60 % specificity" in page.text
    assert "sensitivity at 90 % specificity" in page.text, "of the other set"


def test_what_was_judged_of_a_model_of_one_file_is_a_page(judged, tmp_path, discs):
    file = tmp_path / "model.medssl"
    write_file(judged, file)
    with pytest.raises(RunError, match=r"model.medssl was not judged yet.*medssl evaluate"):
        report_runs([file], tmp_path / "page.html")
    folder = evaluate_run(file, "test", [f"data.manifest={discs.manifest}", f"data.cache={discs.cache}"]).folder
    page = Page(report_runs([folder], tmp_path / "page.html", "A page"))
    assert "On its own set" in page.text
    assert "Its finetuning" not in page.text
    assert Page(report_runs([file, folder], tmp_path / "page.html", "A page")).source == page.source


def test_settings_of_a_judgement_that_are_not_the_trainings_are_told(judged, tmp_path):
    evaluate_run(judged, "test", ["task.pool=max"])
    assert "Judged with pool max." in Page(report_runs([judged], tmp_path / "page.html")).text
    evaluate_run(judged, "test", [])
    assert "Judged with" not in Page(report_runs([judged], tmp_path / "page.html")).text


def test_groups_have_no_sizes_where_one_is_too_small_to_be_told(judged, tmp_path):
    found, path = evaluate_run(judged, "test", [], "view"), judged / "by_view.parquet"
    table = scores_by_group(found.task, found.predictions, "view")
    small = table.head(1).with_columns(group=pl.lit("lateral"), patients=pl.lit(2, pl.Int64), metric=None)
    write_table(path, pl.concat([table.with_columns(patients=pl.lit(17, pl.Int64)), small], how="vertical_relaxed"))
    page = Page(report_runs([judged], tmp_path / "page.html"))
    assert "view lateral (fewer than 5 patients)" in page.text
    assert "17 patients" not in page.text


def test_a_damaged_account_is_named(judged, tmp_path):
    path = judged / "ood/ward.json"
    before = path.read_text()
    path.write_text(json.dumps({**json.loads(before), "patients": "many"}))
    with pytest.raises(RunError, match=r"ward.json does not fit at: patients"):
        report_runs([judged], tmp_path / "page.html", "A page")


def test_another_sets_folder_inside_of_a_run_is_no_run_of_its_own(judged, tmp_path):
    with pytest.raises(RunError, match="ward is no folder of a finished run"):
        report_runs([judged / "transfer/ward"], tmp_path / "page.html")


def test_a_folder_of_nothing_is_refused(tmp_path):
    with pytest.raises(RunError, match="is no folder of a finished run"):
        report_runs([tmp_path], tmp_path / "page.html", "A page")


# ---- a curve's


def test_failures_of_a_curve_are_listed_by_arm(make_curve, tmp_path):
    folder = make_curve()
    before = Page(report_runs([folder], tmp_path / "page.html", "A page"))
    assert "Failures" not in before.text, "of an earlier version's curve"
    pl.DataFrame({"arm": ["mae", "scratch"], "name": "Edema", "kind": "ranked too low", "failed": [2.5, 4.0],
                  "cases": 31.0, "patients": 29.0}).write_parquet(folder / "failure_counts.parquet")
    pl.DataFrame({"arm": "mae", "case_id": "case7", "score": [-3.25, -3.25], "name": ["Cardiomegaly", "Edema"],
                  "target": [0.0, 1.0], "prediction": [0.25, 0.011]}).write_parquet(folder / "failure_cases.parquet")
    pl.DataFrame({"arm": ["mae"], "lr": [0.003], "what": UNCHOSEN, "points": [4]}).write_parquet(
        folder / "failed_rates.parquet")
    page = Page(report_runs([folder], tmp_path / "page.html", "A page"))
    assert {2.5, 4.0, -3.25, 0.003} <= {value for value, _ in page.data}
    assert "case7 −3.25 Cardiomegaly 0.25, truth 0; Edema 0.01, truth 1" in page.text
    assert "0.003 taken, as none could be chosen 4" in page.text
    assert "4 of the points could choose none and took the budget's" in page.text, "in CLAIM's checklist"


def write_failures(folder: Path, counts: list[tuple]) -> None:
    """Of the arm mae; counts: name, kind, failed, cases and patients. The one case has a cyst and an oedema."""
    columns = ["name", "kind", "failed", "cases", "patients"]
    table = pl.DataFrame(counts, schema=columns, orient="row").select(pl.lit("mae").alias("arm"), pl.all())
    table.write_parquet(folder / "failure_counts.parquet")
    pl.DataFrame({"arm": "mae", "case_id": "case7", "score": -3.0, "name": ["Cyst", "Edema"], "target": 1.0,
                  "prediction": 0.25}, schema=CASES).write_parquet(folder / "failure_cases.parquet")


def test_a_finding_that_few_patients_have_is_not_counted(make_curve, tmp_path):
    folder = make_curve()
    write_failures(folder, [("Cyst", FALSE_ALARM, 7.25, 31.0, 29.0), ("Cyst", MISSED, 2.75, 6.0, 4.0),
                            ("Edema", FALSE_ALARM, 8.5, 20.0, 19.0), ("Edema", MISSED, 3.5, 15.0, 14.0)])
    page = Page(report_runs([folder], tmp_path / "page.html"))
    shown = {value for value, _ in page.data}
    assert {8.5, 3.5} <= shown
    assert not {7.25, 2.75} & shown
    assert "case7 −3.00 Edema 0.25, truth 1" in page.text
    assert "of 20" not in page.text, "the size of a class, by which another's could be reckoned"


def test_a_finding_that_a_few_have_and_nobody_lacks_is_not_told(make_curve, tmp_path):
    folder = make_curve()
    write_failures(folder, [("Cyst", MISSED, 0.0, 0.0, 3.0), ("Edema", FALSE_ALARM, 8.5, 20.0, 19.0),
                            ("Edema", MISSED, 3.5, 15.0, 14.0)])
    page = Page(report_runs([folder], tmp_path / "page.html"))
    assert "Cyst" not in page.text
    assert "case7 −3.00 Edema 0.25, truth 1" in page.text


def test_a_group_that_is_too_small_is_named_and_no_size_is_told(make_curve, tmp_path):
    folder = make_curve()
    summary = pl.read_parquet(folder / "summary.parquet").with_columns(test_patients=pl.lit(117, pl.Int64))
    groups = [summary.select(pl.lit("M").alias("attr.sex"), pl.all())]
    groups[0].write_parquet(folder / "subgroups.parquet")
    assert "sex M (117 test patients" in Page(report_runs([folder], tmp_path / "page.html")).text
    none = {name: pl.lit(None, kind) for name, kind in summary.schema.items()}
    groups.append(groups[0].head(1).with_columns(pl.lit("X").alias("attr.sex"), **none))
    pl.concat(groups).write_parquet(folder / "subgroups.parquet")
    page = Page(report_runs([folder], tmp_path / "page.html"))
    assert "sex X (fewer than 5 patients) not judged" in page.text
    assert "117 test" not in page.text


def test_a_curve_whose_recipe_was_changed_and_not_done_says_so(make_curve, tmp_path):
    folder, told = make_curve(), "Its recipe asks for something else by now"
    for now, is_stale in (("seeds: 3\ntrain: {workers: 1}\n", True), ("seeds: 2\ntrain: {workers: 9}\n", False)):
        (folder / "concluded.yaml").write_text("seeds: 2\ntrain: {workers: 1}\n")
        (folder / "recipe.yaml").write_text(now)
        page = Page(report_runs([folder], tmp_path / "page.html"))
        assert (told in page.text) == is_stale
        assert "seeds: 2" in page.text, "the recipe that the tables are of"


@pytest.mark.parametrize("content", [b"junk", b"\x89PNG\r\n\x1a\n and no more"])
def test_a_damaged_picture_is_named(judged, make_pretrain, tmp_path, content):
    run = make_pretrain()
    for path, folder in ((judged / "reliability.png", judged), (run / "pictures/views.png", run)):
        path.write_bytes(content)
        with pytest.raises(RunError, match=f"{path.name} is no whole PNG"):
            report_runs([folder], tmp_path / "page.html")


def test_a_curve_whose_recipe_is_gone_is_not_said_to_have_changed(make_curve, tmp_path):
    folder = make_curve()
    (folder / "concluded.yaml").write_text("seeds: 2\n")
    (folder / "recipe.yaml").unlink()
    assert "asks for something else" not in Page(report_runs([folder], tmp_path / "page.html")).text


@pytest.mark.parametrize(("content", "said"), [("{", "curve.json is not JSON"), ("{}", "curve.json does not fit at")])
def test_a_damaged_head_is_named(make_curve, make_pretrain, tmp_path, content, said):
    folder = make_curve()
    shutil.copytree(make_pretrain(), folder / "pretrain/mae-k0")
    (folder / "curve.json").write_text(content)
    with pytest.raises(RunError, match=said):
        report_runs([folder], tmp_path / "page.html")


@pytest.mark.parametrize(("content", "said"), [("{", "model.json is not JSON"), ("{}", "is not of format 1")])
def test_a_damaged_model_is_named_and_no_pretraining(judged, tmp_path, content, said):
    (judged / "model.json").write_text(content)
    with pytest.raises(RunError, match=said):
        report_runs([judged], tmp_path / "page.html")


def test_a_run_without_provenance_has_its_page_and_a_damaged_one_is_named(judged, tmp_path):
    path = judged / "provenance.json"
    path.write_text("{")
    with pytest.raises(RunError, match="provenance.json is not JSON"):
        report_runs([judged], tmp_path / "page.html")
    path.unlink()
    assert "On its own set" in Page(report_runs([judged], tmp_path / "page.html")).text


def test_where_nothing_has_an_interval_the_page_speaks_of_none(make_curve, tmp_path):
    folder = make_curve()
    bare = [pl.lit(None, pl.Float64).alias(name) for name in ("low", "high")]
    for table in ("summary", "comparison"):
        pl.read_parquet(folder / f"{table}.parquet").with_columns(bare).write_parquet(folder / f"{table}.parquet")
    page = Page(report_runs([folder], tmp_path / "page.html"))
    assert "Bars are" not in page.text
    assert "none of the mean AUROC, for the reason that the verdict gives" in page.text
    assert "(no interval)" in page.text
