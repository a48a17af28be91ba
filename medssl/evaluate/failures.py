"""Where models fail, with the most labels: how often in each finding or region, and on which cases worst."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from medssl.data.groups import FEWEST
from medssl.evaluate.scoring import MEASURE, ONE, TaskKind, case_scores
from medssl.files import write_table

WORST = 5
"""Cases that are listed of each arm."""
COUNTS = {"arm": pl.String, "name": pl.String, "kind": pl.String, "failed": pl.Float64, "cases": pl.Float64,
          "patients": pl.Float64}
CASES = {"arm": pl.String, "case_id": pl.String, "score": pl.Float64, "name": pl.String, "target": pl.Float64,
         "prediction": pl.Float64}
RATES = {"arm": pl.String, "lr": pl.Float64, "what": pl.String, "points": pl.Int64}
TABLES = {"failure_counts": COUNTS, "failure_cases": CASES, "failed_rates": RATES}
MISSED, FALSE_ALARM, EMPTY = "ranked too low", "ranked too high", "Dice of 0"
DIVERGED, UNCHOSEN = "diverged, not chosen", "taken, as none could be chosen"
MODEL = ["arm", "seed", "pretraining"]


@dataclass(frozen=True)
class Failures:
    """counts: as COUNTS; cases: as CASES, of each arm the WORST from the worst on, a row a name; rates: as RATES, of a
    curve alone."""

    counts: pl.DataFrame
    cases: pl.DataFrame
    rates: pl.DataFrame | None = None

    @property
    def tables(self) -> dict[str, pl.DataFrame]:
        found = dict(zip(TABLES, (self.counts, self.cases, self.rates), strict=True))
        return {name: table for name, table in found.items() if table is not None}


def failures(task: TaskKind, predictions: pl.DataFrame, arms: Sequence[str]) -> Failures:
    """Of the largest fraction's models.

    A count is the mean over an arm's models, folds taken together, of the cases that it failed on, of `cases` that have
    it to fail on:
        ranked too low    (classify) has the finding, and scores below more than half of those judged without it
        ranked too high   (classify) lacks the finding, and scores above more than half of those judged with it; one
                          that is level counts half, in both
        Dice of 0         (segment) none of the region was found, or some was drawn where there is none
    A regression's failures have a size and no number, so that it has no counts. `patients` is how many have such a
    case, whether or not there are others to rank it against.

    The worst cases are those of the lowest `scoring.case_scores` over all models of the arm, by what is told alone
    (`without_few`); what was predicted for them is the mean over models.

    Args:
        predictions: of a whole curve, as `resample.COLUMNS`, and pretraining.
        arms: those that are told of, in this order.
    """
    most = predictions.filter(pl.col("fraction") == pl.col("fraction").max())
    if task == "segment":
        most = most.filter(MEASURE == "dice")
    parts = [most.filter(pl.col("arm") == arm) for arm in arms]
    counts = pl.concat([_counts(task, part) for part in parts])
    return Failures(counts, pl.concat([_worst(task, without_few(task, part)) for part in parts]))


def without_few(task: TaskKind, predictions: pl.DataFrame) -> pl.DataFrame:
    """Without findings that fewer than FEWEST patients have or lack, of whom one case's truth might tell."""
    if task != "classify":
        return predictions
    sides = predictions.group_by("name", "target").agg(pl.col("patient_id").n_unique())
    few = sides.filter(pl.col("patient_id") < FEWEST)["name"]
    return predictions.filter(~pl.col("name").is_in(few.implode()))


def failures_of_one(task: TaskKind, predictions: pl.DataFrame) -> Failures:
    """`failures` of what one model predicted, as the arm ONE."""
    alone = {"arm": pl.lit(ONE), "fraction": pl.lit(1.0), "seed": pl.lit(0), "fold": pl.lit(0),
             "pretraining": pl.lit(0)}
    return failures(task, predictions.with_columns(**alone), [ONE])


def leave_failures(folder: Path, found: Failures) -> None:
    for name, table in found.tables.items():
        write_table(folder / f"{name}.parquet", table)


def failed_rates(told: Iterable[Mapping[str, Any]]) -> pl.DataFrame:
    """As RATES: at how many points of an arm a learning rate that was tried diverged, and how many could choose none
    and took the budget's, from what each point told of itself."""
    rows = [(point["arm"], lr, DIVERGED) for point in told for lr in point.get("diverged", [])]
    rows += [(point["arm"], point["lr"], UNCHOSEN) for point in told
             if point.get("lr") and point["held_out_score"] is None]
    found = pl.DataFrame(rows, schema={name: RATES[name] for name in ("arm", "lr", "what")}, orient="row")
    return found.group_by("arm", "lr", "what").agg(points=pl.len().cast(pl.Int64)).sort("arm", "lr", "what")


def _counts(task: TaskKind, part: pl.DataFrame) -> pl.DataFrame:
    """Of one arm."""
    if task == "regress":
        return pl.DataFrame(schema=COUNTS)
    if task == "segment":
        judged = part.select(*MODEL, "name", "patient_id", kind=pl.lit(EMPTY), failed=pl.col("prediction") == 0,
                             is_counted=True)
    else:
        has, unit = pl.col("target") == 1, [*MODEL, "fold", "name"]
        others = pl.len().over(unit) - pl.len().over([*unit, "target"])
        rank = pl.col("prediction").rank("average")
        below = rank.over(unit) - rank.over([*unit, "target"])  # so many of the others, and half of those level with it
        kind = pl.when(has).then(pl.lit(MISSED)).otherwise(pl.lit(FALSE_ALARM))
        judged = part.select(*MODEL, "name", "patient_id", kind=kind, is_counted=others > 0,
                             failed=pl.when(has).then(2 * below < others).otherwise(2 * below > others))
    counted = pl.col("is_counted")  # a fold without the other class ranks nobody
    a_model = judged.group_by(*MODEL, "name", "kind").agg(
        (pl.col("failed") & counted).sum().alias("failed"), counted.sum().alias("cases"),
        pl.col("patient_id").n_unique().alias("patients"))
    means = a_model.group_by("arm", "name", "kind").agg(pl.col("failed", "cases", "patients").mean())
    return means.sort("name", "kind").select(pl.col(name).cast(kind) for name, kind in COUNTS.items())


def _worst(task: TaskKind, part: pl.DataFrame) -> pl.DataFrame:
    """Of one arm."""
    worst = case_scores(task, part).sort("score", "case_id").head(WORST)
    means = part.group_by("arm", "case_id", "name").agg(pl.col("target").first(), pl.col("prediction").mean())
    told = worst.join(means, on="case_id", how="left").sort("score", "case_id", "name")
    return told.select(pl.col(name).cast(kind) for name, kind in CASES.items())
