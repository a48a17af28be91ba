"""Linear probes on features that are computed once: what an encoder knows before anyone has taught it the labels."""

from __future__ import annotations

import numpy as np
import polars as pl
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import GroupKFold

from medssl.errors import ConfigError
from medssl.metrics.classify import auroc
from medssl.tasks import TaskConfig
from medssl.tasks.classify import label_table

STRENGTHS = (0.001, 0.01, 0.1, 1.0)
"""Inverse regularisation, from strong to weak; chosen within the labelled patients alone."""
FALLBACK = 0.01
"""Where there are too few labels to choose by."""
INNER_FOLDS = 3


def probe(
    task: TaskConfig, train: np.ndarray, train_cases: pl.DataFrame, judged: np.ndarray, judged_cases: pl.DataFrame
) -> pl.DataFrame:
    """Fits on (n, D) features and judges on (m, D): one row a case and name with certain truth.

    Features are standardised on the training cases. ConfigError for dense tasks, which a probe cannot do.
    """
    if task.name == "segment":
        raise ConfigError("A probe cannot segment", expected="classify or regress", remedy="use `how: finetune`")
    mean, sd = train.mean(axis=0), train.std(axis=0)
    sd = np.where(sd > 1e-6, sd, 1.0)
    x, x_judged = (train - mean) / sd, (judged - mean) / sd
    names = task.labels if task.name == "classify" else (task.label,)
    truth, judged_truth = label_table(train_cases, names), label_table(judged_cases, names)
    patients = train_cases["patient_id"].to_numpy()
    rows = []
    for column, name in enumerate(names):
        fit = _classifier if task.name == "classify" else _regressor
        known = _certain(task, truth[:, column])
        predicted = fit(x[known], truth[known, column], patients[known], x_judged)
        sure = _certain(task, judged_truth[:, column])
        rows.append(judged_cases.filter(pl.Series(sure, dtype=pl.Boolean)).select(
            "case_id", "patient_id", pl.lit(name).alias("name"), pl.Series("target", judged_truth[sure, column]),
            pl.Series("prediction", predicted[sure].astype(np.float64)), pl.col("^attr\\..*$")))
    return pl.concat(rows)


def _certain(task: TaskConfig, truth: np.ndarray) -> np.ndarray:
    return np.isin(truth, (0, 1)) if task.name == "classify" else np.isfinite(truth)


def _classifier(x: np.ndarray, y: np.ndarray, patients: np.ndarray, x_judged: np.ndarray) -> np.ndarray:
    if len(np.unique(y)) < 2:
        return np.full(len(x_judged), float(y.mean()) if len(y) else 0.5)

    def predicted(strength: float, rows: np.ndarray, others: np.ndarray) -> np.ndarray:
        if len(np.unique(y[rows])) < 2:
            return np.full(len(others), y[rows].mean())
        model = LogisticRegression(C=strength, max_iter=300)
        return model.fit(x[rows], y[rows]).predict_proba(others)[:, 1]

    strength = _best_strength(predicted, lambda truth, score: auroc(truth, score), x, y, patients)
    return predicted(strength, np.arange(len(x)), x_judged)


def _regressor(x: np.ndarray, y: np.ndarray, patients: np.ndarray, x_judged: np.ndarray) -> np.ndarray:
    def predicted(strength: float, rows: np.ndarray, others: np.ndarray) -> np.ndarray:
        return Ridge(alpha=1.0 / strength).fit(x[rows], y[rows]).predict(others)

    strength = _best_strength(predicted, lambda truth, score: -np.abs(truth - score).mean(), x, y, patients)
    return predicted(strength, np.arange(len(x)), x_judged)


def _best_strength(predicted, score, x: np.ndarray, y: np.ndarray, patients: np.ndarray) -> float:
    """The strength whose pooled inner cross-validation, grouped by patient, scores best."""
    if len(np.unique(patients)) < 4 * INNER_FOLDS:
        return FALLBACK
    folds = list(GroupKFold(INNER_FOLDS).split(x, y, patients))
    scores = []
    for strength in STRENGTHS:
        held = np.empty(len(y))
        for train, test in folds:
            held[test] = predicted(strength, train, x[test])
        scores.append(score(y, held))
    return STRENGTHS[int(np.nanargmax(scores))] if np.isfinite(scores).any() else FALLBACK
