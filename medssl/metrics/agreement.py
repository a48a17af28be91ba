"""How far two measurements of one quantity agree (Bland & Altman, Lancet 327:307, 1986)."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from medssl.metrics.weighted import as_given, columns_of, ratio, values_of

WITHIN = 1.96
"""Standard deviations within which 95 % of normal differences lie."""


def limits_of_agreement(
    target: ArrayLike, prediction: ArrayLike, weights: ArrayLike | None = None
) -> tuple[float | np.ndarray, float | np.ndarray, float | np.ndarray]:
    """The bias of (N,) predictions, their mean difference from the target, and the limits between which 95 % of the
    differences lie if they are normal: bias ± 1.96 sd, in the target's unit; NaN of fewer than two cases.

    weights: see the package's docstring. They act as repetitions of the cases in the sd, too.
    """
    target = values_of("target", target)
    difference = values_of("prediction", prediction, like=target) - target
    columns = columns_of(weights, len(target))
    total = columns.sum(axis=0)
    bias = ratio(difference @ columns, total)
    squares = np.einsum("nb,nb->b", columns, (difference[:, None] - bias) ** 2)
    spread = WITHIN * np.sqrt(ratio(squares, np.where(total > 1, total - 1, 0)))
    bias = np.where(total > 1, bias, np.nan)
    return tuple(as_given(value, weights) for value in (bias, bias - spread, bias + spread))
