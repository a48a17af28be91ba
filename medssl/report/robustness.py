"""A model's score against the severity of what was done to the scans, a line a corruption: a picture, and a table."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import polars as pl
from matplotlib.figure import Figure

from medssl.evaluate.corruptions import SEVERITIES
from medssl.evaluate.robustness import CLEAN, EVERY, Robustness
from medssl.evaluate.scoring import higher_is_better
from medssl.report import words
from medssl.report.figures import draw_line
from medssl.report.metric_names import metric_name
from medssl.report.style import FAINT, drawing, line_styles, new_figure, save_figure

BESIDE = 0.06
"""Severities between neighbouring lines, so that their bars stand side by side."""
NAMES, CELL = 18, 17
"""Letters of a table's first column, and of the others."""


def draw_robustness(run: Path) -> Path:
    """Writes robustness.png of the table that `medssl robustness` left in a run."""
    save_figure(run / "robustness.png", robustness_figure(pl.read_parquet(run / "robustness.parquet")))
    return run / "robustness.png"


def robustness_figure(table: pl.DataFrame) -> Figure:
    """All lines begin at the score on clean scans, severity 0; bars are 95 % intervals over patients."""
    scored = table.drop_nulls("severity").rename({"score_low": "low", "score_high": "high"})
    clean, metric = scored.filter(pl.col("corruption") == CLEAN), table["metric"][0]
    losses = dict(table.filter(pl.col("severity").is_null()).select("corruption", "degradation").rows())
    names = [name for name in losses if name != EVERY]
    direction = "higher" if higher_is_better(metric) else "lower"
    with drawing():
        figure = new_figure(7.2, 4.4)
        axes = figure.subplots()
        axes.axhline(clean["score"][0], color=FAINT, linewidth=1, zorder=1)
        for index, (name, style) in enumerate(zip(names, line_styles(["compared"] * len(names)), strict=True)):
            rows = pl.concat([clean, scored.filter(pl.col("corruption") == name)])
            aside = (index - (len(names) - 1) / 2) * BESIDE
            draw_line(axes, [severity + aside * (severity > 0) for severity in rows["severity"]], rows, "score", style)
            axes.plot([], [], **style.line(), label=f"{name}, {_lost(losses[name])}")
        axes.set_xlabel("severity (0: scans as they are)")
        axes.set_ylabel(f"{metric_name(metric)}, {direction} is better")
        axes.set_title(f"Mean relative degradation {_lost(losses[EVERY])}")
        figure.legend(loc="outside right center", title="corruption, and what it costs")
    return figure


def robustness_lines(found: Robustness) -> list[str]:
    """The score on clean scans; for each corruption its scores and what it costs, with the intervals in the line below;
    and what was left out."""
    clean, digits = found.table.row(0, named=True), words.decimals(found.table["score"])
    interval = words.interval(clean["score_low"], clean["score_high"], digits)
    lines = [f"{metric_name(clean['metric'])} on clean scans {words.number(clean['score'], digits)}, {words.LEVEL} "
             f"interval over patients {interval}",
             _line("severity", [*map(str, SEVERITIES), "share lost"])]
    for (name,), rows in found.table[1:].group_by("corruption", maintain_order=True):
        scored = rows.drop_nulls("severity").iter_rows(named=True)
        cells = [(words.number(row["score"], digits), words.interval(row["score_low"], row["score_high"], digits))
                 for row in scored] or [("", "")] * len(SEVERITIES)
        cost = rows.row(-1, named=True)
        low, high = (_lost(cost[f"degradation_{end}"]) for end in ("low", "high"))
        interval = words.MISSING if low == words.MISSING else f"{low} to {high}"
        values, intervals = zip(*cells, (_lost(cost["degradation"]), interval), strict=True)
        lines += [_line(name, values), _line("", intervals)]
    return lines + [f"left out: {name}, since {reason}" for name, reason in found.left_out.items()]


def _line(name: str, cells: Sequence[str]) -> str:
    return (name.ljust(NAMES) + "".join(cell.ljust(CELL) for cell in cells)).rstrip()


def _lost(share: float | None) -> str:
    return words.MISSING if share is None else f"{words.number(100 * share, 1)} %"
