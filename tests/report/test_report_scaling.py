"""The picture and the table of what scale brings hold what the curve's tables hold."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from medssl.report import write_report
from medssl.report.scaling import scaling_figure, scaling_part
from medssl.report.tables import Curve, read_curve

TOLD = "Model size, from 0.116 to 6.34 million parameters: no difference could be shown."
SCALING = [
    {"axis": "model", "arms": ["simsiam", "mae"], "sizes": [0.116304, 6.335232], "budget": "128,000 images seen each",
     "told": TOLD},
    {"axis": "batch", "arms": ["mae", "age", "simsiam"], "sizes": [32, 128, 512], "budget": "1,000 steps each",
     "told": "Batch size."},
]


@pytest.fixture
def folder(make_curve) -> Path:
    folder = make_curve("classify", scaling=SCALING)
    rows = pl.read_parquet(folder / "comparison.parquet").filter(pl.col("metric") == "auroc", pl.col("arm") == "mae")
    ends = [rows.with_columns(axis=pl.lit(axis["axis"]), arm=pl.lit(axis["arms"][-1]), baseline=pl.lit(axis["arms"][0]))
            for axis in SCALING]
    pl.concat(ends).write_parquet(folder / "scaling.parquet")
    return folder


@pytest.fixture
def curve(folder: Path) -> Curve:
    return read_curve(folder)


@pytest.mark.parametrize("narrow", [False, True])
def test_a_panel_an_axis_and_a_line_a_fraction_through_the_curves_own_scores(curve, narrow):
    model, batch = scaling_figure(curve, narrow).axes
    assert [axes.get_title(loc="left") for axes in (model, batch)] == ["Model size", "Batch size"]
    assert "128,000 images seen each" in model.get_xlabel()
    assert [label.get_text() for label in batch.get_xticklabels()] == ["32", "128", "512"]
    assert model.get_ylim() == batch.get_ylim()
    for axes, scaled in ((model, SCALING[0]), (batch, SCALING[1])):
        assert axes.get_xscale() == "log"
        solid = [line for line in axes.get_lines() if line.get_linestyle() == "-" and line.get_marker() != "None"]
        assert len(solid) == len(curve.head.fractions)
        for fraction, line in zip(curve.head.fractions, solid, strict=True):
            means = [curve.scores(arm, "auroc").filter(pl.col("fraction") == fraction)["mean"].item()
                     for arm in scaled["arms"]]
            assert line.get_ydata().tolist() == means
            assert line.get_xdata() == pytest.approx(np.array(scaled["sizes"]), rel=0.15)


def test_what_the_arms_are_compared_with_is_dashed_where_each_has_it(curve):
    model, batch = scaling_figure(curve).axes
    scratch = curve.scores("scratch", "auroc")["mean"].to_list()
    dashed = [line.get_ydata().tolist() for line in model.get_lines() if line.get_linestyle() == "--"]
    assert dashed == [[mean, mean] for mean in scratch]
    assert not [line for line in batch.get_lines() if line.get_linestyle() == "--"]
    (legend,) = scaling_figure(curve).legends
    assert [text.get_text() for text in legend.get_texts()][-2:] == ["100 % of the labels", "From scratch"]


def test_the_table_has_every_score_and_ends_with_the_difference(curve):
    model, batch = scaling_part(curve).table.groups
    assert (model.name, batch.name) == ("Model size (128,000 images seen each)", "Batch size (1,000 steps each)")
    assert [row[0].text for row in batch.rows] == ["32 images a batch", "128 images a batch", "512 images a batch",
                                                   "largest minus smallest"]
    assert [cell.value for cell in batch.rows[1][1:]] == curve.scores("age", "auroc")["mean"].to_list()
    differences = curve.differences("mae", "auroc")
    assert [cell.value for cell in model.rows[-1][1:]] == differences["difference"].to_list()
    assert all(" to " in cell.note for cell in model.rows[-1][1:])


def test_the_page_shows_it_beside_the_curve_and_only_where_it_was_asked_for(folder, make_curve, tmp_path):
    page = write_report(tmp_path / "page.html", "A page", [folder]).read_text()
    assert page.index("What scale brings") < page.index(TOLD) < page.index("Evidence:")
    assert 'download="curve-1-scaling.csv"' in page
    without = write_report(tmp_path / "without.html", "A page", [make_curve("classify", "other")]).read_text()
    assert "What scale brings" not in without
    assert "scaling.csv" not in without


def test_sizes_that_do_not_differ_are_drawn_none_the_less(folder):
    head = json.loads((folder / "curve.json").read_text())
    head["scaling"][1]["sizes"] = [64, 64, 64]
    (folder / "curve.json").write_text(json.dumps(head))
    batch = scaling_figure(read_curve(folder)).axes[1]
    assert [label.get_text() for label in batch.get_xticklabels() if label.get_text()] == ["64"]
