"""Temperature scaling: one number by which a classifier's logits are divided (Guo et al., arXiv 1706.04599).

It is fitted on the validation split, which neither trained the model nor judges it. Ranks stay, and so does the AUROC.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import minimize_scalar

from medssl.errors import MedsslError

SURE = 1e-7
"""The least distance of a probability from 0 and 1 whose logit is taken."""
WIDEST = np.log(100.0)
"""Of a temperature's logarithm, either way."""


def fit_temperature(target: ArrayLike, probability: ArrayLike) -> float:
    """The temperature at which (N,) targets of 0 and 1 are most likely; MedsslError where they are all alike."""
    target, logit = np.asarray(target, dtype=np.float64), _logit(probability)
    if not 0 < target.mean() < 1:
        raise MedsslError("The cases to calibrate on are all of one class", expected="both",
                          remedy="give the validation split more patients")

    def unlikely(log_temperature: float) -> float:
        scaled = logit / np.exp(log_temperature)
        return float(np.mean(np.logaddexp(0, scaled) - target * scaled))

    return float(np.exp(minimize_scalar(unlikely, bounds=(-WIDEST, WIDEST), method="bounded").x))


def at_temperature(probability: ArrayLike, temperature: float) -> np.ndarray:
    """(N,) probabilities whose logits are divided by a temperature: above 1, they come nearer to a half."""
    return 1 / (1 + np.exp(-_logit(probability) / temperature))


def _logit(probability: ArrayLike) -> np.ndarray:
    sure = np.clip(np.asarray(probability, dtype=np.float64), SURE, 1 - SURE)
    return np.log(sure / (1 - sure))
