"""A card for the models of a curve, after Mitchell et al., FAT* 2019 (arXiv 1810.03993).

What the run knows is filled in, and what only its authors know is marked as theirs.
"""

from __future__ import annotations

import polars as pl

from medssl.evaluate.verdict import ENOUGH_SEEDS
from medssl.report import words
from medssl.report.cells import Cell, Group, Table
from medssl.report.checklist import YOURS, seen_by_pretraining
from medssl.report.tables import Curve


def model_card(curve: Curve) -> Table:
    study, provenance = curve.study, curve.provenance
    rows = {
        "Models": f"{_kind(curve)} by medssl {provenance.get('medssl', words.MISSING)}, trained "
                  f"{str(provenance.get('started', words.MISSING))[:10]}; names, owner and contact are {YOURS}",
        "Intended use": "research on the set below. Nothing here was cleared as a medical device; any other use is "
                        f"{YOURS}",
        "Not for": "deciding about a patient; scans of another kind, scanner or population than those below, on which "
                   "it was never judged",
        "Trained and judged on": f"{study.about} {curve.head.protocol}" if study else curve.head.protocol,
        "Groups": _groups(curve),
        "Measured": "; ".join(_scores(curve)),
        "Compared": " ".join(curve.head.verdict),
        "Caveats": " ".join(_caveats(curve)),
        "Data and ethics": f"{words.sentence(seen_by_pretraining(curve))}. Consent, approval and the licence of the "
                           f"data are {YOURS}",
    }
    return Table("Model card", ["", ""], [Group("", [[Cell(name), Cell(text)] for name, text in rows.items()])])


def _kind(curve: Curve) -> str:
    task = {"classify": "classifiers of", "segment": "segmentations of", "regress": "estimates of"}[curve.head.task]
    settings = curve.recipe.get("task", {})
    named = settings.get("labels") or [settings.get("label", "")]
    regions = sorted({metric.partition("/")[2] for metric in curve.metrics if metric.startswith("dice/")})
    return f"{task} {', '.join(regions or filter(None, named)) or 'the labels in the recipe'}"


def _groups(curve: Curve) -> str:
    if curve.subgroups is None and curve.recipe.get("subgroup"):
        return f"by {curve.recipe['subgroup']}, in a table that is not in the run's folder any more"
    if curve.subgroups is None:
        return "none was looked at (subgroup=... in the recipe gives the figures by sex, age, view, site or scanner)"
    return f"the table by {curve.subgroups.columns[0].removeprefix('attr.')} on this page"


def _scores(curve: Curve) -> list[str]:
    """Of every arm with all labels that were used."""
    metric, most = curve.head.primary, max(curve.head.fractions)
    rows = curve.summary.filter(pl.col("metric") == metric, pl.col("fraction") == most)
    digits, told = words.decimals(rows["mean"]), []
    for arm in curve.arms:
        for row in rows.filter(pl.col("arm") == arm).iter_rows(named=True):
            interval = "no interval" if row["low"] is None else words.interval(row["low"], row["high"], digits)
            told.append(f"{curve.label(arm)}: {curve.metric_name(metric)} {words.number(row['mean'], digits)} "
                        f"({interval})")
    return told


def _caveats(curve: Curve) -> list[str]:
    rows = curve.summary
    told = [f"{words.span(rows['test_patients'])} patients of one set: another hospital was not tried."]
    if rows["seeds"].max() < ENOUGH_SEEDS:
        told.append(f"{words.span(rows['seeds'])} label seeds; {ENOUGH_SEEDS} or more are needed before a claim.")
    if curve.head.task == "classify":
        told.append("Scores rank cases; as probabilities they may be off.")
    if curve.study and curve.study.left_out:
        count = sum(count for _, count in curve.study.left_out)
        told.append(f"{count:,} files or cases were left out, for the reasons listed on this page.")
    return told
