"""Dice, empties above all."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medssl import MedsslError
from medssl.metrics.segment import dice
from medssl.rng import stream

FULL, EMPTY = np.ones((2, 3), bool), np.zeros((2, 3), bool)


def test_empty_masks_as_brats_has_them():
    assert dice(EMPTY, EMPTY) == 1.0
    assert dice(EMPTY, FULL) == 0.0
    assert dice(FULL, EMPTY) == 0.0


def test_known_overlap():
    left, top = np.zeros((4, 4), bool), np.zeros((4, 4), bool)
    left[:, :2], top[:2] = True, True
    assert dice(left, top) == 0.5


@given(st.integers(0, 1000), st.floats(0, 1))
def test_is_symmetric_within_zero_and_one_and_one_only_for_equal_masks(seed, share):
    rng = stream("dice", seed)
    a, b = rng.random((2, 3, 4, 5)) < share
    assert dice(a, b) == dice(b, a)
    assert 0 <= dice(a, b) <= 1
    assert (dice(a, b) == 1) == bool((a == b).all())
    assert dice(a, a) == 1


@pytest.mark.parametrize(("prediction", "what"), [(FULL[:1], "has shape"), (FULL.astype(int), "masks are int64")])
def test_bad_masks_are_named(prediction, what):
    with pytest.raises(MedsslError, match=what):
        dice(prediction, FULL)
