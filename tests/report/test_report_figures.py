"""Figures draw what the tables say."""

from __future__ import annotations

import math
from dataclasses import replace

import matplotlib
import numpy as np
import polars as pl
import pytest
from matplotlib.figure import Figure
from PIL import Image

from medssl.report import words
from medssl.report.figures import (
    LOG_POINTS,
    curve_figure,
    difference_figure,
    training_figure,
)
from medssl.report.scans import save_reconstructions, save_views, segmentation_figure
from medssl.report.style import line_styles
from medssl.report.tables import read_curve, read_pretrain


def ink(figure: Figure) -> float:
    """Share of pixels that are not white."""
    figure.canvas.draw()
    return float((np.asarray(figure.canvas.buffer_rgba())[..., :3] < 250).any(-1).mean())


def text_boxes(figure: Figure) -> list:
    """Where the tick labels of the first panel's x axis are drawn, in pixels."""
    figure.canvas.draw()
    labels = [label for label in figure.axes[0].get_xticklabels() if label.get_text()]
    return [label.get_window_extent() for label in labels]


def test_lines_pass_through_the_table(make_curve):
    curve = read_curve(make_curve("classify"))
    axes = curve_figure(curve).axes[0]
    for arm in curve.arms:
        means = curve.scores(arm, "auroc")["mean"].to_list()
        assert any(np.array_equal(line.get_ydata(), means) for line in axes.get_lines())
    assert axes.get_xscale() == "log"
    assert [label.get_text() for label in axes.get_xticklabels()][0] == "4 % · 12 patients"
    assert axes.get_ylabel() == "mean AUROC, higher is better"


def test_errors_say_unit_and_direction(make_curve):
    curve = read_curve(make_curve("regress"))
    assert curve_figure(curve).axes[0].get_ylabel() == "MAE (EF points), lower is better"
    rmse, r2 = curve_figure(curve, ["rmse", "r2"]).axes
    assert rmse.get_ylabel() == "lower is better (EF points)"
    assert r2.get_ylabel() == "higher is better"


@pytest.mark.parametrize("narrow", [False, True])
def test_small_multiples_have_a_panel_a_metric(narrow, make_curve):
    curve = read_curve(make_curve("segment"))
    figure = curve_figure(curve, curve.metrics[1:], narrow)
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["Dice · WT", "Dice · TC", "Dice · ET"]
    assert ink(figure) > 0.02


@pytest.mark.parametrize("narrow", [False, True])
@pytest.mark.parametrize("fractions", [(0.04, 0.1, 0.25, 0.5, 1.0), (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 0.75, 0.9, 1.0)])
def test_tick_labels_never_touch(fractions, narrow, make_curve):
    curve = read_curve(make_curve("classify"))
    rows = curve.summary.filter(pl.col("fraction") == 1.0)
    summary = pl.concat([rows.with_columns(fraction=pl.lit(share), train_patients=pl.lit(round(40000 * share)))
                         for share in fractions])
    boxes = text_boxes(curve_figure(replace(curve, summary=summary), narrow=narrow))
    assert len(boxes) >= 4
    assert all(left.x1 < right.x0 for left, right in zip(boxes, boxes[1:], strict=False))


def test_one_fraction_is_enough(make_curve):
    folder = make_curve("classify")
    for name in ("summary", "comparison"):
        path = folder / f"{name}.parquet"
        pl.read_parquet(path).filter(pl.col("fraction") == 0.04).write_parquet(path)
    curve = read_curve(folder)
    assert ink(curve_figure(curve)) > 0.01
    assert ink(difference_figure(curve)) > 0.01


def test_missing_intervals_are_drawn_without_bars(make_curve):
    curve = read_curve(make_curve("classify"))
    summary = curve.summary.with_columns(low=pl.lit(None, pl.Float64), high=pl.lit(math.nan))
    assert ink(curve_figure(replace(curve, summary=summary))) > 0.01


def test_difference_shows_zero_and_the_gains(make_curve):
    curve = read_curve(make_curve("regress"))
    axes = difference_figure(curve).axes[0]
    low, high = axes.get_ylim()
    assert low < 0 < high
    gains = curve.differences("mae", "mae")["difference"].to_list()
    assert any(np.array_equal(line.get_ydata(), gains) for line in axes.get_lines())


def test_the_saving_is_only_claimed_where_it_is_clear(make_curve):
    curve = read_curve(make_curve("classify"))
    told = [text.get_text() for text in curve_figure(curve).axes[0].texts]
    times = curve.differences("mae", "auroc")["multiplier"][0]
    assert f"From scratch needs {words.multiplier(times, 0.04, curve.head.fractions)} the labels" in told
    unclear = replace(curve, comparison=curve.comparison.with_columns(p_holm=pl.lit(0.2)))
    assert not [text for text in curve_figure(unclear).axes[0].texts if text.get_text()]


def test_arms_differ_by_more_than_colour():
    styles = line_styles(["baseline", *["compared"] * 6, "trivial", "trivial"])
    assert len({style.marker for style in styles}) == len(styles)
    assert len({style.color for style in styles[:7]}) == 7
    assert styles[-1].width < styles[0].width
    many = [repr(style.line() | {"color": "any"}) for style in line_styles(["compared"] * 24)]
    assert len(set(many)) == 24, "where colours come round again"


def test_training_curve_of_a_long_log_is_thinned_and_keeps_its_range(make_pretrain):
    log = read_pretrain(make_pretrain()).log
    figure = training_figure(log)
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["loss", "feature std", "effective rank"]
    line = figure.axes[0].get_lines()[0]
    assert LOG_POINTS / 2 < len(line.get_xdata()) <= LOG_POINTS
    assert figure.axes[0].dataLim.y1 == pytest.approx(log["loss"].max())


def test_training_curve_survives_nan(tmp_path):
    log = pl.DataFrame({"step": [0, 1, 2], "loss": [1.0, math.nan, 0.5], "rank": [None, None, 3.0]})
    assert ink(training_figure(log)) > 0.01


@pytest.mark.parametrize("narrow", [False, True])
def test_segmentations_show_each_arm(narrow, make_curve):
    curve = read_curve(make_curve("segment"))
    arms = {curve.label(arm): curve.examples[arm] for arm in ("scratch", "mae")}
    figure = segmentation_figure(arms, narrow)
    assert len(figure.axes) == (3 if narrow else 4) * 3
    assert ink(figure) > 0.5
    outlines = [len(axes.collections) for axes in figure.axes]
    assert outlines == [0] * 3 + [6] * 6 if narrow else [0, 6, 6] * 4  # three regions, predicted and true


def test_pictures_are_grids_of_the_given_arrays(tmp_path):
    rising = np.linspace(0, 1, 64 * 48).reshape(1, 64, 48).repeat(2, 0)
    save_views(tmp_path / "new" / "views.png", [rising, 1 - rising, rising])
    wide = np.asarray(Image.open(tmp_path / "new" / "views.png").convert("L"))
    assert wide.std() > 30
    hidden = rising.copy()
    hidden[:, :32] = np.nan
    save_reconstructions(tmp_path / "image.png", rising, hidden, rising)
    clip = np.stack([rising] * 5, 1)
    save_reconstructions(tmp_path / "clip.png", clip, clip, clip)
    image, frames = (Image.open(tmp_path / name).size for name in ("image.png", "clip.png"))
    assert frames[0] == image[0]
    assert frames[1] > 2.5 * image[1]  # three frames a case


def test_the_callers_matplotlib_settings_are_left_alone(make_curve):
    before = dict(matplotlib.rcParams)
    curve_figure(read_curve(make_curve("classify")))
    assert dict(matplotlib.rcParams) == before


@pytest.mark.parametrize(("value", "signed", "text"), [
    (0.8125, False, "0.812"), (-0.0004, True, "0.000"), (0.02, True, "+0.020"), (-0.5, True, "−0.500"),
    (math.nan, False, "–"), (None, False, "–"),
])
def test_number_words(value, signed, text):
    assert words.number(value, 3, signed) == text


@pytest.mark.parametrize(("value", "text"), [(math.inf, "> 12.5×"), (3.14159, "3.1×"), (18.2, "18×"), (0.25, "≤ 0.25×"),
                                             (None, "–")])
def test_multiplier_words(value, text):
    """At 4 % of a curve that runs from 1 % to 50 %."""
    assert words.multiplier(value, 0.04, [0.01, 0.04, 0.5]) == text


@pytest.mark.parametrize(("seconds", "text"), [(3.21, "3.2 s"), (3601, "1 h 0 min"), (5400, "1 h 30 min")])
def test_duration_words(seconds, text):
    assert words.duration(seconds) == text
