"""medssl.metrics.agreement: the original paper's figures, and weights that are repetitions."""

from __future__ import annotations

import numpy as np
import pytest

from medssl.metrics.agreement import limits_of_agreement
from medssl.rng import stream

WRIGHT = [494, 395, 516, 434, 476, 557, 413, 442, 650, 433, 417, 656, 267, 478, 178, 423, 427]
MINI = [512, 430, 520, 428, 500, 600, 364, 380, 658, 445, 432, 626, 260, 477, 259, 350, 451]
"""Peak expiratory flow in l/min by two meters, first readings: Bland & Altman 1986, table 1."""


def test_the_paper_s_own_example():
    bias, lower, upper = limits_of_agreement(MINI, WRIGHT)
    assert bias == pytest.approx(-2.1, abs=0.05)
    sd = 38.8
    assert (lower, upper) == (pytest.approx(bias - 1.96 * sd, abs=0.2), pytest.approx(bias + 1.96 * sd, abs=0.2))


def test_weights_are_repetitions():
    rng = stream("agreement")
    target, prediction = rng.normal(size=(2, 30))
    counts = rng.integers(0, 4, (5, 30))
    found = np.array(limits_of_agreement(target, prediction, counts))
    for draw, times in enumerate(counts):
        repeated = limits_of_agreement(np.repeat(target, times), np.repeat(prediction, times))
        np.testing.assert_allclose(found[:, draw], repeated)


def test_one_case_has_no_spread():
    assert np.isnan(limits_of_agreement([1.0], [2.0])).all()
