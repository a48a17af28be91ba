"""A model's score against the severity of what was done to the scans, a line a corruption."""

from __future__ import annotations

from pathlib import Path

import polars as pl
from matplotlib.figure import Figure

from medssl.evaluate.robustness import CLEAN, EVERY
from medssl.evaluate.scoring import higher_is_better
from medssl.report import words
from medssl.report.figures import draw_line
from medssl.report.style import FAINT, drawing, line_styles, new_figure, save_figure
from medssl.report.tables import METRIC_NAMES

BESIDE = 0.06
"""Severities between neighbouring lines, so that their bars stand side by side."""


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
        axes.set_ylabel(f"{METRIC_NAMES.get(metric, metric)}, {direction} is better")
        axes.set_title(f"Mean relative degradation {_lost(losses[EVERY])}")
        figure.legend(loc="outside right center", title="corruption, and what it costs")
    return figure


def _lost(share: float | None) -> str:
    return words.MISSING if share is None else f"{words.number(100 * share, 1)} %"
