"""How much of a finetuned model's score is left when scans are worse than those that it was made for.

Every judged case is corrupted after its preparation (corruptions.py) and predicted again. With m the primary metric on
the cases as they are, and m(c, s) under corruption c at severity s, the relative degradation is

    d(c, s) = (m - m(c, s)) / m,  or (m(c, s) - m) / m where lower is better,

and the mean relative degradation its mean over the severities of each corruption, then over corruptions. Hendrycks and
Dietterich (arXiv 1903.12261) divide sums over severities by those of another network, AlexNet; here the model's own
score on clean scans stands below the line, since no network has been scored on every hospital's scans.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import polars as pl

from medssl.data.source import Data
from medssl.errors import ConfigError
from medssl.evaluate.account import leave
from medssl.evaluate.corruptions import SEVERITIES, SUITE, CorruptedCache, Corruption
from medssl.evaluate.predict import measure_no_distances, predict
from medssl.evaluate.scoring import (
    DRAWS,
    PRIMARY,
    Rows,
    TaskKind,
    higher_is_better,
    primary_score,
    without_interval,
)
from medssl.evaluate.single import judged_folder, open_judged
from medssl.metrics.intervals import patient_weights, percentiles
from medssl.rng import stream
from medssl.tasks import LabelledModel
from medssl.train.finetune import FinetuneConfig

CLEAN, EVERY = "none", "every corruption"
SCHEMA = {"corruption": pl.String, "severity": pl.Int64, "strength": pl.Float64, "metric": pl.String,
          "score": pl.Float64, "score_low": pl.Float64, "score_high": pl.Float64,
          "degradation": pl.Float64, "degradation_low": pl.Float64, "degradation_high": pl.Float64}


@dataclass(frozen=True)
class Robustness:
    """table: as SCHEMA, and the split and its number of patients; left_out: by name, why a corruption does not suit the
    cases."""

    table: pl.DataFrame
    left_out: dict[str, str]


def robustness_run(run: Path, split: str, overrides: list[str],
                   progress: Callable[[int, int], None] | None = None) -> Robustness:
    """Judges a run on `split` under every corruption that suits it; leaves robustness.parquet in `judged_folder`.

    The table has a row for clean scans (corruption `none`, severity 0), one for each corruption and severity, and, with
    severity null, one for each corruption's mean over severities and one for the mean of those. Intervals are 95 %
    percentiles over draws of patients that all rows share, so those of degradations are paired.

    Raises:
        LeakageError: the run saw a patient of `split`.
        ConfigError: the cases of `split` do not define the metric, since a class is absent.
    """
    config, model, data, judged = open_judged(run, split, overrides)
    measure_no_distances(model)
    left_out = {each.name: reason for each in SUITE if (reason := each.reason_against(data))}
    used = [corruption for corruption in SUITE if corruption.name not in left_out]
    rows, predictions = _predictions(config, model, data, judged, used, progress)
    counted = pl.DataFrame({"patient_id": rows.patient, "case_id": rows.case})
    table = degradations(config.task.name, rows, predictions, used).with_columns(
        split=pl.lit(split), patients=pl.lit(counted["patient_id"].n_unique(), pl.Int64))
    leave(judged_folder(run) / "robustness.parquet", table, counted, data, split, config.task, _in_short(table))
    return Robustness(table, left_out)


def degradations(task: TaskKind, rows: Rows, predictions: np.ndarray, corruptions: list[Corruption]) -> pl.DataFrame:
    """The table, as SCHEMA; without intervals of fewer than FEWEST_FOR_INTERVAL patients, or so few of a class.

    predictions: (1 + C S, R), of the clean cases, then of each corruption's severities in order.
    """
    metric = PRIMARY[task]
    counts = patient_weights(np.arange(rows.patient.max() + 1), stream("bootstrap"), DRAWS).T
    scores = np.concatenate([primary_score(task, rows, predictions, each) for each in (None, counts)])  # (1 + B, U)
    if not np.isfinite(scores).all():
        raise ConfigError(f"The cases judged do not define {metric}", expected="a label with both of its classes",
                          remedy="give another --split")
    lost = _relative(scores, -1 if higher_is_better(metric) else 1)
    units = [(CLEAN, 0, 0.0)] + [(each.name, *pair) for each in corruptions
                                 for pair in zip(SEVERITIES, each.strengths, strict=True)]
    found = [(*unit, metric, *_interval(scores[:, place]), *_interval(lost[:, place]))
             for place, unit in enumerate(units)]
    by_corruption = lost[:, 1:].reshape(len(lost), len(corruptions), len(SEVERITIES)).mean(axis=2)
    means = {each.name: by_corruption[:, place] for place, each in enumerate(corruptions)}
    found += [(name, None, None, metric, None, None, None, *_interval(mean))
              for name, mean in (means | {EVERY: by_corruption.mean(axis=1)}).items()]
    table = pl.DataFrame(found, schema=SCHEMA, orient="row")
    if metric not in without_interval(task, rows, [metric]):
        return table
    ends = [name for name in SCHEMA if name.endswith(("_low", "_high"))]
    return table.with_columns(pl.lit(None, pl.Float64).alias(name) for name in ends)


def _predictions(config: FinetuneConfig, model: LabelledModel, data: Data, judged: pl.DataFrame,
                 corruptions: list[Corruption], progress: Callable[[int, int], None] | None) -> tuple[Rows, np.ndarray]:
    tables = []
    caches = [data.cache, *_caches(data, corruptions)]
    for cache in caches:
        tables.append(predict(model, replace(data, cache=cache), judged, config.augment, config.train.precision))
        if progress:
            progress(len(tables), len(caches))
    return Rows.of(tables[0]), np.stack([table["prediction"].to_numpy() for table in tables])


def _caches(data: Data, corruptions: list[Corruption]) -> Iterator[CorruptedCache]:
    for corruption in corruptions:
        for severity in SEVERITIES:
            yield CorruptedCache(data.cache, data.config.prepare, corruption, severity)


def _relative(scores: np.ndarray, sign: int) -> np.ndarray:
    """(B, U) -> how much worse each unit is than the first, as a share of it; NaN where that is 0."""
    clean = scores[:, :1]
    return sign * (scores - clean) / np.where(clean == 0, np.nan, clean)


def _in_short(table: pl.DataFrame) -> list[dict]:
    """The score of clean scans, and the mean relative degradation of each corruption and of all."""
    clean = table.row(by_predicate=pl.col("corruption") == CLEAN, named=True)
    rows = [{"metric": f"{clean['metric']} of clean scans", "mean": clean["score"], "low": clean["score_low"],
             "high": clean["score_high"]}]
    return rows + [{"metric": f"mean relative degradation by {row['corruption']}", "mean": row["degradation"],
                    "low": row["degradation_low"], "high": row["degradation_high"]}
                   for row in table.filter(pl.col("severity").is_null()).iter_rows(named=True)]


def _interval(values: np.ndarray) -> tuple[float | None, ...]:
    """(1 + B,), a point and its draws -> the point and its 95 % interval, each None where it is not defined."""
    if not np.isfinite(values[0]):
        return None, None, None
    return float(values[0]), *percentiles(values[1:])
