"""medssl.evaluate.linear: the optimum of scikit-learn's models, whatever the rows, scales and strengths."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression, Ridge

from medssl.evaluate.linear import Problems, logistic, ridge
from medssl.rng import stream

STRENGTHS = (0.001, 0.1, 1.0)


def table(rows: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Features that lean on each other, on scales and means of their own, and a quantity that follows some."""
    rng = stream("linear", rows, width)
    x = rng.normal(size=(rows, 8)) @ rng.normal(size=(8, width)) + rng.normal(size=(rows, width))
    quantity = x[:, :4].sum(axis=1) + rng.normal(size=rows)
    return x * rng.uniform(0.01, 50, width) + 20 * rng.normal(size=width), quantity


def problems(x: np.ndarray, sizes: tuple[int, ...]) -> Problems:
    """Every size at every strength, each size with rows of its own, standardised on them."""
    chosen = [np.isin(np.arange(len(x)), stream("rows", size).permutation(len(x))[:size]) for size in sizes]
    rows = np.repeat(chosen, len(STRENGTHS), axis=0)
    means, scales = (np.stack([measure(x[each], axis=0) for each in rows]) for measure in (np.mean, np.std))
    return Problems(rows, means, scales, np.tile(STRENGTHS, len(sizes)))


@pytest.mark.parametrize(("rows", "width", "sizes"), [(300, 40, (25, 60, 300)), (80, 150, (20, 80))])
def test_logistic_regressions(rows, width, sizes):
    x, quantity = table(rows, width)
    y, given = (quantity > np.median(quantity)).astype(float), problems(x, sizes)
    found = 1 / (1 + np.exp(-logistic(x, y, given)(x)))
    for number, (chosen, mean, scale, strength) in enumerate(zip(given.rows, given.mean, given.scale, given.strength,
                                                                 strict=True)):
        standard = (x - mean) / scale
        model = LogisticRegression(C=strength, tol=1e-10, max_iter=10000).fit(standard[chosen], y[chosen])
        np.testing.assert_allclose(found[number], model.predict_proba(standard)[:, 1], atol=5e-4)


@pytest.mark.parametrize(("rows", "width", "sizes"), [(300, 40, (25, 60, 300)), (80, 150, (20, 80))])
def test_ridge_regressions(rows, width, sizes):
    x, y = table(rows, width)
    given = problems(x, sizes)
    found = ridge(x, y, given)(x)
    for number, (chosen, mean, scale, strength) in enumerate(zip(given.rows, given.mean, given.scale, given.strength,
                                                                 strict=True)):
        standard = (x - mean) / scale
        expected = Ridge(alpha=1 / strength).fit(standard[chosen], y[chosen]).predict(standard)
        np.testing.assert_allclose(found[number], expected, rtol=1e-8, atol=1e-8)


def test_a_problem_does_not_depend_on_those_beside_it():
    x, quantity = table(200, 30)
    y, given = (quantity > 0).astype(float), problems(x, (30, 200))
    together = logistic(x, y, given)
    for number in (0, 4):
        alone = logistic(x, y, given.only(np.array([number])))
        np.testing.assert_allclose(alone(x)[0], together(x)[number], atol=2e-3)
