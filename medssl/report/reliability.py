"""How far a classifier's probabilities can be taken at their word, before and after temperature scaling."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import polars as pl
from matplotlib.figure import Figure

from medssl.report.style import FAINT, HUES, drawing, new_figure, save_figure

BINS = 10


def draw_reliability(run: Path) -> Path | None:
    """Writes reliability.png of the predictions that `medssl evaluate` left in a run; None where they were not
    calibrated."""
    predictions = pl.read_parquet(run / "predictions.parquet")
    if "calibrated" not in predictions.columns:
        (run / "reliability.png").unlink(missing_ok=True)  # of an earlier judgement
        return None
    kinds = {"as predicted": predictions["prediction"], "after temperature scaling": predictions["calibrated"]}
    figure = reliability_figure(predictions["target"].to_numpy(), {name: p.to_numpy() for name, p in kinds.items()})
    save_figure(run / "reliability.png", figure)
    return run / "reliability.png"


def reliability_figure(target: np.ndarray, probabilities: Mapping[str, np.ndarray]) -> Figure:
    """The share of positives against the mean probability in tenths of its range, a line a kind of probability; below,
    how many cases each tenth has. On the diagonal, 0.7 means seven in ten."""
    with drawing():
        figure = new_figure(4.6, 5.2)
        shares, counts = figure.subplots(2, 1, sharex=True, height_ratios=[4, 1])
        shares.plot([0, 1], [0, 1], color=FAINT, linewidth=1)
        for hue, (name, probability) in zip(HUES, probabilities.items(), strict=False):
            place = np.minimum((probability * BINS).astype(int), BINS - 1)
            held = np.unique(place)
            mean = [probability[place == each].mean() for each in held]
            positive = [target[place == each].mean() for each in held]
            shares.plot(mean, positive, marker="o", markersize=4, color=hue, linewidth=1.6, label=name)
            counts.step(np.arange(BINS + 1) / BINS, [*np.bincount(place, minlength=BINS), 0], where="post", color=hue)
        shares.set_ylabel("share of positives")
        counts.set_ylabel("cases × labels")
        counts.set_xlabel("probability that was given")
        shares.legend(loc="upper left")
    return figure
