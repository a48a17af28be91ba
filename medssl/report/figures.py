"""The pictures of a report: functions from tables or arrays to matplotlib figures. Object API only, no pyplot."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke

from medssl.evaluate.verdict import LEVEL
from medssl.report import words
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
)
from medssl.report.tables import RANKS, Curve, Examples, Ranked
from medssl.train.pace import PACE

LOG_POINTS = 300
"""Bins a training curve is drawn with; longer logs show each bin's mean and range."""

_HALO = [withStroke(linewidth=2.6, foreground=INK)]  # keeps a white line legible on white
_NOT_HEALTH = {"step", "epoch", "lr", "seconds", "parts", *PACE}
_DPI = 150


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


def training_figure(log: pl.DataFrame, narrow: bool = False) -> Figure:
    """The loss and every health figure of a pretrain log against the step; `log` has a row a logged step.

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


def segmentation_figure(arms: Mapping[str, Examples], narrow: bool = False, cases_called: Sequence[str] = ()) -> Figure:
    """A row a case: the image, then each arm's contours in colour over the reference standard in white.

    Args:
        arms: human name -> examples; all arms show the same cases in the same order.
        narrow: fewer cases, and a column a case.
        cases_called: what stands beside the cases' images.
    """
    first = next(iter(arms.values()))
    cases = min(len(first.image), 3 if narrow else 4)
    lines = [("image", None), *arms.items()]
    side = 3.6 / cases if narrow else (WIDE - 0.2) / max(len(lines), 3)
    shape = (len(lines), cases) if narrow else (cases, len(lines))
    with drawing():
        figure = new_figure(NARROW if narrow else shape[1] * side + 0.2,
                            shape[0] * side * first.image.shape[1] / first.image.shape[2] + 0.9)
        grid = figure.subplots(*shape, squeeze=False)
        grid = grid.T if narrow else grid
        for (case, column), axes in np.ndenumerate(grid):
            title, shown = lines[column]
            _show(axes, first.image[case])
            if column == 0 and cases_called:
                axes.set_title(cases_called[case], fontsize="small") if narrow else axes.set_ylabel(cases_called[case])
            if case == 0:
                axes.set_ylabel(_wrap(title, 20), fontweight="bold") if narrow else axes.set_title(_wrap(title, 28))
            if shown is not None:
                _contours(axes, shown.truth[case], len(first.regions), "white")
                _contours(axes, shown.prediction[case], len(first.regions))
        handles = [Line2D([], [], color=HUES[_region_hue(k)], label=name) for k, name in enumerate(first.regions)]
        handles.append(Line2D([], [], color="white", linewidth=1.1, path_effects=_HALO, label="reference standard"))
        figure.legend(handles=handles, loc="outside lower left", ncols=2 if narrow else 5)
    return figure


def ranked_figure(arms: Mapping[str, Ranked], narrow: bool = False) -> Figure:
    """A row an arm: the cases that it judged best, at the median and worst, with the truth and what was predicted."""
    shape = (len(arms) * len(RANKS), 1) if narrow else (len(arms), len(RANKS))
    lines = max(text.count("\n") + 1 for shown in arms.values() for text in shown.told)
    side = (NARROW if narrow else WIDE) / shape[1] - 0.2
    with drawing():
        figure = new_figure(NARROW if narrow else WIDE, shape[0] * (side + 0.3 + 0.17 * lines))
        places = iter(figure.subplots(*shape, squeeze=False).ravel())
        for name, shown in arms.items():
            for rank, image, told in zip(RANKS, shown.image, shown.told, strict=True):
                axes = next(places)
                _show(axes, image)
                axes.set_title(f"{rank}: {_wrap(name, 24)}")
                axes.set_xlabel(told, fontsize="small")
    return figure


def save_views(path: Path, images: Sequence[np.ndarray]) -> None:
    """Writes a PNG grid: a row a case, the original first and then its views.

    Args:
        images: originals, first views, second views, ...: each (n, J, I), or (n, J, I, 3) in colour, all in the
            same order of cases.
    """
    names = ["original", *(f"view {number}" for number in range(1, len(images)))]
    with drawing():
        save_figure(path, _grid([[stack[row] for stack in images] for row in range(len(images[0]))], names))


@dataclass(frozen=True)
class StrengthRow:
    """A transform's row in `save_strengths`.

    notes: how often it is done, and what the numbers in the captions mean.
    images: (J, I) each, or (J, I, 3) in colour, as prepared and then at each strength; None where there is nothing to
        show.
    """

    title: str
    notes: Sequence[str]
    images: Sequence[np.ndarray | None]
    captions: Sequence[str]


def save_strengths(path: Path, rows: Sequence[StrengthRow], heading: str) -> None:
    """Writes a PNG: a row a transform, told on the left; its images all share the first one's range of greys."""
    columns, (height, width) = len(rows[0].images), rows[0].images[0].shape[:2]
    side = WIDE / (columns + 1)
    lines = sum(max(caption.count("\n") + 1 for caption in row.captions) for row in rows)
    with drawing():
        figure = new_figure(WIDE, len(rows) * (max(side * height / width, 0.9) + 0.1) + 0.16 * lines + 0.3)
        figure.suptitle(heading, x=0.006, ha="left", fontsize=9.5)
        grid = figure.subplots(len(rows), columns + 1, squeeze=False)
        for (label, *cells), row in zip(grid, rows, strict=True):
            label.set_axis_off()
            notes = "\n".join(_wrap(note, 31) for note in row.notes)
            for text, place, style in ((row.title, 1.0, {"fontweight": "bold", "fontsize": 10}),
                                       (notes, 0.88, {"fontsize": 7.5, "linespacing": 1.35})):
                label.text(0, place, text, va="top", transform=label.transAxes, in_layout=False, **style)
            for axes, image, caption in zip(cells, row.images, row.captions, strict=True):
                if image is None:
                    axes.set_axis_off()
                    continue
                _show(axes, image, window=row.images[0])
                axes.set_title(caption, fontsize=8, fontweight="normal", pad=3)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=110)


def save_reconstructions(path: Path, originals: np.ndarray, masked: np.ndarray, reconstructions: np.ndarray) -> None:
    """Writes a PNG grid: a row a case with what it was, what the model saw, and what it made of it.

    Args:
        originals, masked, reconstructions: (n, J, I), NaN where hidden (drawn grey); or (n, T, J, I) clips, of which
            up to three frames are shown, a row each.
    """
    with drawing():
        save_figure(path, _reconstructions(originals, masked, reconstructions))


def reconstructions_picture(originals: np.ndarray, masked: np.ndarray, reconstructions: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8: what `save_reconstructions` writes."""
    with drawing():
        figure = _reconstructions(originals, masked, reconstructions)
        figure.set_dpi(_DPI)
        figure.canvas.draw()
        return np.asarray(figure.canvas.buffer_rgba())[..., :3].copy()


def _reconstructions(*stacks: np.ndarray) -> Figure:
    rows = zip(*(_frames(np.asarray(stack)) for stack in stacks), strict=True)
    return _grid(list(rows), ["original", "what the model sees", "reconstruction"])


def _frames(stack: np.ndarray) -> np.ndarray:
    """(n, T, J, I) -> (n * frames, J, I), frames evenly spread over T; (n, J, I) as it is."""
    if stack.ndim == 3:
        return stack
    picks = np.unique(np.linspace(0, stack.shape[1] - 1, min(3, stack.shape[1])).round().astype(int))
    return stack[:, picks].reshape(-1, *stack.shape[2:])


def _grid(rows: Sequence[Sequence[np.ndarray]], titles: Sequence[str]) -> Figure:
    side = min(2.4, WIDE / len(titles))
    shape = rows[0][0].shape
    figure = new_figure(side * len(titles), (side * shape[0] / shape[1]) * len(rows) + 0.35)
    grid = figure.subplots(len(rows), len(titles), squeeze=False)
    for line, row in zip(grid, rows, strict=True):
        for axes, image in zip(line, row, strict=True):
            _show(axes, image, window=row[0])
    for axes, title in zip(grid[0], titles, strict=True):
        axes.set_title(title)
    return figure


def save_figure(path: Path, figure: Figure) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=_DPI)


def _show(axes: Axes, image: np.ndarray, window: np.ndarray | None = None) -> None:
    """An image between the 0.5th and 99.5th percentile of `window` (itself by default), grey or (J, I, 3) in colour;
    NaN is a mid grey."""
    finite = image if window is None else window
    finite = finite[np.isfinite(finite)]
    low, high = np.percentile(finite, (0.5, 99.5)) if finite.size else (0.0, 1.0)
    axes.set_facecolor("#8593a0")
    shown = np.ma.masked_invalid((image - low) / max(high - low, 1e-6)).clip(0, 1)
    axes.imshow(shown, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    axes.set_xticks([])
    axes.set_yticks([])
    axes.grid(False)
    axes.spines[:].set_visible(False)


def _contours(axes: Axes, labels: np.ndarray, regions: int, color: str = "") -> None:
    """Outlines of a label map. Taking "this label or a higher one" gives nested regions one line a border."""
    for index in range(regions):
        inside = labels > index
        if inside.any() and not inside.all():
            lines = axes.contour(inside, levels=[0.5], colors=[color or HUES[_region_hue(index)]],
                                 linewidths=[1.1 if color else 1.7])
            if color:
                lines.set_path_effects(_HALO)


def _region_hue(index: int) -> int:
    """Bright hues first: vermilion, sky blue, orange stand out on grey images."""
    return (1, 4, 5, 3, 2, 0)[index % 6]


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
    labels = [_wrap((names or {}).get(arm, curve.label(arm)), 44 if narrow else 60) for arm in arms]
    handles = [Line2D([], [], **styles[arm].line(), label=label) for arm, label in zip(arms, labels, strict=True)]
    longest = max(map(len, labels), default=1)
    columns = max(1, min(int(figure.get_figwidth() / (0.074 * longest + 0.7)), len(handles)))
    by_row = [handle for first in range(columns) for handle in handles[first::columns]]  # matplotlib goes down columns
    lines = math.ceil(sum(label.count("\n") + 1 for label in labels) / columns)
    figure.set_figheight(figure.get_figheight() + 0.19 * (lines - 1))  # the panels keep their height
    figure.legend(handles=by_row, loc="outside upper left", ncols=columns, columnspacing=1.4)


def _wrap(text: str, width: int) -> str:
    return "\n".join(textwrap.wrap(text, width)) or text


def _binned(log: pl.DataFrame, name: str) -> pl.DataFrame:
    """At most LOG_POINTS rows of step, mean, low, high; NaN and infinite values are left out."""
    rows = log.select("step", pl.col(name).cast(pl.Float64)).drop_nulls().filter(pl.col(name).is_finite()).sort("step")
    size = max(1, math.ceil(rows.height / LOG_POINTS))
    return (rows.with_row_index().group_by(pl.col("index") // size, maintain_order=True)
            .agg(pl.col("step").mean(), mean=pl.col(name).mean(), low=pl.col(name).min(), high=pl.col(name).max()))
