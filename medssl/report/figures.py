"""The curves of a report: functions from tables to matplotlib figures. Object API only, no pyplot."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke

from medssl.evaluate.verdict import LEVEL
from medssl.report import words
from medssl.report.layout import Picture, drawn
from medssl.report.style import (
    HUES,
    INK,
    NARROW,
    WIDE,
    LineStyle,
    dodge,
    drawing,
    line_styles,
    new_figure,
    patient_axis,
    wrap,
)
from medssl.report.tables import Curve
from medssl.train.pace import PACE

LOG_POINTS = 300
"""Bins a training curve is drawn with; longer logs show each bin's mean and range."""

_NOT_HEALTH = {"step", "epoch", "lr", "seconds", "parts", *PACE}


def curve_figure(curve: Curve, metrics: Sequence[str] | None = None, narrow: bool = False) -> Figure:
    """Score against labelled patients, a line an arm with its 95 % interval; the primary metric, or small multiples.

    Args:
        metrics: a panel each; the primary metric alone where None.
        narrow: laid out for a phone, one panel below the other.
    """
    small = bool(metrics)
    metrics = list(metrics or [curve.head.primary])
    with drawing():
        figure, panels = new_panels(len(metrics), narrow, height=2.6 if small else 3.7 if narrow else 4.5)
        for axes, metric in zip(panels, metrics, strict=True):
            _score_panel(axes, curve, metric, panel_inches(figure, panels))
            if small:
                axes.set_title(curve.metric_name(metric))
                if narrow and metric != metrics[-1]:
                    axes.set_xlabel("")
            else:
                _saving(axes, curve, metric)
            direction = "higher" if curve.higher_is_better(metric) else "lower"
            unit = f" ({curve.unit(metric)})" if curve.unit(metric) else ""
            better = f"{direction} is better"
            axes.set_ylabel(f"{better}{unit}" if small else f"{curve.metric_name(metric)}{unit}, {better}")
        _legend(figure, curve, curve.arms, narrow)
    return figure


def difference_figure(curve: Curve, narrow: bool = False) -> Figure:
    """What each arm gains over its baseline, on the same patients, with the interval; above zero is better."""
    metric = curve.head.primary
    arms = [arm for arm in curve.arms if curve.differences(arm, metric).height]
    styles = _styles(curve)
    with drawing():
        figure, (axes,) = new_panels(1, narrow, height=3.2)
        axes.axhline(0, color=INK, linewidth=1.2, zorder=1)
        for index, arm in enumerate(arms):
            rows = curve.differences(arm, metric)
            _line(axes, rows, "difference", styles[arm], dodge(index, len(arms), rows["train_patients"]))
        _patient_ticks(axes, curve, metric, panel_inches(figure, [axes]))
        low, high = axes.get_ylim()
        axes.set_ylim(min(low, -0.08 * (high - low)), max(high, 0.08 * (high - low)))
        axes.axhspan(0, axes.get_ylim()[1], color="#009E73", alpha=0.06, zorder=0, linewidth=0)
        axes.text(0.995, 0.97, "better than its baseline", transform=axes.transAxes, ha="right", va="top",
                  color="#00694d", fontsize=8.5)
        unit = f" ({curve.unit(metric)})" if curve.unit(metric) else ""
        axes.set_ylabel(f"gain in {curve.metric_name(metric)}{unit}")
        names = {arm: f"{curve.label(arm)} vs {curve.label(curve.head.baselines.get(arm, ''))}" for arm in arms}
        _legend(figure, curve, arms, narrow, names)
    return figure


def training_picture(log: pl.DataFrame, caption: str) -> Picture:
    """`training_figure` for a page."""
    names = ", ".join(name.replace("_", " ") for name in log.columns if name not in ("step", "seconds"))
    return drawn(lambda narrow: training_figure(log, narrow), f"Training curves against the step: {names}.", caption)


def training_figure(log: pl.DataFrame, narrow: bool = False) -> Figure:
    """The loss and every health figure of a training log against the step; `log` has a row a logged step.

    Of an online probe, whose figures are `knn` and `knn.<label>`, only the mean over labels.
    """
    names = [name for name, kind in log.schema.items()
             if kind.is_numeric() and name not in _NOT_HEALTH and "." not in name]
    names = sorted((name for name in names if log[name].drop_nulls().len()), key=lambda name: name != "loss")
    with drawing():
        figure, panels = new_panels(len(names), narrow, height=2.3)
        for index, (axes, name) in enumerate(zip(panels, names, strict=True)):
            bins = _binned(log, name)
            color = INK if name == "loss" else HUES[index % len(HUES)]
            axes.fill_between(bins["step"], bins["low"], bins["high"], color=color, alpha=0.18, linewidth=0)
            axes.plot(bins["step"], bins["mean"], color=color, linewidth=1.6)
            axes.set_title(name.replace("_", " "))
            axes.set_xlabel("step")
            axes.locator_params(axis="x", nbins=4, integer=True)
    return figure


def new_panels(count: int, narrow: bool, height: float) -> tuple[Figure, list[Axes]]:
    """A figure with `count` panels of this height in inches: up to three side by side, on a phone one below another."""
    columns = 1 if narrow else min(count, 3) if count != 4 else 2
    rows = math.ceil(count / columns)
    width = NARROW if narrow else WIDE
    figure = new_figure(width, rows * height + 0.5)
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    for spare in axes[count:]:
        spare.remove()
    return figure, axes[:count]


def panel_inches(figure: Figure, panels: Sequence[Axes]) -> float:
    """The width that each panel will have."""
    columns = panels[0].get_subplotspec().get_gridspec().ncols
    return figure.get_figwidth() / columns - 0.85


def _score_panel(axes: Axes, curve: Curve, metric: str, inches: float) -> None:
    styles = _styles(curve)
    for index, arm in enumerate(curve.arms):
        rows = curve.scores(arm, metric)
        _line(axes, rows, "mean", styles[arm], dodge(index, len(curve.arms), rows["train_patients"]))
    _patient_ticks(axes, curve, metric, inches)


def _saving(axes: Axes, curve: Curve, metric: str) -> None:
    """Points from the best gain a verdict may claim, with fewest labels, to where its baseline scores the same."""
    scores = curve.summary.select("arm", "fraction", "metric", "train_patients", score="mean")
    clear = (curve.comparison.filter(pl.col("metric") == metric, pl.col("p_holm") < LEVEL, pl.col("difference") > 0,
                                     pl.col("multiplier") > 1)
             .join(scores, on=["arm", "fraction", "metric"]).sort("fraction", -pl.col("difference")))
    if not clear.height:
        return
    win = clear.row(0, named=True)
    score, patients = win["score"], scores.filter(pl.col("metric") == metric)["train_patients"]
    left, right = (dodge(curve.arms.index(arm), len(curve.arms), patients) for arm in (win["arm"], win["baseline"]))
    end = min(win["train_patients"] * win["multiplier"] * right, axes.get_xlim()[1])
    color = _styles(curve)[win["arm"]].color
    axes.annotate("", (end, score), (win["train_patients"] * left, score), zorder=1,
                  arrowprops={"arrowstyle": "-|>", "linestyle": "dotted", "color": color, "shrinkA": 6, "shrinkB": 0})
    times = words.multiplier(win["multiplier"], win["fraction"], curve.head.fractions)
    clear_side = -12 if curve.higher_is_better(metric) else 12  # points; beyond the end of the arrow no line is near
    in_left_half = axes.transLimits.transform((math.log10(end), score))[0] < 0.5
    axes.annotate(f"{curve.label(win['baseline'])} needs {times} the labels", (end, score), (2, clear_side),
                  textcoords="offset points", ha="left" if in_left_half else "right", va="center", color=color,
                  fontsize=8.5, fontweight="bold", path_effects=[withStroke(linewidth=3, foreground="white")], zorder=4)


def _line(axes: Axes, rows: pl.DataFrame, column: str, style: LineStyle, factor: float) -> None:
    rows = rows.drop_nulls([column, "train_patients"])
    draw_line(axes, rows["train_patients"].to_numpy() * factor, rows, column, style)


def draw_line(axes: Axes, places: Sequence[float], rows: pl.DataFrame, column: str, style: LineStyle) -> None:
    """A line through `column` with bars from `low` to `high`, a row a place; a null draws nothing."""
    middle, low, high = (rows[name].cast(pl.Float64).fill_null(float("nan")).to_numpy()
                         for name in (column, "low", "high"))
    spread = np.clip(np.nan_to_num([middle - low, high - middle]), 0, None)
    axes.errorbar(places, middle, yerr=spread, fmt="none", ecolor=style.color, elinewidth=max(1.0, 0.65 * style.width),
                  capsize=2.5, alpha=0.85, zorder=2)
    axes.plot(places, middle, **style.line(), zorder=3)


def _patient_ticks(axes: Axes, curve: Curve, metric: str, inches: float) -> None:
    rows = (curve.summary.filter(pl.col("metric") == metric).group_by("fraction")
            .agg(pl.col("train_patients").median()).sort("fraction"))
    patient_axis(axes, rows["train_patients"].to_list(), rows["fraction"].to_list(), inches)


def _styles(curve: Curve) -> dict[str, LineStyle]:
    return dict(zip(curve.arms, line_styles([curve.role(arm) for arm in curve.arms]), strict=True))


def _legend(figure: Figure, curve: Curve, arms: Sequence[str], narrow: bool,
            names: Mapping[str, str] | None = None) -> None:
    styles = _styles(curve)
    labels = [wrap((names or {}).get(arm, curve.label(arm)), 44 if narrow else 60) for arm in arms]
    handles = [Line2D([], [], **styles[arm].line(), label=label) for arm, label in zip(arms, labels, strict=True)]
    longest = max(map(len, labels), default=1)
    columns = max(1, min(int(figure.get_figwidth() / (0.074 * longest + 0.7)), len(handles)))
    by_row = [handle for first in range(columns) for handle in handles[first::columns]]  # matplotlib goes down columns
    lines = math.ceil(sum(label.count("\n") + 1 for label in labels) / columns)
    figure.set_figheight(figure.get_figheight() + 0.19 * (lines - 1))  # the panels keep their height
    figure.legend(handles=by_row, loc="outside upper left", ncols=columns, columnspacing=1.4)


def _binned(log: pl.DataFrame, name: str) -> pl.DataFrame:
    """At most LOG_POINTS rows of step, mean, low, high; NaN and infinite values are left out."""
    rows = log.select("step", pl.col(name).cast(pl.Float64)).drop_nulls().filter(pl.col(name).is_finite()).sort("step")
    size = max(1, math.ceil(rows.height / LOG_POINTS))
    return (rows.with_row_index().group_by(pl.col("index") // size, maintain_order=True)
            .agg(pl.col("step").mean(), mean=pl.col(name).mean(), low=pl.col(name).min(), high=pl.col(name).max()))
