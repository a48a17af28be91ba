"""Bias and limits of agreement of a curve's regressions, with the most labels."""

from __future__ import annotations

import numpy as np
import polars as pl

from medssl.evaluate.scoring import FEWEST_FOR_INTERVAL
from medssl.metrics.agreement import limits_of_agreement
from medssl.metrics.intervals import over_patients_and_seeds, patient_weights
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
        points, drawn = (np.array([limits_of_agreement(unit["target"], unit["prediction"], each) for unit in units])
                         for each in (None, weights))  # (S R, 3) and (S R, 3, B)
        if np.isnan(points).any():
            continue
        for place, measure in enumerate(MEASURES):
            found = over_patients_and_seeds(
                points[:, place].reshape(shape), drawn[:, place].T.reshape(DRAWS, *shape),
                patients=patients.n_unique(), strata=part["fold"].n_unique())
            ends = (found.low, found.high) if found.dof and fewest >= FEWEST_FOR_INTERVAL else (None, None)
            rows.append((arm, name, measure, found.mean, *ends))
    return pl.DataFrame(rows, schema=AGREEMENT, orient="row")
