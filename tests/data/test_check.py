"""What `check` finds in the tables of a manifest and the sizes of its files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from data_folders import case_of, found

from medssl.data.build import build
from medssl.data.checks import check, finding_table
from medssl.data.checks.attributes import correlation_ratio
from medssl.data.checks.classes import class_counts


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
    absent = found(findings, "some labels have one class only")
    assert (absent.level, "Edema no positive in test" in absent.what) == ("warning", True)
    assert "Cardiomegaly" not in absent.what
    few = found(findings, "few patients are positive for some labels")
    patients = cases.filter(pl.col("label.Edema") == 1, split="train")["patient_id"].n_unique()
    assert (few.level, f"Edema {patients} in train" in few.what) == ("warning", True)
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


def test_classes_with_too_few_positives_for_a_fraction_are_named_with_the_number_and_a_fraction_that_has_enough(
    chexpert: Path, card, key
) -> None:
    """1,200 patients: 3 positive for one label, 80 for another, all 1,200 for a third, so 12 at 1 %."""
    manifest = build(card("chexpert"), chexpert, key)
    number = pl.int_range(pl.len())
    cases = pl.concat([manifest.cases] * 40).with_columns(
        number.cast(pl.String).alias("patient_id"), pl.lit("train").alias("split"),
        *((number < count).cast(pl.Float64).alias(f"label.{name}")
          for name, count in (("Edema", 3), ("Fracture", 80), ("Pneumonia", 1199))))
    finding = found(check(replace(manifest, cases=cases)), "too few positive training patients of some labels")
    assert finding.level == "warning"
    assert "at a label fraction of 1%: " in finding.what
    told = finding.what.split("1%: ")[1].split(", ")
    assert told[0] == "Edema 0.03 (10 at none)"
    assert "Fracture 0.8 (10 from 12.5% on)" in told
    assert "Pneumonia" not in finding.what


def test_a_class_is_counted_by_cases_and_by_patients() -> None:
    many = pl.DataFrame({"split": ["train"] * 4000, "patient_id": [f"p{i // 2}" for i in range(4000)],
                         "value": [1.0] * 400 + [0.0] * 3000 + [-1.0] * 400 + [None] * 200})
    assert class_counts(many).rows() == [("train", 400, 3000, 400, 1700, 200)]


def test_a_value_that_strays_from_a_class_is_named_but_not_one_of_a_quantity(chexpert: Path, card, key) -> None:
    manifest = build(card("chexpert"), chexpert, key)
    row = pl.int_range(pl.len())
    cases = manifest.cases.with_columns(
        pl.when(row == 3).then(9.0).otherwise(row % 2).alias("label.Edema"),
        (row % 5).cast(pl.Float64).alias("label.Fracture"))
    findings = check(replace(manifest, cases=cases))
    stray = found(findings, "label Edema holds 9 in 1 case(s)")
    assert (stray.level, stray.cases) == ("warning", [manifest.cases["case_id"][3]])
    assert not [finding for finding in findings if finding.what.startswith("label Fracture")]


def test_several_kinds_in_one_manifest_are_told(chexpert: Path, card, key) -> None:
    manifest = build(card("chexpert"), chexpert, key)
    kind = pl.when(pl.int_range(pl.len()) == 0).then(pl.lit("volume")).otherwise("kind")
    findings = check(replace(manifest, cases=manifest.cases.with_columns(kind.alias("kind"))))
    assert found(findings, "29 image(s), 1 volume(s)").remedy.startswith("give the card `kind: image`")
    assert not [finding for finding in check(manifest) if "several kinds" in finding.what]


def test_the_table_of_findings_has_a_row_a_case_and_no_path(chexpert: Path, card, key) -> None:
    manifest = build(card("chexpert"), chexpert, key)
    for view in (1, 2):
        (chexpert / "train" / "patient00003" / "study1" / f"view{view}_frontal.jpg").unlink()
    findings = check(manifest)
    table = finding_table(findings)
    missing = table.filter(pl.col("what") == "2 file(s) are missing")
    assert missing["case_id"].to_list() == found(findings, "are missing").cases
    assert missing["level"].unique().to_list() == ["error"]
    assert set(table["finding"]) == set(range(1, len(findings) + 1))
    assert set(table["case_id"].drop_nulls()) <= set(manifest.cases["case_id"])
    assert str(chexpert) not in table.write_csv()
    assert "patient00003" not in table.write_csv()
