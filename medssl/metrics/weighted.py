"""The weights that all metrics share: their shapes, their checks, and the plain weighted mean."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from medssl.errors import MedsslError


def values_of(name: str, values: ArrayLike, like: np.ndarray | None = None) -> np.ndarray:
    """(N,) float64, finite and as long as `like`; otherwise a MedsslError that names the argument."""
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or (like is not None and array.shape != like.shape):
        raise MedsslError(f"{name} has shape {array.shape}", expected=f"{like.shape if like is not None else '(N,)'}")
    if not np.isfinite(array).all():
        count = int((~np.isfinite(array)).sum())
        raise MedsslError(f"{name} holds {count} values that are NaN or infinite", expected="finite numbers",
                          remedy="look for a diverged run or a missing label")
    return array


def columns_of(weights: ArrayLike | None, count: int) -> np.ndarray:
    """(N, B) float64, a column a draw (B = 1 for None and (N,)), laid out so that picking cases copies whole rows."""
    if weights is None:
        return np.ones((count, 1))
    columns = np.ascontiguousarray(np.atleast_2d(np.asarray(weights, dtype=np.float64)).T)
    if columns.ndim != 2 or len(columns) != count:
        raise MedsslError(f"weights have shape {np.shape(weights)}", expected=f"({count},) or (B, {count})")
    if count and not columns.min() >= 0:
        raise MedsslError("weights hold negative numbers or NaN", expected="counts of 0 or more")
    return columns


def as_given(result: np.ndarray, weights: ArrayLike | None) -> float | np.ndarray:
    """(B,) for (B, N) weights, else a float."""
    return result if np.ndim(weights) == 2 else float(result[0])


def ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """`above / below`, NaN where `below` is 0."""
    return np.divide(above, below, out=np.full(np.broadcast(above, below).shape, np.nan), where=below != 0)


def mean(values: ArrayLike, weights: ArrayLike | None = None) -> float | np.ndarray:
    """Weighted mean of (N,) values; NaN where the weights sum to 0."""
    values = values_of("values", values)
    columns = columns_of(weights, len(values))
    return as_given(ratio(values @ columns, columns.sum(axis=0)), weights)
