"""Linear probes, and votes of neighbours, on features that are computed once: what an encoder knows before anyone has
taught it the labels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
import polars as pl
from sklearn.model_selection import GroupKFold
from sklearn.neighbors import NearestNeighbors

from medssl.errors import ConfigError
from medssl.evaluate.linear import Problems, Solved, logistic, ridge
from medssl.evaluate.studies import judged_units
from medssl.metrics.classify import auroc
from medssl.tasks import TaskConfig
from medssl.tasks.classify import certain_truths, learnt_truths
from medssl.tasks.labels import label_table
from medssl.train.features import standardisation

STRENGTHS = (0.001, 0.01, 0.1, 1.0)
"""Inverse regularisation, from strong to weak; chosen within the labelled patients alone."""
FALLBACK = 0.01
"""Where there are too few labels to choose by."""
INNER_FOLDS = 3
NEIGHBOURS, TEMPERATURE = 20, 0.07
"""Each neighbour weighs exp(cosine / temperature): Wu et al. 2018 (arXiv 1805.01978), and DINO (arXiv 2104.14294)."""
BEYOND = 1e9
"""A logit beyond all others, of a model that knows one class only."""


def probe(
    task: TaskConfig, train: np.ndarray, train_cases: pl.DataFrame, judged: np.ndarray, judged_cases: pl.DataFrame
) -> pl.DataFrame:
    """Fits on (n, D) features and judges on (m, D): one row a case (a study, where the task is scored so) and name with
    certain truth.

    Uncertain labels are read as the task says, where it says present or absent, and otherwise ignored. Classes are told
    apart each from the rest, and their probabilities brought to a sum of 1. Features are standardised on the training
    cases. ConfigError for dense tasks, which a probe cannot do.
    """
    (found,) = probes(task, train, train_cases, [np.ones(len(train), dtype=bool)], judged, judged_cases)
    return found


def probes(
    task: TaskConfig, train: np.ndarray, train_cases: pl.DataFrame, subsets: Sequence[np.ndarray], judged: np.ndarray,
    judged_cases: pl.DataFrame,
) -> list[pl.DataFrame]:
    """`probe` for many subsets (n,) bool of the same cases; all their models are solved at once."""
    predict = _probabilities if task.name == "classify" else _quantities
    return _tables(predict, task, train, train_cases, subsets, judged, judged_cases)


def neighbours(
    task: TaskConfig, train: np.ndarray, train_cases: pl.DataFrame, subsets: Sequence[np.ndarray], judged: np.ndarray,
    judged_cases: pl.DataFrame,
) -> list[pl.DataFrame]:
    """As `probes`, each case being given the weighted mean of the label among its nearest in the subset (`Nearest`)."""
    return _tables(partial(_votes, {}), task, train, train_cases, subsets, judged, judged_cases)


class Nearest:
    """The nearest of known cases' features (n, D) to each of the judged ones' (m, D), and what each weighs."""

    def __init__(self, known: np.ndarray, judged: np.ndarray) -> None:
        found = NearestNeighbors(n_neighbors=min(NEIGHBOURS, len(known)), metric="cosine").fit(known)
        distance, self.places = found.kneighbors(judged)
        self.weights = np.exp(-distance / TEMPERATURE)

    def vote(self, truth: np.ndarray) -> np.ndarray:
        """(n,) of the known cases -> (m,)."""
        return (self.weights * truth[self.places]).sum(axis=1) / self.weights.sum(axis=1)


def _tables(
    predict: Callable[[_Subsets, np.ndarray], np.ndarray], task: TaskConfig, train: np.ndarray,
    train_cases: pl.DataFrame, subsets: Sequence[np.ndarray], judged: np.ndarray, judged_cases: pl.DataFrame,
) -> list[pl.DataFrame]:
    """A table a subset, one row a case or study and name with certain truth."""
    if task.name == "segment":
        raise ConfigError("A probe cannot segment", expected="classify or regress", remedy="use `how: finetune`")
    truth = _truths(task, train_cases, learnt_truths)
    patients = train_cases["patient_id"].to_numpy()
    values = np.stack([predict(_Subsets(train, label, patients, subsets), judged) for label in truth.T], axis=2)
    if task.name == "classify" and task.kind == "single_label":  # each class against the rest
        values /= values.sum(axis=2, keepdims=True)
    return [_table(task, *judged_units(task, judged_cases, each)) for each in values]


def _table(task: TaskConfig, cases: pl.DataFrame, values: np.ndarray) -> pl.DataFrame:
    """What a probe says (n, L) of the cases whose truth is certain."""
    tables = []
    for name, truth, said in zip(_names(task), _truths(task, cases, certain_truths).T, values.T, strict=True):
        sure = np.isfinite(truth)
        tables.append(cases.filter(pl.Series(sure, dtype=pl.Boolean)).select(
            "case_id", "patient_id", pl.lit(name).alias("name"), pl.Series("target", truth[sure]),
            pl.Series("prediction", said[sure], dtype=pl.Float64), pl.col("^attr\\..*$")))
    return pl.concat(tables)


def _names(task: TaskConfig) -> tuple[str, ...]:
    return task.labels if task.name == "classify" else (task.label,)


def _truths(task: TaskConfig, cases: pl.DataFrame, of_findings: Callable[..., np.ndarray]) -> np.ndarray:
    """(n, L), NaN where it is not known."""
    table = label_table(cases, _names(task))
    return of_findings(task, table) if task.name == "classify" else table


class _Subsets:
    """What is learnt from: features x (n, D), a label y (n,), NaN where it is not known, and the rows (S, n) of each
    subset that know it; and how each subset, with those that do not, is standardised."""

    def __init__(self, x: np.ndarray, y: np.ndarray, patients: np.ndarray, subsets: Sequence[np.ndarray]) -> None:
        known = np.isfinite(y)
        self.x, self.y, self.patients = x, np.where(known, y, 0.0), patients
        self.rows = np.stack(subsets) & known
        self.mean, self.scale = map(np.stack, zip(*(standardisation(x[subset]) for subset in subsets), strict=True))

    def problems(self, numbers: Sequence[int], rows: Sequence[np.ndarray], strengths: Sequence[float]) -> Problems:
        """Of the subsets of these numbers, each learning from rows of its own."""
        return Problems(np.stack(rows), self.mean[numbers], self.scale[numbers], np.asarray(strengths))


def _probabilities(given: _Subsets, judged: np.ndarray) -> np.ndarray:
    """(S, m). A subset that knows one class only gives everybody its share of positives."""
    shares = np.array([given.y[rows].mean() if rows.any() else 0.5 for rows in given.rows])
    found = np.repeat(shares[:, None], len(judged), axis=1)
    both = [number for number, rows in enumerate(given.rows) if rows.any() and np.ptp(given.y[rows]) > 0]
    if both:
        solved = _solved(given, both, logistic, auroc)
        found[both] = 1 / (1 + np.exp(-solved(judged)))
    return found


def _quantities(given: _Subsets, judged: np.ndarray) -> np.ndarray:
    """(S, m)."""
    everyone = list(range(len(given.rows)))
    return _solved(given, everyone, ridge, lambda truth, found: -np.abs(truth - found).mean())(judged)


def _votes(ranked: dict[bytes, Nearest], given: _Subsets, judged: np.ndarray) -> np.ndarray:
    """(S, m). A subset that knows nothing says 0.5. ranked: is kept from label to label, of which most know the same
    cases, and ranking takes longest."""
    found = np.full((len(given.rows), len(judged)), 0.5)
    for rows, said in zip(given.rows, found, strict=True):
        if rows.any():
            if (key := rows.tobytes()) not in ranked:
                ranked[key] = Nearest(given.x[rows], judged)
            said[:] = ranked[key].vote(given.y[rows])
    return found


def _solved(given: _Subsets, numbers: list[int], fit: Callable[..., Solved], score: Callable[..., float]) -> Solved:
    """Of each of these subsets, at the strength that suits it best."""
    strengths = _best_strengths(given, numbers, fit, score)
    return fit(given.x, given.y, given.problems(numbers, [given.rows[number] for number in numbers], strengths))


def _best_strengths(given: _Subsets, numbers: list[int], fit: Callable[..., Solved],
                    score: Callable[..., float]) -> list[float]:
    """The strength whose inner cross-validation, grouped by patient, scores best, the folds' predictions pooled."""
    trials = [trial for number in numbers for trial in _trials(given.rows[number], given.patients, number)]
    held: dict[tuple[int, float], np.ndarray] = {}
    for trial, values in zip(trials, _tried(given, trials, fit), strict=True):
        place = held.setdefault((trial.number, trial.strength), np.full(len(given.y), np.nan))
        place[trial.held] = values
    best = []
    for number in numbers:
        rows = given.rows[number]
        scores = [score(given.y[rows], held[number, strength][rows]) for strength in STRENGTHS
                  if (number, strength) in held]
        best.append(STRENGTHS[int(np.nanargmax(scores))] if np.isfinite(scores).any() else FALLBACK)
    return best


class _Trial(NamedTuple):
    """One inner fold of a subset, at one strength: rows (n,) bool that are learnt from, and those held out."""

    number: int
    strength: float
    kept: np.ndarray
    held: np.ndarray


def _trials(rows: np.ndarray, patients: np.ndarray, number: int) -> list[_Trial]:
    """None where there are too few patients to choose by."""
    places = np.flatnonzero(rows)
    if len(np.unique(patients[places])) < 4 * INNER_FOLDS:
        return []
    found = []
    for _, held_places in GroupKFold(INNER_FOLDS).split(places, groups=patients[places]):
        held = np.zeros(len(rows), dtype=bool)
        held[places[held_places]] = True
        found += [_Trial(number, strength, rows & ~held, held) for strength in STRENGTHS]
    return found


def _tried(given: _Subsets, trials: list[_Trial], fit: Callable[..., Solved]) -> list[np.ndarray]:
    """What each trial's model says of the rows held out; the same of all where it knows one class only."""
    solvable = [place for place, trial in enumerate(trials) if fit is ridge or np.ptp(given.y[trial.kept]) > 0]
    found = [np.full(trial.held.sum(), BEYOND if given.y[trial.kept].all() else -BEYOND) for trial in trials]
    if solvable:
        numbers, strengths, kept, _ = zip(*(trials[place] for place in solvable), strict=True)
        solved = fit(given.x, given.y, given.problems(list(numbers), kept, strengths))
        for place, weight, bias in zip(solvable, solved.weight, solved.bias, strict=True):
            found[place] = given.x[trials[place].held] @ weight + bias
    return found
