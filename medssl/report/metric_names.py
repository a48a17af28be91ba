"""Metrics as a reader meets them: their names, and the units that they are in."""

from __future__ import annotations

from collections.abc import Iterable

from medssl.evaluate.scoring import DISTANCES, SPECIFICITY, family
from medssl.report import words

NAMES = {"auroc": "AUROC", "auprc": "AUPRC", "ece": "calibration error (ECE)", "brier": "Brier score", "dice": "Dice",
         "hd95": "HD95", "assd": "surface distance", "mae": "MAE", "rmse": "RMSE", "r2": "R²", "fpr95": "FPR95"}
ERRORS = frozenset({"mae", "rmse"})
"""Measured in the target's own unit."""


def metric_name(metric: str, metrics: Iterable[str] = (), specificity: float = SPECIFICITY) -> str:
    """`dice/WT` -> "Dice · WT"; `dice` -> "mean Dice" where some of `metrics` are parts that it is the mean of; what
    follows a metric's own name stays, as in "AUROC by energy"."""
    head, _, part = metric.partition("/")
    word, gap, rest = head.partition(" ")
    name = NAMES.get(word, word) + gap + rest
    if head == "sensitivity":
        name += f" at {words.percent(specificity)} specificity"
    if part:
        return f"{name} · {part}"
    return f"mean {name}" if any(other.startswith(f"{head}/") for other in metrics) else name


def metric_unit(metric: str, unit: str) -> str:
    """unit: the target's own; distances are in mm."""
    word = family(metric).partition(" ")[0]
    return "mm" if word in DISTANCES else unit if word in ERRORS else ""
