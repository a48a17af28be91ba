"""How far predicted quantities lie from the measured ones, as Bland & Altman draw it (Lancet 327:307, 1986)."""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl
from matplotlib.figure import Figure

from medssl.report import words
from medssl.report.cells import Cell, Group, Table
from medssl.report.figures import new_panels
from medssl.report.layout import Picture, drawn
from medssl.report.style import FAINT, HUES, INK, drawing
from medssl.report.tables import Curve

NAMES = {"bias": "bias", "lower": "lower limit of agreement", "upper": "upper limit of agreement"}


@dataclass(frozen=True)
class AgreementPart:
    """The share of a curve's page that is about agreement."""

    picture: Picture
    table: Table


def agreement_part(curve: Curve) -> AgreementPart | None:
    """None where nothing was predicted but classes or masks, or too little was judged."""
    if curve.agreement is None or curve.agreement.limits.is_empty():
        return None
    table = _table(curve)
    told = "; ".join(f"{group.name}: bias {group.rows[0][1].text}, limits {group.rows[1][1].text} to "
                     f"{group.rows[2][1].text}" for group in table.groups)
    caption = ("Predicted minus measured against their mean, a point a test case, with the most labels and the first "
               "of the label seeds. Lines are the bias and the limits within which 95 % of the differences lie, means "
               "over the seeds.")
    return AgreementPart(drawn(lambda narrow: agreement_figure(curve, narrow), f"{caption} {told}.", caption), table)


def agreement_figure(curve: Curve, narrow: bool = False) -> Figure:
    """A panel an arm and quantity, all with one scale of differences."""
    unit = f" ({curve.head.unit})" if curve.head.unit else ""
    shown = [(arm, name) for arm in curve.arms for name in _names(curve, arm)]
    with drawing():
        figure, panels = new_panels(len(shown), narrow, height=2.6)
        for index, (axes, (arm, name)) in enumerate(zip(panels, shown, strict=True)):
            cases = curve.agreement.cases.filter(pl.col("arm") == arm, pl.col("name") == name)
            measured, predicted = cases["target"].to_numpy(), cases["prediction"].to_numpy()
            axes.sharey(panels[0])
            axes.scatter((measured + predicted) / 2, predicted - measured, s=9, alpha=0.55, linewidth=0,
                         color=HUES[index % len(HUES)])
            axes.axhline(0, color=FAINT, linewidth=0.8)
            for row in _limits(curve, arm, name).iter_rows(named=True):
                axes.axhline(row["mean"], color=INK, linewidth=1.2, linestyle="-" if row["measure"] == "bias" else "--")
            axes.set_title(curve.label(arm) if len(_names(curve, arm)) == 1 else f"{curve.label(arm)}, {name}")
            axes.set_xlabel(f"mean of measured and predicted {name}{unit}")
        for axes in panels if narrow else panels[:1]:
            axes.set_ylabel(f"predicted minus measured{unit}")
    return figure


def _table(curve: Curve) -> Table:
    groups = []
    for arm in curve.arms:
        for name in _names(curve, arm):
            rows = _limits(curve, arm, name).rows(named=True)
            digits = words.decimals(row["mean"] for row in rows)
            body = [[Cell(NAMES[row["measure"]]), Cell(words.number(row["mean"], digits, signed=True), row["mean"],
                     words.interval(row["low"], row["high"], digits, signed=True))] for row in rows]
            groups.append(Group(f"{curve.label(arm)}, {name}", body))
    unit = f", {curve.head.unit}" if curve.head.unit else ""
    return Table(f"Agreement with the most labels{unit}, with {words.LEVEL} intervals", ["measure", "value"], groups)


def _names(curve: Curve, arm: str) -> list[str]:
    return curve.agreement.limits.filter(pl.col("arm") == arm)["name"].unique(maintain_order=True).to_list()


def _limits(curve: Curve, arm: str, name: str) -> pl.DataFrame:
    return curve.agreement.limits.filter(pl.col("arm") == arm, pl.col("name") == name)
