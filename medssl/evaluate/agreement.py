"""Bias and limits of agreement of regressions: of one model, or of a curve's with the most labels."""

from __future__ import annotations

import numpy as np
import polars as pl

from medssl.evaluate.scoring import FEWEST_FOR_INTERVAL, ONE
from medssl.metrics.agreement import limits_of_agreement
from medssl.metrics.intervals import over_patients_and_seeds, patient_weights, percentiles
from medssl.rng import stream

DRAWS = 1000
MEASURES = ("bias", "lower", "upper")
AGREEMENT = {"arm": pl.String, "name": pl.String, "measure": pl.String, "mean": pl.Float64, "low": pl.Float64,
             "high": pl.Float64}


def agreement(predictions: pl.DataFrame) -> pl.DataFrame:
    """A row an arm, quantity and measure, `bias` or the `lower` or `upper` limit of agreement: the mean over label
    seeds and pretrainings at the largest fraction, with its 95 % interval over these and test patients; null with one
    seed. A quantity of which a single case was judged has no limits, and no row.

    predictions: as `resample` takes them.
    """
    rows = []
    most = predictions.filter(pl.col("fraction") == pl.col("fraction").max())
    for (arm, name), part in most.group_by("arm", "name", maintain_order=True):
        units = part.sort("seed", "pretraining", "case_id").partition_by("seed", "pretraining", maintain_order=True)
        shape, patients = (part["seed"].n_unique(), -1), units[0]["patient_id"]
        fewest = units[0].group_by("fold").agg(pl.col("patient_id").n_unique())["patient_id"].min()
        weights = patient_weights(patients, stream("bootstrap", "agreement"), DRAWS)
        points, drawn = (np.array([_limits(unit, each) for unit in units]) for each in (None, weights))
        # (S R, 3) and (S R, 3, B)
        if np.isnan(points).any():
            continue
        for place, measure in enumerate(MEASURES):
            found = over_patients_and_seeds(
                points[:, place].reshape(shape), drawn[:, place].T.reshape(DRAWS, *shape),
                patients=patients.n_unique())
            ends = (found.low, found.high) if found.dof and fewest >= FEWEST_FOR_INTERVAL else (None, None)
            rows.append((arm, name, measure, found.mean, *ends))
    return pl.DataFrame(rows, schema=AGREEMENT, orient="row")


def agreement_of_one(predictions: pl.DataFrame) -> pl.DataFrame:
    """`agreement` of what one model predicted, as the arm ONE, with percentile intervals over patients, as
    `scoring.with_intervals` gives them."""
    rows = []
    for (name,), part in predictions.group_by("name", maintain_order=True):
        weights = patient_weights(part["patient_id"], stream("bootstrap", "agreement"), DRAWS)
        points, drawn = _limits(part), _limits(part, weights)
        is_told = part["patient_id"].n_unique() >= FEWEST_FOR_INTERVAL
        rows += [(ONE, name, measure, float(point), *(percentiles(draws) if is_told else (None, None)))
                 for measure, point, draws in zip(MEASURES, points, drawn, strict=True) if np.isfinite(point)]
    return pl.DataFrame(rows, schema=AGREEMENT, orient="row")


def _limits(judged: pl.DataFrame, weights: np.ndarray | None = None) -> tuple[float | np.ndarray, ...]:
    return limits_of_agreement(judged["target"], judged["prediction"], weights)
