"""What a set looks like: how its figures spread, and who is in which split."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image

from medssl.data.build import build
from medssl.data.card import Card
from medssl.data.checks.facts import FACTS
from medssl.data.manifest import Manifest
from medssl.report.cohort import BINS, WIDE, Shares, shares, spreads

CARD = Card.model_validate({
    "name": "films", "about": "A test.", "layout": "table", "kind": "image", "modality": "DX",
    "tables": [{"path": "films.csv"}], "files": {"image": "{file}.png"}, "patient": "{file}",
    "split": {"source": "{part}"}, "labels": {"columns": ["edema", "ejection"]},
    "attributes": {"age": {"source": "{age}", "unit": "years"}, "site": "{site}"}})


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    """20 patients, 15 in train and 5 in test."""
    columns = {
        "file": [f"p{number:02}" for number in range(20)], "part": ["train"] * 15 + ["test"] * 5,
        "edema": [1] * 3 + [0] * 9 + [-1] * 2 + [None] + [1] * 2 + [0] * 3, "ejection": [*range(20, 58, 2), 5000],
        "age": [None, 99, *range(30, 84, 3)], "site": ["north"] * 11 + ["MEIER", None] + ["south"] * 6 + ["north"]}
    pl.DataFrame(columns).write_csv(tmp_path / "films.csv")
    for name in columns["file"]:
        Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / f"{name}.png")
    return build(CARD, tmp_path, bytes(32))


def table(tables: list[Shares], title: str) -> dict[str, list[str]]:
    (one,) = [one for one in tables if one.title == title]
    assert one.splits == ["train", "test"]
    return {name: [f"{share.count}/{share.total}" for share in row] for name, row in one.rows}


def test_classes_are_counted_by_split_without_the_uncertain_and_the_missing(manifest: Manifest) -> None:
    assert table(shares(manifest, None), "positive for label") == {"edema": ["3/12", "2/5"]}


def test_terms_that_few_patients_have_are_not_shown(manifest: Manifest) -> None:
    assert table(shares(manifest, None), "site") == {
        "north": ["11/15", "1/5"], "south": ["2/15", "4/5"], "others": ["1/15", "0/5"], "missing": ["1/15", "0/5"]}


def test_numbers_are_cut_into_round_bands_that_an_outlier_does_not_stretch(manifest: Manifest) -> None:
    ages = table(shares(manifest, None), "age")
    between = ["40 to below 50", "50 to below 60", "60 to below 70", "70 to below 80"]
    assert list(ages) == ["below 40", *between, "80 and more", "missing"]
    assert ages["below 40"] == ["4/15", "0/5"]
    assert ages["80 and more"] == ["1/15", "1/5"]
    assert ages["missing"] == ["1/15", "0/5"]
    ejection = table(shares(manifest, None), "label ejection")
    assert list(ejection) == ["below 30", "30 to below 40", "40 to below 50", "50 and more"]
    assert ejection["50 and more"] == ["0/15", "5/5"]
    assert sum(int(cell.split("/")[0]) for row in ejection.values() for cell in row) == 20


def test_regions_are_counted_in_the_masks(manifest: Manifest) -> None:
    known = replace(manifest, card=manifest.card.model_copy(update={"regions": {"lesion": [1], "core": [2, 3]}}))
    cases = manifest.cases.sort("split", descending=True)["case_id"]  # train, then test
    values = [[0.0, 1.0]] * 4 + [[0.0]] * 11 + [[0.0, 3.0]] * 5
    facts = pl.DataFrame([{"case_id": case, "role": "mask", "channel": 0, "values": value}
                          for case, value in zip(cases, values, strict=True)], schema=FACTS)
    assert table(shares(known, facts), "masks that hold") == {"lesion": ["4/15", "0/5"], "core": ["0/15", "5/5"]}


def facts_of(middles: list[float], **more: list) -> pl.DataFrame:
    rows = [{"case_id": f"c{number}", "role": "flair", "channel": 0, "kind": "volume", "shape": [20, 128, 128],
             "spacing": [3.0, 1.0, 1.0 + 0.5 * (number == 0)], "minimum": 0.0, "maximum": 900.0, "middle": middle}
            for number, middle in enumerate(middles)]
    unread = {"case_id": "broken", "role": "flair", "what": "The file ends"}
    return pl.DataFrame([*rows, unread], schema=FACTS)


def test_histograms_hold_every_case_once_and_outliers_at_the_end() -> None:
    headed = dict(spreads(facts_of([5.0] * 40 + [6.0] * 19 + [29.0])))
    slices, rows, columns = headed["Spacing, mm between"]
    assert [one.title for one in (slices, rows, columns)] == ["slices", "rows", "columns"]
    assert (rows.counts, rows.told) == ([], "1 in all 60 cases")
    assert (columns.counts[0], columns.counts[-1], columns.low, columns.high) == (59, 1, "1", "1.5")
    assert headed["Size, number of"][0].told == "20 in all 60 cases"
    (brightness,) = headed["Brightness, the median above the background"]
    assert brightness.counts == [40, 19, *[0] * (BINS - 3), 1]
    assert brightness.told == "median 5, 60 cases"


def test_values_of_many_magnitudes_are_binned_in_ratio() -> None:
    headed = dict(spreads(facts_of([1.0, 10.0, 100.0, 1000.0 * WIDE])))
    (brightness,) = headed["Brightness, the median above the background"]
    assert sum(count > 0 for count in brightness.counts) == 4
    assert (brightness.low, brightness.high) == ("1", "50,000")
    assert brightness.told.endswith("bins growing in ratio")


def test_a_clip_has_frames_but_no_spacing_between_them() -> None:
    facts = facts_of([5.0]).with_columns(kind=pl.lit("cine"), shape=pl.lit([30, 112, 112]), spacing=pl.lit([0.5, 0.5]))
    headed = dict(spreads(facts))
    assert [one.title for one in headed["Spacing, mm between"]] == ["rows", "columns"]
    assert [one.title for one in headed["Size, number of"]] == ["frames", "rows", "columns"]
    assert spreads(facts_of([])) == []
