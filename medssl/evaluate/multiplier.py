"""How many times as many labels a baseline needs to score what an arm scores."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

REACHED = 1e-9
"""A score this little short of another counts as level with it: no more than rounding."""


def monotone(curve: np.ndarray) -> np.ndarray:
    """The rising curve nearest to `curve` (..., F) in least squares (isotonic regression, equal weights).

    By the min-max formula, max over j <= i of min over k >= i of mean(curve[j..k]) (Robertson, Wright & Dykstra,
    Order Restricted Statistical Inference, 1988, theorem 1.4.4): what pool-adjacent-violators finds, for many curves
    at once and few fractions.
    """
    fractions = curve.shape[-1]
    best = np.full(curve.shape, -math.inf)
    for start in range(fractions):
        means = np.cumsum(curve[..., start:], axis=-1) / np.arange(1, fractions - start + 1)
        least = np.minimum.accumulate(means[..., ::-1], axis=-1)[..., ::-1]
        best[..., start:] = np.maximum(best[..., start:], least)
    return best


def reach(fractions: Sequence[float], curve: np.ndarray, level: np.ndarray) -> np.ndarray:
    """The fraction at which a rising `curve` (..., F) first reaches `level` (...), linear in the log of the fraction.

    inf where it never does; the lowest fraction where it starts at or above the level, which is then an upper bound.
    """
    logs = np.log(np.asarray(fractions, dtype=np.float64))
    found = np.full(level.shape, math.inf)
    for right in range(len(logs) - 1, 0, -1):
        low, high = curve[..., right - 1], curve[..., right]
        share = np.clip(np.divide(level - low, high - low, out=np.ones_like(level), where=high > low), 0, 1)
        here = np.exp(logs[right - 1] + share * (logs[right] - logs[right - 1]))
        found = np.where(level <= high + REACHED, here, found)
    return np.where(level <= curve[..., 0] + REACHED, fractions[0], found)


def label_multiplier(fractions: Sequence[float], arm: np.ndarray, baseline: np.ndarray) -> np.ndarray:
    """f'/f at each fraction f, where f' is the fraction at which the baseline's monotone curve reaches the arm's score.

    Above 1 the arm saves labels: 2 means that the baseline needs twice as many. Two ends are bounds, not estimates:
    inf says "more than F/f" with F the largest fraction (the baseline never got there), and f0/f with f0 the smallest
    fraction says "at most f0/f" (the baseline was there, or better, from its first point on). Where the baseline's own
    score at f is the arm's or better, f' is f at most, however the monotone curve smooths it.

    Args:
        fractions: (F,) rising.
        arm, baseline: (..., F), higher is better.
    """
    rising = monotone(baseline)
    reached = np.stack([reach(fractions, rising, arm[..., index]) for index in range(len(fractions))], axis=-1)
    return np.where(arm <= baseline + REACHED, np.minimum(reached, fractions), reached) / np.asarray(fractions)


def joint_draws(bootstrap: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Means (B, ...) with the luck of patients, seeds and pretrainings in them, from (B, ..., S, R) with S >= 2.

    Each patient draw also gets a draw of the seeds, the same for all arms and fractions: S seeds resampled with
    replacement would be too narrow by far when S is 3, so that their mean is moved instead by a random contrast of the
    seeds with the scale of Student's t. The 95 % percentiles of a plain mean are then its t interval over seeds,
    and nonlinear functions of several means, such as a multiplier, keep what the seeds have in common. Pretrainings
    likewise, where R > 1: what is not pretrained is the same under all of them, and no contrast moves it.

    Not covered, here or in any interval of this package: a second run of the pretraining where R = 1, another draw of
    the pool that labels are taken from, another hospital.
    """
    draws, seeds, pretrainings = bootstrap.shape[0], *bootstrap.shape[-2:]
    weights = (1 / seeds + _contrast(draws, seeds, rng))[:, :, None] / pretrainings
    if pretrainings > 1:
        weights = weights + _contrast(draws, pretrainings, rng)[:, None, :] / seeds
    return np.einsum("b...sr,bsr->b...", bootstrap, weights)


def _contrast(draws: int, count: int, rng: np.random.Generator) -> np.ndarray:
    """(draws, count), each summing to 0: weights that move a mean by Student's t times its standard error."""
    normal = rng.normal(size=(draws, count))
    scale = np.sqrt((count - 1) / rng.chisquare(count - 1, size=(draws, 1)))
    return scale * (normal - normal.mean(axis=1, keepdims=True)) / math.sqrt(count * (count - 1))
