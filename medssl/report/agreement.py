"""How far predicted quantities lie from the measured ones, as Bland & Altman draw it (Lancet 327:307, 1986)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import polars as pl
from matplotlib.figure import Figure

from medssl.evaluate.scoring import ONE
from medssl.report import words
from medssl.report.cells import Cell, Group, Table
from medssl.report.figures import new_panels
from medssl.report.judged import Agreement
from medssl.report.layout import Picture, drawn
from medssl.report.style import FAINT, HUES, INK, drawing

NAMES = {"bias": "bias", "lower": "lower limit of agreement", "upper": "upper limit of agreement"}


@dataclass(frozen=True)
class AgreementPart:
    """The share of a page that is about agreement."""

    picture: Picture
    table: Table


def agreement_part(found: Agreement | None, labels: Mapping[str, str], unit: str) -> AgreementPart | None:
    """None where nothing was predicted but classes or masks, or too little was judged.

    labels: what the arms are called, in the order of the page; "" where there is but one model.
    """
    if found is None or found.limits.is_empty():
        return None
    table = _table(found, labels, unit)
    told = "; ".join(f"{group.name}: bias {group.rows[0][1].text}, limits {group.rows[1][1].text} to "
                     f"{group.rows[2][1].text}" for group in table.groups)
    whose, means = ("", "") if ONE in labels else (", with the most labels and the first of the label seeds",
                                                   ", means over the seeds")
    caption = (f"Predicted minus measured against their mean, a point a judged case{whose}. Lines are the bias and the "
               f"limits within which 95 % of the differences lie{means}.")
    return AgreementPart(drawn(lambda narrow: agreement_figure(found, labels, unit, narrow), f"{caption} {told}.",
                               caption), table)


def agreement_figure(found: Agreement, labels: Mapping[str, str], unit: str, narrow: bool = False) -> Figure:
    """A panel an arm and quantity, all with one scale of differences."""
    unit = f" ({unit})" if unit else ""
    shown = _shown(found, labels)
    with drawing():
        figure, panels = new_panels(len(shown), narrow, height=2.6)
        for index, (axes, (arm, name, called)) in enumerate(zip(panels, shown, strict=True)):
            cases = found.cases.filter(pl.col("arm") == arm, pl.col("name") == name)
            measured, predicted = cases["target"].to_numpy(), cases["prediction"].to_numpy()
            axes.sharey(panels[0])
            axes.scatter((measured + predicted) / 2, predicted - measured, s=9, alpha=0.55, linewidth=0,
                         color=HUES[index % len(HUES)])
            axes.axhline(0, color=FAINT, linewidth=0.8)
            for row in _limits(found, arm, name).iter_rows(named=True):
                axes.axhline(row["mean"], color=INK, linewidth=1.2, linestyle="-" if row["measure"] == "bias" else "--")
            axes.set_title(called)
            axes.set_xlabel(f"mean of measured and predicted {name}{unit}")
        for axes in panels if narrow else panels[:1]:
            axes.set_ylabel(f"predicted minus measured{unit}")
    return figure


def _table(found: Agreement, labels: Mapping[str, str], unit: str) -> Table:
    groups = []
    for arm, name, called in _shown(found, labels):
        rows = _limits(found, arm, name).rows(named=True)
        digits = words.decimals(row["mean"] for row in rows)
        body = [[Cell(NAMES[row["measure"]]), Cell(words.number(row["mean"], digits, signed=True), row["mean"],
                 words.interval(row["low"], row["high"], digits, signed=True))] for row in rows]
        groups.append(Group(called, body))
    most = "" if ONE in labels else " with the most labels"
    unit = f", {unit}" if unit else ""
    return Table(f"Agreement{most}{unit}, with {words.LEVEL} intervals", ["measure", "value"], groups)


def _shown(found: Agreement, labels: Mapping[str, str]) -> list[tuple[str, str, str]]:
    """Arm, quantity, and what the two are called."""
    limits = found.limits
    return [(arm, name, ", ".join(filter(None, (label, name)))) for arm, label in labels.items()
            for name in limits.filter(pl.col("arm") == arm)["name"].unique(maintain_order=True)]


def _limits(found: Agreement, arm: str, name: str) -> pl.DataFrame:
    return found.limits.filter(pl.col("arm") == arm, pl.col("name") == name)
