"""What scale brings, as a picture and a table: a panel a size of the pretraining, a line a label fraction."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, replace

import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from medssl.evaluate.scaling import size_in_words
from medssl.report import words
from medssl.report.cells import Cell, Group, Table, difference_cell, score_cell
from medssl.report.figures import draw_line, new_panels, panel_inches
from medssl.report.layout import Picture, drawn
from medssl.report.style import FAINT, LineStyle, dodge, drawing, line_styles, log_ticks
from medssl.report.tables import Curve, ScalingAxis

TITLES = {"model": "Model size", "patients": "Data size", "batch": "Batch size"}
LABELS = {"model": "million parameters", "patients": "unlabelled patients", "batch": "images a batch"}


@dataclass(frozen=True)
class Scaling:
    """The share of a curve's page that is about scale."""

    told: list[str]
    picture: Picture
    table: Table


def scaling_part(curve: Curve) -> Scaling | None:
    """None where the recipe asks for none."""
    if not curve.head.scaling:
        return None
    name = words.sentence(curve.metric_name(curve.head.primary))
    caption = f"{name} against sizes of the pretraining, with {words.LEVEL} intervals over patients and label seeds"
    if curve.recipe.get("pretrainings", 1) > 1:
        caption += f", and over the {curve.recipe['pretrainings']} pretrainings a fold behind each point."
    else:
        caption += ". Behind each point is one pretraining a fold, and how another would differ is not in them."
    told = [axis.told for axis in curve.head.scaling]
    picture = drawn(lambda narrow: scaling_figure(curve, narrow), f"{caption} {' '.join(told)}", caption)
    return Scaling(told, picture, scaling_table(curve))


def scaling_figure(curve: Curve, narrow: bool = False) -> Figure:
    """The primary metric, on one scale in all panels, with the curve's own intervals; sizes on log axes."""
    axes, metric = curve.head.scaling, curve.head.primary
    styles = _styles(curve.head.fractions)
    with drawing():
        figure, places = new_panels(len(axes), narrow, height=2.9)
        for place, axis in zip(places, axes, strict=True):
            place.sharey(places[0])
            _draw_axis(place, curve, axis, styles, panel_inches(figure, places))
        direction = "higher" if curve.head.higher_is_better else "lower"
        unit = f" ({curve.unit(metric)})" if curve.unit(metric) else ""
        for place in places if narrow else places[:1]:
            place.set_ylabel(f"{curve.metric_name(metric)}{unit}, {direction} is better")
        handles = [Line2D([], [], **style.line(), label=f"{words.percent(fraction)} of the labels")
                   for fraction, style in styles.items()]
        if any(arm in curve.head.baselines for axis in axes for arm in axis.arms):
            handles.append(Line2D([], [], color=FAINT, linestyle="--", linewidth=1.4, label=_baselines(curve)))
        figure.legend(handles=handles, loc="outside upper left", ncols=1 if narrow else len(handles))
    return figure


def scaling_table(curve: Curve) -> Table:
    """A group an axis: a row an arm with its score at each fraction, then the largest minus the smallest, in pairs."""
    metric = curve.head.primary
    means = curve.summary.filter(pl.col("metric") == metric)["mean"]
    groups = []
    for axis in curve.head.scaling:
        ends = curve.ends.filter(pl.col("axis") == axis.axis).sort("fraction")
        digits = words.decimals(ends["difference"])
        rows = [[Cell(f"{size_in_words(size)} {LABELS[axis.axis]}", size, curve.label(arm)),
                 *(score_cell(row, words.decimals(means)) for row in curve.scores(arm, metric).iter_rows(named=True))]
                for arm, size in zip(axis.arms, axis.sizes, strict=True)]
        rows.append([Cell("largest minus smallest"),
                     *(difference_cell(row, digits) for row in ends.iter_rows(named=True))])
        groups.append(Group(f"{TITLES[axis.axis]} ({axis.budget})", rows))
    caption = (f"{words.sentence(curve.metric_name(metric))} by size of the pretraining, and the paired difference of "
               f"the two ends (positive is better), with {words.LEVEL} intervals")
    return Table(caption, ["size", *(f"{words.percent(f)} of the labels" for f in curve.head.fractions)], groups)


def _styles(fractions: Sequence[float]) -> dict[float, LineStyle]:
    """Dashes are left to what an arm is compared with."""
    styles = line_styles(["compared"] * len(fractions))
    return {fraction: replace(style, dashes="-") for fraction, style in zip(fractions, styles, strict=True)}


def _draw_axis(place: Axes, curve: Curve, axis: ScalingAxis, styles: dict[float, LineStyle], inches: float) -> None:
    for index, (fraction, style) in enumerate(styles.items()):
        beside = dodge(index, len(styles), axis.sizes)
        draw_line(place, [size * beside for size in axis.sizes], _rows(curve, axis.arms, fraction), "mean", style)
        baselines = [curve.head.baselines.get(arm) for arm in axis.arms]
        if all(baselines):
            means = _rows(curve, baselines, fraction)["mean"].to_list()
            place.plot(axis.sizes, means, color=style.color, linestyle="--", linewidth=1.4, alpha=0.75, zorder=1)
    ticks = sorted(set(axis.sizes))
    log_ticks(place, ticks, [[size_in_words(size) for size in ticks]], inches)
    place.set_title(TITLES[axis.axis])
    place.set_xlabel(f"{LABELS[axis.axis]} (log scale)\n{textwrap.fill(axis.budget, 34)}")


def _rows(curve: Curve, arms: Sequence[str | None], fraction: float) -> pl.DataFrame:
    """The scores of these arms at one fraction, in their order, an arm as often as it is named."""
    found = curve.summary.filter(pl.col("metric") == curve.head.primary, pl.col("fraction") == fraction)
    return pl.DataFrame({"arm": arms}).join(found, on="arm", how="left", maintain_order="left")


def _baselines(curve: Curve) -> str:
    named = {curve.head.baselines.get(arm) for axis in curve.head.scaling for arm in axis.arms} - {None}
    return curve.label(named.pop()) if len(named) == 1 else "what each is compared with"
