"""Who was studied, the checklist and the model card: what the folder knows, and nothing that it does not."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from small_sets import discs  # noqa: F401 (fixture)

from medssl.data.source import DataConfig, open_data
from medssl.errors import RunError
from medssl.evaluate.agreement import agreement
from medssl.report.agreement import agreement_figure, agreement_part
from medssl.report.cells import Table, cohort_tables
from medssl.report.checklist import YOURS, checklist
from medssl.report.cohort import Share, Shares
from medssl.report.html import write_report
from medssl.report.model_card import model_card
from medssl.report.study import _left_out, keep_study, read_study
from medssl.report.tables import read_curve
from medssl.rng import stream


def answers(table: Table) -> dict[str, str]:
    return {row[0].text: row[-1].text for group in table.groups for row in group.rows}


@pytest.fixture
def studied(make_curve, discs: DataConfig) -> Path:  # noqa: F811
    folder = make_curve("classify")
    keep_study(open_data(discs), folder)
    return folder


def test_a_study_is_counted_as_it_was_opened(studied, discs):  # noqa: F811
    data, study = open_data(discs), read_study(studied)
    assert study.card == "discs"
    assert study.splits == {"train": (24, 48), "validation": (4, 8), "test": (12, 24)}
    bright = data.training["label.Bright"].sum()
    positive = next(table for table in study.tables if table.title.startswith("positive"))
    rows = dict(positive.rows)
    assert (rows["Bright"][0].count, rows["Bright"][0].total) == (bright, 48)
    assert {table.title for table in study.tables} >= {"view", "label Radius"}
    where = discs.model_copy(update={"where": {"view": ["A"]}})
    keep_study(open_data(where), studied)
    assert read_study(studied).splits["train"] == (24, 24)


def test_reasons_with_a_case_s_own_numbers_are_one_reason(discs):  # noqa: F811
    data = open_data(discs)
    skipped = pl.DataFrame({"case_id": ["a", "b"], "remedy": ["", ""],
                            "reason": ["NaN in 17 of 100 voxels", "NaN in 3 of 200 voxels"]})
    assert _left_out(replace(data, skipped=skipped)) == [("NaN in # of # voxels", 2)]


def test_no_path_is_kept(studied, discs):  # noqa: F811
    text = (studied / "study.json").read_text()
    assert str(discs.manifest.parent) not in text
    assert ".png" not in text


def test_counts_of_few_are_not_told(studied):
    study = read_study(studied)
    shown = {cell.text for table in cohort_tables(study)[1:] for group in table.groups
             for row in group.rows for cell in row[1:]}
    counts = {share.count for table in study.tables for _, row in table.rows for share in row}
    assert counts & {1, 2, 3, 4}, "or the test shows nothing"
    assert "< 5" in shown
    assert not shown & {"1", "2", "3", "4"}


def test_counts_of_few_cannot_be_reckoned_from_the_others(studied):
    study = read_study(studied)
    rows = {"AP": 40, "PA": 57, "lateral": 3, "oblique": 0}
    partition = Shares("view", ["test"], [(name, [Share(count, 100)]) for name, count in rows.items()])
    positive = Shares("positive", ["test"], [("Edema", [Share(97, 100)]), ("Fracture", [Share(50, 100)])])
    *_, views, labels = cohort_tables(study.model_copy(update={"groups": [asdict(partition), asdict(positive)]}))
    assert answers(views) == {"AP": "not told", "PA": "57", "lateral": "< 5", "oblique": "0"}
    assert answers(labels) == {"Edema": "not told", "Fracture": "50"}


def test_what_was_left_out_is_listed(studied, discs):  # noqa: F811
    study = read_study(studied).model_copy(update={"left_out": [("truncated file", 3), ("no mask", 1)]})
    table = next(table for table in cohort_tables(study) if table.caption.startswith("What was left out"))
    assert answers(table) == {"truncated file": "3", "no mask": "1"}


def test_a_folder_of_an_earlier_version_has_a_page_without_it(make_curve, tmp_path):
    folder = make_curve("segment")
    assert read_study(folder) is None
    assert answers(checklist(read_curve(folder)))["33"] == YOURS
    write_report(tmp_path / "page.html", "A page", [folder])


def test_a_damaged_study_says_what_to_do(studied):
    (studied / "study.json").write_text("{")
    with pytest.raises(RunError, match=r"study.json cannot be read.*run the same medssl curve command again"):
        read_curve(studied)


def test_the_checklist_tells_what_the_run_recorded_and_leaves_the_rest(studied):
    (studied / "recipe.yaml").write_text(json.dumps({
        "data": {"where": {"view": ["AP", "PA"]}, "prepare": {"size": [64, 64], "intensity": "percentile"}},
        "task": {"name": "classify", "labels": ["Edema"], "uncertain_by_label": {"Edema": "ones"}},
        "train": {"steps": 100, "clip": None}, "choice": {"lrs": [0.1, 0.2]},
        "arms": {"scratch": {"like": "mae"}, "mae": {"init": "../smith/mae"}, "age": {"how": "pixels"}}}))
    told = answers(checklist(read_curve(studied)))
    assert told["8"] == f"kept are cases with view AP PA; inclusion and dates are {YOURS}"
    assert told["9"] == "size 64 64, intensity percentile"
    assert told["11"].startswith("the task's settings are name classify, labels Edema, uncertain_by_label.Edema ones; ")
    assert told["13"] == "no case was left out"
    assert "MAE on own scans: from mae;" in told["24"]
    assert "smith" not in " ".join(told.values()).lower()
    assert "smith" not in write_report(studied / "page.html", "A page", [studied]).read_text().lower()
    assert told["25"].startswith("steps 100; augmentation: ")
    assert "learning rates within each point by lrs 0.1 0.2" in told["26"]
    assert told["33"].startswith("train: 24 patients, 48 cases; ")
    for item in ("1–4", "5", "14–18", "19", "30", "32", "37", "39", "42"):
        assert told[item] == YOURS
    numbers = [int(number) for row in told for number in row.split("–")]
    assert numbers[0] == 1
    assert numbers[-1] == 42
    assert numbers == sorted(numbers)


def test_the_model_card_tells_every_arm_with_all_labels_and_warns(studied):
    curve = read_curve(studied)
    card = answers(model_card(curve))
    most = curve.summary.filter(pl.col("fraction") == 1.0, pl.col("metric") == "auroc")
    for arm, mean in most.select("arm", "mean").iter_rows():
        assert f"{curve.label(arm)}: mean AUROC {mean:.3f}" in card["Measured"]
    assert "1 to 5 label seeds; 10 or more are needed before a claim" in card["Caveats"]
    assert "Nothing here was cleared as a medical device" in card["Intended use"]
    assert YOURS in card["Data and ethics"]


def test_best_median_and_worst_are_shown(make_curve, tmp_path):
    folder = make_curve("classify")
    (folder / "examples").mkdir()
    image = np.linspace(0, 1, 3 * 20 * 24).reshape(3, 20, 24).astype(np.float16)
    for arm in ("scratch", "mae"):
        np.savez(folder / f"examples/{arm}.npz", image=image,
                 told=np.array([f"Edema: {p}, truth 1" for p in (0.9, 0.5, 0.1)]))
    curve = read_curve(folder)
    assert set(curve.ranked) == {"scratch", "mae"}
    page = write_report(tmp_path / "page.html", "A page", [folder]).read_text()
    assert "MAE on own scans, worst: Edema: 0.1, truth 1" in page
    assert answers(checklist(curve))["37"] == "the worst cases are shown on this page"


def test_the_compared_arm_s_best_median_and_worst_segmentations(make_curve, tmp_path):
    folder = make_curve("segment")
    for arm, scores in (("scratch", [0.9, 0.1, 0.5, 0.7]), ("mae", [0.3, 0.8, 0.6, 0.1])):
        stored = dict(np.load(folder / f"examples/{arm}.npz"))
        np.savez(folder / f"examples/{arm}.npz", **stored, score=np.array(scores))
    shown = read_curve(folder).examples["mae"]
    assert shown.ranked == [1, 2, 3]
    assert shown.only(shown.ranked).score.tolist() == [0.8, 0.6, 0.1]
    page = write_report(tmp_path / "page.html", "A page", [folder]).read_text()
    assert "Of 4 cases, those that MAE on own scans drew best, at the median, and worst." in page


def test_agreement_is_drawn_and_told(make_curve, tmp_path):
    folder, rng = make_curve("regress"), stream("agreement")
    truth = rng.normal(50, 12, 40)
    rows = [pl.DataFrame({"arm": arm, "fraction": fraction, "seed": seed, "pretraining": 0, "fold": 0, "name": "EF",
                          "target": truth, "prediction": truth + rng.normal(bias, 5, 40),
                          "case_id": [f"c{n}" for n in range(40)], "patient_id": [f"p{n // 2}" for n in range(40)]})
            for arm, bias in (("scratch", 0), ("mae", 4)) for fraction in (0.1, 1.0) for seed in range(3)]
    predictions = pl.concat(rows)
    predictions.write_parquet(folder / "predictions.parquet")
    agreement(predictions).write_parquet(folder / "agreement.parquet")
    curve = read_curve(folder)
    part = agreement_part(curve.agreement, curve.labels, "EF points")
    scratch, mae = (group.rows for group in part.table.groups)
    assert abs(scratch[0][1].value) < 1.5
    assert 2.5 < mae[0][1].value < 5.5
    assert mae[1][1].value < mae[0][1].value < mae[2][1].value
    low, high = mae[0][1].note.replace("+", "").split(" to ")
    assert float(low) < 4 < float(high)
    assert "predicted minus measured" in part.picture.caption.lower()
    figure = agreement_figure(curve.agreement, curve.labels, "EF points")
    assert [len(axes.collections[0].get_offsets()) for axes in figure.axes] == [40, 40]
    assert "Agreement with the most labels, EF points" in write_report(tmp_path / "p.html", "A", [folder]).read_text()


def test_a_single_judged_case_has_no_limits_and_no_picture(make_curve):
    folder = make_curve("regress")
    predictions = pl.DataFrame({"arm": "mae", "fraction": 1.0, "seed": [0, 1], "pretraining": 0, "fold": 0,
                                "name": "EF", "target": 50.0, "prediction": [48.0, 53.0], "case_id": "c",
                                "patient_id": "p"})
    predictions.write_parquet(folder / "predictions.parquet")
    limits = agreement(predictions)
    assert limits.is_empty()
    limits.write_parquet(folder / "agreement.parquet")
    assert agreement_part(read_curve(folder).agreement, {"mae": "MAE"}, "") is None
