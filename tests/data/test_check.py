"""What `check` finds, and that it finds nothing in a sound set."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from data_folders import changed, write_volume

from medssl.data.build import build
from medssl.data.check import Finding, check, correlation_ratio
from medssl.data.manifest import Manifest


def found(findings: list[Finding], text: str) -> Finding:
    hits = [finding for finding in findings if text in finding.what]
    assert len(hits) == 1, [finding.what for finding in findings]
    return hits[0]


def case_of(manifest: Manifest, name: str) -> str:
    """The case whose first file's path holds `name`."""
    return manifest.files.filter(pl.col("path").str.contains(name, literal=True))["case_id"][0]


def test_a_sound_set_has_no_error_even_in_depth(brats: Path, card, key) -> None:
    told: list[tuple[int, int]] = []
    findings = check(build(card("brats2021"), brats, key), deep=True, progress=lambda *counts: told.append(counts))
    assert not [finding.what for finding in findings if finding.level == "error"]
    assert found(findings, "1 of 4 cases have no mask").level == "note"
    assert found(findings, "in train").level == "warning"  # a handful of patients
    assert told[-1] == (4, 4)


def test_files_that_went_missing_or_empty_after_the_build(brats: Path, card, key) -> None:
    manifest = build(card("brats2021"), brats, key)
    (brats / "BraTS2021_00000" / "BraTS2021_00000_t1.nii.gz").unlink()
    (brats / "BraTS2021_00001" / "BraTS2021_00001_t2.nii.gz").write_bytes(b"")
    findings = check(manifest)
    missing, empty = found(findings, "1 file(s) are missing"), found(findings, "1 file(s) are empty")
    assert missing.level == empty.level == "error"
    assert missing.cases == [case_of(manifest, "00000")]
    assert empty.cases == [case_of(manifest, "00001")]
    assert [finding.level for finding in findings] == sorted(
        (finding.level for finding in findings), key=["error", "warning", "note"].index
    )
    deep = check(manifest, deep=True)
    assert found(deep, "t2: ").cases == [case_of(manifest, "00001")]


def test_depth_finds_foreign_grids_strange_values_and_unreadable_files(brats: Path, card, key) -> None:
    mask = np.zeros((5, 4, 3))
    mask[0, 0] = 3
    write_volume(brats / "BraTS2021_00000" / "BraTS2021_00000_seg.nii.gz", mask)
    write_volume(brats / "BraTS2021_00001" / "BraTS2021_00001_seg.nii.gz", np.zeros((5, 4, 2)))
    write_volume(brats / "BraTS2021_00002" / "BraTS2021_00002_seg.nii.gz", np.zeros((5, 4, 3)), offset=2.0)
    (brats / "BraTS2021_00003" / "BraTS2021_00003_flair.nii.gz").write_bytes(b"no volume at all")
    manifest = build(card("brats2021"), brats, key)
    assert not [finding for finding in check(manifest) if finding.level == "error"]
    deep = check(manifest, deep=True)
    for text, name in [("mask values 3 are in no region", "00000"), ("mask has another shape", "00001"),
                       ("mask lies elsewhere", "00002"), ("flair: ", "00003")]:
        finding = found(deep, text)
        assert (finding.level, finding.cases) == ("error", [case_of(manifest, name)])
        assert finding.remedy
        assert name not in finding.what


def test_copies_across_splits_are_errors_and_within_one_warnings(chexpert: Path, card, key) -> None:
    def image(name: str) -> Path:
        return chexpert / name / "study1" / "view1_frontal.jpg"

    shutil.copy(image("train/patient00001"), image("valid/patient64541"))
    shutil.copy(image("train/patient00002"), image("train/patient00003"))
    own = changed(card("chexpert"), split={"shares": {"train": 1.0}})
    manifest = build(own, chexpert, key)
    findings = check(manifest, deep=True)
    across, within = found(findings, "same image in different splits"), found(findings, "copies of an image")
    assert (across.level, len(across.cases)) == ("error", 2)
    assert case_of(manifest, "patient64541") in across.cases
    assert (within.level, len(within.cases)) == ("warning", 2)


def test_a_patient_in_two_splits_is_an_error_in_a_manifest_of_elsewhere(chexpert: Path, card, key) -> None:
    manifest = build(card("chexpert"), chexpert, key)
    first, person = manifest.cases.select("case_id", "patient_id").row(0)
    elsewhere = pl.when(pl.col("case_id") == first).then(pl.lit("validation")).otherwise(pl.lit("train"))
    finding = found(check(replace(manifest, cases=manifest.cases.with_columns(split=elsewhere))), "more than one split")
    assert finding.level == "error"
    assert sorted(finding.cases) == manifest.cases.filter(pl.col("patient_id") == person)["case_id"].to_list()


def test_labels_are_counted_and_constant_missing_or_rare_ones_are_named(chexpert: Path, card, key) -> None:
    manifest = build(card("chexpert"), chexpert, key)
    cases = manifest.cases.with_columns(
        pl.lit(1.0).alias("label.Fracture"), pl.lit(None, pl.Float64).alias("label.Pneumonia"),
        pl.when(pl.int_range(pl.len()) < 6).then("label.Edema").alias("label.Edema"),
    )
    findings = check(replace(manifest, cases=cases))
    assert found(findings, "label Fracture is constant").level == "warning"
    assert found(findings, "label Pneumonia is missing everywhere").level == "warning"
    assert "80.0%" in found(findings, "label Edema is missing in").what
    assert found(findings, "label Edema, positive cases").level == "warning"
    positive = manifest.select(split="test").cases["label.Cardiomegaly"].sum()
    assert f"test {positive:.0f} of 6" in found(findings, "label Cardiomegaly, positive cases").what
    empty = check(replace(manifest, cases=manifest.select(split="test").cases))
    assert found(empty, "no patient to train on").level == "error"


def test_a_label_that_goes_with_an_attribute_is_noted_but_not_one_made_of_it(chexpert: Path, card, key) -> None:
    findings = check(build(card("chexpert"), chexpert, key))
    assert found(findings, "label Fracture goes with view").remedy.startswith("report results per view")
    assert not [finding for finding in findings if "label Male goes with sex" in finding.what]


def test_the_correlation_ratio_of_known_tables() -> None:
    label = pl.Series([1.0, 0.0] * 50)
    assert correlation_ratio(label, pl.Series(["a", "b"] * 50)) == pytest.approx(1.0)
    assert correlation_ratio(label, pl.Series(["a", "a", "b", "b"] * 25)) == 0.0
    # 2 × 2 table 30/20 and 20/30: φ² = 0.04; adjusted 1 − 0.96 · 99/98
    odd = pl.Series([1.0] * 30 + [0.0] * 20 + [1.0] * 20 + [0.0] * 30)
    group = pl.Series(["a"] * 50 + ["b"] * 50)
    assert correlation_ratio(odd, group) == pytest.approx(np.sqrt(1 - 0.96 * 99 / 98))
    uncertain = pl.Series([-1.0] * 50 + [1.0, 0.0] * 25)
    assert correlation_ratio(uncertain, group) == 0.0
    assert correlation_ratio(label[:10], pl.Series(["a", "b"] * 5)) == 0.0  # too few to say
    age = pl.Series(np.linspace(20, 80, 100))
    assert correlation_ratio((age > 50).cast(pl.Float64), age) > 0.9


def test_an_attribute_that_differs_from_patient_to_patient_is_suspect(chexpert: Path, card, key) -> None:
    manifest = build(card("chexpert"), chexpert, key)
    cases = manifest.cases.with_columns(pl.col("patient_id").alias("attr.view"))
    assert found(check(replace(manifest, cases=cases)), "attribute view").level == "warning"
    assert not [finding for finding in check(manifest) if "may name them" in finding.what]


def test_what_the_build_skipped_is_told_again(chexpert: Path, card, key) -> None:
    (chexpert / "train" / "patient00001" / "study1" / "view1_frontal.jpg").unlink()
    finding = found(check(build(card("chexpert"), chexpert, key)), "no file for: image")
    assert finding.what.startswith("1 left out")


def test_the_real_set_of_chest_films_shows_its_known_defects(real, card, key) -> None:
    findings = check(build(card("nih_cxr"), real("cxr_nih"), key), deep=True)
    assert not [finding for finding in findings if finding.level == "error"]
    found(findings, "label Pneumonia goes with view")
    assert found(findings, "label Hernia, positive cases").level == "warning"


def test_every_real_hippocampus_can_be_opened(real, card, key) -> None:
    findings = check(build(card("hippocampus_msd"), real("hippocampus_msd"), key), deep=True)
    assert not [finding for finding in findings if finding.level == "error"]
    assert found(findings, "1 of 160 cases have no mask").level == "note"
