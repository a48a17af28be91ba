"""One model's metrics with intervals over its patients."""

from __future__ import annotations

import numpy as np
import polars as pl

from medssl.evaluate.scoring import Rows, TaskKind, comparable, score
from medssl.metrics.intervals import patient_weights
from medssl.rng import stream

DRAWS = 1000


def scores(task: TaskKind, predictions: pl.DataFrame) -> list[dict]:
    """Each metric with the percentile interval of a bootstrap over patients: one model has no label seeds to cover.
    Metrics that are undefined, as where a class is absent, are left out."""
    predictions = comparable(task, predictions)
    rows = Rows.of(predictions)
    values = predictions["prediction"].cast(pl.Float64).to_numpy()[None]
    patients = np.arange(rows.patient.max() + 1)
    counts = patient_weights(patients, stream("bootstrap"), DRAWS).T
    point, drawn = score(task, rows, values), score(task, rows, values, counts)
    return [{"metric": metric, "mean": float(point[metric][0, 0]), "low": float(np.quantile(draws[:, 0], 0.025)),
             "high": float(np.quantile(draws[:, 0], 0.975))} for metric, draws in drawn.items()
            if np.isfinite(point[metric]).all()]
