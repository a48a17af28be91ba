"""Intervals that cover the patients who were tested, the label seeds that were trained on, and the pretrainings."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import stdtr, stdtrit

from medssl.errors import MedsslError

ROUNDING = 1e-12
"""A mean smaller than this is 0 but for rounding, and no test may call it a difference."""


@dataclass(frozen=True)
class Interval:
    """A mean and its 95 % interval.

    dof: degrees of freedom of its t distribution; 0 where no interval can be given, and then low, high = -inf, inf.
    error: standard error of the mean.
    """

    mean: float
    low: float
    high: float
    dof: float
    error: float

    @staticmethod
    def unknown(mean: float) -> Interval:
        return Interval(mean, -math.inf, math.inf, 0.0, math.inf)

    def p_value(self) -> float:
        """Two-sided p of the t test that the true mean is 0; 1 where no interval can be given."""
        if self.dof == 0 or abs(self.mean) < ROUNDING:
            return 1.0
        return float(2 * stdtr(self.dof, -abs(self.mean) / self.error)) if self.error > 0 else 0.0


def patient_weights(patient_ids: ArrayLike, rng: np.random.Generator, draws: int) -> np.ndarray:
    """(B, N) counts: each row draws P of the P patients with replacement and gives all N cases their patient's count.

    Patients are drawn in the order of their sorted ids: the order of the cases does not change the draw.
    """
    patients, of_case = np.unique(np.asarray(patient_ids), return_inverse=True)
    if not len(patients):
        raise MedsslError("There is no patient to draw from", expected="at least one test case")
    counts = rng.multinomial(len(patients), np.full(len(patients), 1 / len(patients)), size=draws)
    return counts[:, of_case].astype(np.float64)


def percentiles(draws: ArrayLike) -> tuple[float | None, float | None]:
    """The 95 % percentile interval of a figure from its draws (B,) of patients; None where one is not defined."""
    ends = np.quantile(draws, (0.025, 0.975))
    return tuple(map(float, ends)) if np.isfinite(draws).all() else (None, None)


def over_patients_and_seeds(scores: ArrayLike, bootstrap: ArrayLike, *, patients: int | None = None, strata: int = 1,
                            clip: tuple[float, float] | None = None) -> Interval:
    """95 % t interval of the mean score, for new patients, new label seeds and new pretrainings alike.

    The model: seed s, tested on P patients, scores

        x_s = mu + a_s + mean_p(b_p) + mean_p(c_ps)

    with a the luck of the labelled subset, b how hard a patient is for every model, c what is left. All S seeds meet
    the same patients, so that their mean has the variance

        V = var(a)/S + var(b)/P + var(c)/(S P).

    Two estimates make it up. The sample variance of x_s over S: b is the same for all seeds and drops out, which
    leaves var(a)/S + var(c)/(S P). The bootstrap variance over patients of the seed mean: a is the same for all
    patients and drops out, which leaves var(b)/P + var(c)/(S P). Neither holds the other's main term, so either
    alone is too small; their sum is V + var(c)/(S P), never too small in expectation, and hardly too large since the
    term counted twice is the smallest. Degrees of freedom by Welch-Satterthwaite: S - 1 and P - strata.

    With R pretrainings, each finetuned under every label seed, the model and its variance become

        x_sr = mu + a_s + d_r + e_sr + mean_p(b_p) + mean_p(c_ps) + mean_p(g_pr) + mean_p(h_psr)

        V = var(a)/S + var(d)/R + var(e)/(S R) + var(b)/P + var(c)/(S P) + var(g)/(R P) + var(h)/(S R P)

    with d the luck of a pretraining. A third estimate joins the two: the sample variance over r of the mean over seeds,
    over R, which is var(d)/R + var(e)/(S R) + var(g)/(R P) + var(h)/(S R P), with R - 1 degrees of freedom. The sum is
    again V and some of its interactions once more. What is not pretrained is the same under every r and has no such
    term; its difference from what is has the whole of the other's.

    One seed tells nothing of a: no interval is honest then, and it is (-inf, inf) with dof 0, rather than one that
    covers the patients only. The same for a single patient. A score that is perfect in every draw has no bootstrap
    variance: an interval at the edge of a metric's range is too narrow.

    Args:
        scores: (S,), one a label seed, all on the same test patients; or (S, R), and one a pretraining. Of a single
            pretraining nothing is known of d: the interval does not cover another.
        bootstrap: (B, S) or (B, S, R), the same scores under B draws of patients, shared by them all.
        patients: how many were drawn from; corrects the bootstrap's variance for its P, and gives its degrees of
            freedom. None means many.
        strata: groups of patients that were drawn from separately (folds).
        clip: range of the metric, where low and high are to stay inside it.
    """
    scores, bootstrap = np.asarray(scores, dtype=np.float64), np.asarray(bootstrap, dtype=np.float64)
    if scores.ndim not in (1, 2) or bootstrap.shape != (len(bootstrap), *scores.shape) or len(bootstrap) < 2:
        raise MedsslError(f"scores {scores.shape} and bootstrap {bootstrap.shape}",
                          expected="(S,) and (B, S), or (S, R) and (B, S, R), B >= 2")
    if not (np.isfinite(scores).all() and np.isfinite(bootstrap).all()):
        raise MedsslError("scores hold NaN or infinity", expected="a metric that is defined for every seed and draw")
    mean, seeds = float(scores.mean()), len(scores)
    patient_dof = math.inf if patients is None else patients - strata
    if seeds < 2 or patient_dof < 1:
        return _clipped(Interval.unknown(mean), clip)
    scores, bootstrap = scores.reshape(seeds, -1), bootstrap.reshape(len(bootstrap), -1)
    from_patients = float(bootstrap.mean(axis=1).var(ddof=1)) * (1 if patients is None else patients / patient_dof)
    parts = [(from_patients, patient_dof)]
    parts += [(float(means.var(ddof=1)) / len(means), len(means) - 1)
              for means in (scores.mean(axis=1), scores.mean(axis=0)) if len(means) > 1]
    variance = sum(part for part, _ in parts)
    spread = sum(part**2 / part_dof for part, part_dof in parts)
    dof = variance**2 / spread if spread > 0 else math.inf
    error = math.sqrt(variance)
    half = error * float(stdtrit(dof, 0.975))
    return _clipped(Interval(mean, mean - half, mean + half, dof, error), clip)


def _clipped(interval: Interval, clip: tuple[float, float] | None) -> Interval:
    if clip is None:
        return interval
    low, high = max(interval.low, clip[0]), min(interval.high, clip[1])
    return Interval(interval.mean, low, high, interval.dof, interval.error)
