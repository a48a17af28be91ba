"""Linear probes of a curve, 5 label fractions × 5 seeds × 3 strengths, on features of 512 numbers: all at once, and one
after another with scikit-learn.

Both are asked for the same optimum: the peer by its default tolerance, and whether the two agree is checked against its
answer at a far smaller one.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from harness import Peer, Row, Settings, compare, main
from sklearn.linear_model import LogisticRegression, Ridge

from medssl.evaluate.linear import Problems, logistic, ridge
from medssl.rng import stream

FRACTIONS, SEEDS, STRENGTHS = (0.05, 0.1, 0.25, 0.5, 1.0), 5, (0.001, 0.01, 0.1)
CASES, WIDTH = 2000, 512
TARGET, ALIKE = 20.0, 1e-3
"""ALIKE: in probability, and in the quantity's standard deviations."""


def measure(settings: Settings) -> list[Row]:
    cases, width = (400, 16) if settings.tiny else (CASES, WIDTH)
    x, quantity = _features(cases, width)
    finding, given = (quantity > np.median(quantity)).astype(float), _problems(x)
    kinds = {
        "logistic regression": (logistic, finding, _probability, _classifier, TARGET),
        "ridge regression": (ridge, quantity, lambda values: values / quantity.std(), _regressor, None),
    }
    rows = []
    for kind, (solve, y, told, one, target) in kinds.items():
        exact = told(_one_by_one(x, y, given, lambda strength, one=one: one(strength, exact=True)))
        assert np.abs(told(solve(x, y, given)(x)) - exact).max() < ALIKE, kind
        peer = Peer("scikit-learn, one by one", lambda y=y, one=one: _one_by_one(x, y, given, one), "scikit-learn",
                    target)
        name = f"{len(given)} probes by {kind}, {cases} cases of {width} features, {torch.get_num_threads()} threads"
        rows += compare(name, lambda solve=solve, y=y: solve(x, y, given)(x), [peer], settings.repeats)
    return rows


def _features(cases: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """As an encoder's: they lean on each other, and some tell the quantity."""
    rng = stream("benchmark", "probes")
    x = 0.3 * rng.normal(size=(cases, width // 8)) @ rng.normal(size=(width // 8, width))
    x += rng.normal(size=x.shape)
    return x, x[:, : width // 20 + 1].sum(axis=1) + 4 * rng.normal(size=cases)


def _problems(x: np.ndarray) -> Problems:
    drawn = [stream("benchmark", seed).permutation(len(x))[: round(fraction * len(x))]
             for fraction in FRACTIONS for seed in range(SEEDS)]
    rows = np.repeat([np.isin(np.arange(len(x)), each) for each in drawn], len(STRENGTHS), axis=0)
    mean, scale = (np.stack([measure(x[each], axis=0) for each in rows]) for measure in (np.mean, np.std))
    return Problems(rows, mean, scale, np.tile(STRENGTHS, len(drawn)))


def _one_by_one(x: np.ndarray, y: np.ndarray, given: Problems, model: Any) -> np.ndarray:
    """(B, cases): what scikit-learn's models say, before the last function."""
    told = []
    for rows, mean, scale, strength in zip(given.rows, given.mean, given.scale, given.strength, strict=True):
        standard = (x - mean) / scale
        fitted = model(strength).fit(standard[rows], y[rows])
        told.append(getattr(fitted, "decision_function", fitted.predict)(standard))
    return np.stack(told)


def _classifier(strength: float, exact: bool = False) -> LogisticRegression:
    return LogisticRegression(C=strength, **({"tol": 1e-9, "max_iter": 10000} if exact else {"max_iter": 300}))


def _regressor(strength: float, exact: bool = False) -> Ridge:
    return Ridge(alpha=1 / strength)


def _probability(logits: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-logits))


if __name__ == "__main__":
    main("probes", __doc__, measure)
