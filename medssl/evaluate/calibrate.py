"""Temperature scaling: one number by which a classifier's logits are divided (Guo et al., arXiv 1706.04599).

It is fitted on the validation split, which neither trained the model nor judges it. Ranks stay, and so does the AUROC.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import minimize_scalar
from scipy.special import logsumexp, softmax

from medssl.errors import MedsslError

SURE = 1e-7
"""The least probability whose logarithm is taken."""
WIDEST = np.log(100.0)
"""Of a temperature's logarithm, either way."""


def fit_temperature(target: ArrayLike, probability: ArrayLike) -> float:
    """The temperature at which (N,) targets of 0 and 1, or (N, L) with a 1 for each case's class, are most likely.

    MedsslError where all are of one class, or no temperature within WIDEST is the likeliest.
    """
    classes, logits = _classes(target), np.log(np.clip(_classes(probability), SURE, 1 - SURE))
    if (classes.sum(axis=0) > 0).sum() < 2:
        raise MedsslError("The cases to calibrate on are all of one class", expected="both, or several",
                          remedy="give the validation split more patients")
    of_truth = (classes * logits).sum(axis=1)

    def unlikely(log_temperature: float) -> float:
        temperature = np.exp(log_temperature)
        return float(np.mean(logsumexp(logits / temperature, axis=1) - of_truth / temperature))

    found = minimize_scalar(unlikely, bounds=(-WIDEST, WIDEST), method="bounded").x
    is_never_wrong = (of_truth >= logits.max(axis=1)).all()
    if is_never_wrong or found > 0.99 * WIDEST:
        at = "never wrong" if is_never_wrong else "no better than a guess"
        raise MedsslError(f"The model is {at} on the cases to calibrate on, and no temperature is the likeliest",
                          expected=f"one within {np.exp(-WIDEST):.2g} to {np.exp(WIDEST):.3g}",
                          remedy="give the validation split more patients")
    return float(np.exp(found))


def at_temperature(probability: ArrayLike, temperature: float) -> np.ndarray:
    """(N,) probabilities, or (N, L) of classes, whose logits are divided by a temperature: above 1, they come nearer to
    each other."""
    scaled = softmax(np.log(np.clip(_classes(probability), SURE, 1 - SURE)) / temperature, axis=1)
    return scaled[:, 1] if np.ndim(probability) == 1 else scaled


def _classes(values: ArrayLike) -> np.ndarray:
    """(N, L); of a finding (N,), for absent and present."""
    values = np.asarray(values, dtype=np.float64)
    return np.stack([1 - values, values], axis=1) if values.ndim == 1 else values
