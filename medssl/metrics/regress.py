"""How far a predicted quantity lies from the measured one."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from medssl.metrics.weighted import as_given, columns_of, mean, ratio, values_of


def mae(target: ArrayLike, prediction: ArrayLike, weights: ArrayLike | None = None) -> float | np.ndarray:
    """Mean absolute error of (N,) predictions, in the target's unit; NaN where the weights sum to 0."""
    return mean(np.abs(_errors(target, prediction)), weights)


def rmse(target: ArrayLike, prediction: ArrayLike, weights: ArrayLike | None = None) -> float | np.ndarray:
    """Root of the mean squared error of (N,) predictions, in the target's unit; NaN where the weights sum to 0."""
    result = np.sqrt(mean(_errors(target, prediction) ** 2, weights))
    return result if np.ndim(weights) == 2 else float(result)


def r2(target: ArrayLike, prediction: ArrayLike, weights: ArrayLike | None = None) -> float | np.ndarray:
    """Share of the target's variance that (N,) predictions explain: 1 is perfect, 0 is as good as the mean.

    The variance is taken about the weighted mean of each draw. NaN where the weighted target does not vary.
    """
    errors = _errors(target, prediction)
    target = values_of("target", target)
    columns = columns_of(weights, len(target))
    total = columns.sum(axis=0)
    deviation = target[:, None] - ratio(target @ columns, total)
    spread = np.einsum("nb,nb->b", columns, deviation**2)
    rounding = 8 * np.finfo(float).eps * np.abs(target).max(initial=0)
    varies = spread > total * rounding**2
    return as_given(1 - ratio(errors**2 @ columns, np.where(varies, spread, 0)), weights)


def _errors(target: ArrayLike, prediction: ArrayLike) -> np.ndarray:
    target = values_of("target", target)
    return values_of("prediction", prediction, like=target) - target
