"""How well a score ranks the cases that have a finding above those that do not."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike

from medssl.errors import MedsslError
from medssl.metrics.weighted import as_given, columns_of, mean, ratio, values_of

ROUNDING = 1e-9
"""By which sums of weights may differ and still be the same."""
BLOCK = 2**15
"""Weights worked on at a time, 256 KiB: what stays in a core's cache is worth a factor of two."""


def auroc(target: ArrayLike, score: ArrayLike, weights: ArrayLike | None = None) -> float | np.ndarray:
    """Area under the ROC curve: the chance that a positive outranks a negative, a tie counting half.

    This is the Mann-Whitney U statistic over its largest value (Hanley & McNeil, Radiology 143, 1982). Scores are
    sorted once for all draws; a positive beats the negatives below it, and half of those level with it.

    Args:
        target: (N,) of 0 and 1.
        score: (N,) finite, higher for more suspicious.
        weights: see the package's docstring.

    Returns:
        0 to 1; NaN where a class is absent or has weight 0.
    """
    target, score = _checked(target, score)
    positives, negatives = _by_score(target, score)
    below = np.searchsorted(score[negatives], score[positives], side="left")
    not_above = np.searchsorted(score[negatives], score[positives], side="right")

    def statistic(columns: np.ndarray) -> np.ndarray:
        positive, lower = columns[positives], _cumulated(columns[negatives])
        beaten = (lower[below] + lower[not_above]) / 2
        return ratio(np.einsum("pb,pb->b", positive, beaten), positive.sum(axis=0) * lower[-1])

    return as_given(_in_blocks(statistic, columns_of(weights, len(score))), weights)


def auprc(target: ArrayLike, score: ArrayLike, weights: ArrayLike | None = None) -> float | np.ndarray:
    """Average precision: the mean of the precision at each threshold, weighted by the recall gained there.

    No interpolation, which would be too kind (Davis & Goadrich, ICML 2006). Chance level is the share of positives.

    Arguments and what is returned are as for `auroc`.
    """
    target, score = _checked(target, score)
    falling = -score  # sorted from the most suspicious on
    positives, negatives = _by_score(target, falling)
    called_positives = np.searchsorted(falling[positives], falling[positives], side="right")
    called_negatives = np.searchsorted(falling[negatives], falling[positives], side="right")

    def statistic(columns: np.ndarray) -> np.ndarray:
        positive = columns[positives]
        found, alarmed = _cumulated(positive), _cumulated(columns[negatives])
        hits = found[called_positives]
        called = hits + alarmed[called_negatives]
        precision = hits / np.where(called > 0, called, 1)
        return ratio(np.einsum("pb,pb->b", positive, precision), np.where(alarmed[-1] > 0, found[-1], 0))

    return as_given(_in_blocks(statistic, columns_of(weights, len(score))), weights)


def sensitivity_at(
    target: ArrayLike, score: ArrayLike, weights: ArrayLike | None = None, specificity: float = 0.9
) -> float | np.ndarray:
    """The share of positives that are found where at least `specificity` of the negatives are spared: the best of all
    thresholds that spare so many, which are scores of these very cases, with no interpolation between them.

    Arguments and what is returned are as for `auroc`.
    """
    target, score = _checked(target, score)
    falling = np.sort(-score)
    last = np.flatnonzero(np.append(np.diff(falling) > 0, True))[: len(falling)]  # of those level with each other
    thresholds = falling[last]
    positives, negatives = _by_score(target, -score)
    found = np.searchsorted(-score[positives], thresholds, side="right")
    alarmed = np.searchsorted(-score[negatives], thresholds, side="right")

    def statistic(columns: np.ndarray) -> np.ndarray:
        hits, alarms = _cumulated(columns[positives]), _cumulated(columns[negatives])
        spared = alarms[alarmed] <= (1 - specificity) * alarms[-1] * (1 + ROUNDING)
        best = np.where(spared, hits[found], 0).max(axis=0, initial=0)
        return ratio(best, np.where(alarms[-1] > 0, hits[-1], 0))

    return as_given(_in_blocks(statistic, columns_of(weights, len(score))), weights)


def brier(target: ArrayLike, probability: ArrayLike, weights: ArrayLike | None = None) -> float | np.ndarray:
    """Mean squared difference of (N,) probabilities from targets of 0 and 1 (Brier, Monthly Weather Review 78, 1950);
    NaN where the weights sum to 0."""
    target, probability = _checked_probability(target, probability)
    return mean((probability - target) ** 2, weights)


def ece(
    target: ArrayLike, probability: ArrayLike, weights: ArrayLike | None = None, bins: int = 15
) -> float | np.ndarray:
    """Expected calibration error: in bins of equal width, how far the mean of (N,) probabilities lies from the share of
    positives, averaged by the bins' cases (Guo et al., ICML 2017, arXiv 1706.04599, whose 15 bins these are).

    It is biased upwards where bins hold few cases. NaN where the weights sum to 0.
    """
    target, probability = _checked_probability(target, probability)
    place = np.minimum((probability * bins).astype(int), bins - 1)
    columns = columns_of(weights, len(target))
    gaps = np.zeros((bins, columns.shape[1]))
    np.add.at(gaps, place, (target - probability)[:, None] * columns)
    return as_given(ratio(np.abs(gaps).sum(axis=0), columns.sum(axis=0)), weights)


def _checked_probability(target: ArrayLike, probability: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    target, probability = _checked(target, probability)
    if len(probability) and not (probability.min() >= 0 and probability.max() <= 1):
        raise MedsslError(f"probabilities reach from {probability.min():g} to {probability.max():g}",
                          expected="0 to 1", remedy="give probabilities, not logits")
    return target, probability


def _checked(target: ArrayLike, score: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    target = values_of("target", target)
    known = (target == 0) | (target == 1)
    if not known.all():
        raise MedsslError(f"target holds {target[~known][0]:g}", expected="0 and 1 only",
                          remedy="map or leave out uncertain labels first")
    return target, values_of("score", score, like=target)


def _by_score(target: np.ndarray, score: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which cases are positive and which negative, each by rising score."""
    order = np.argsort(score, kind="stable")
    return order[target[order] == 1], order[target[order] == 0]


def _cumulated(weight: np.ndarray) -> np.ndarray:
    """(P, B) -> (P + 1, B): row r is the weight of the first r cases."""
    sums = np.zeros((len(weight) + 1, weight.shape[1]))
    np.cumsum(weight, axis=0, out=sums[1:])
    return sums


def _in_blocks(statistic: Callable[[np.ndarray], np.ndarray], columns: np.ndarray) -> np.ndarray:
    """`statistic`, (N, B) -> (B,), over all draws, a block of draws at a time."""
    cases, draws = columns.shape
    size = max(16, BLOCK // max(1, cases))
    return np.concatenate([statistic(columns[:, start : start + size]) for start in range(0, draws, size)])
