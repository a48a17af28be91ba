"""Label multipliers on curves made by hand, and what their draws cover."""

import math

import numpy as np
import pytest
from scipy.stats import t
from sklearn.isotonic import isotonic_regression

from medssl.evaluate.multiplier import joint_draws, label_multiplier, monotone
from medssl.rng import stream

FRACTIONS = (0.01, 0.1, 1.0)


def test_is_one_for_the_baseline_itself():
    curve = np.array([0.6, 0.7, 0.8])
    np.testing.assert_allclose(label_multiplier(FRACTIONS, curve, curve), 1)


def test_is_linear_in_the_log_of_the_fraction():
    halfway = label_multiplier(FRACTIONS, np.array([0.65, 0.75, 0.8]), np.array([0.6, 0.7, 0.8]))
    np.testing.assert_allclose(halfway, [10**0.5, 10**0.5, 1])


def test_is_infinite_where_the_baseline_never_gets_there():
    assert label_multiplier(FRACTIONS, np.array([0.7, 0.81, 0.9]), np.array([0.6, 0.7, 0.8])).tolist() == [
        pytest.approx(10), math.inf, math.inf]


def test_below_the_baselines_lowest_point_it_is_the_bound_that_the_smallest_fraction_sets():
    times = label_multiplier(FRACTIONS, np.array([0.1, 0.5, 0.65]), np.array([0.6, 0.7, 0.8]))
    np.testing.assert_allclose(times, [1, 0.1, 0.01 * 10**0.5])


def test_a_baseline_that_dips_is_smoothed_first():
    dipping = np.array([0.6, 0.72, 0.68, 0.8])
    times = label_multiplier((0.01, 0.1, 0.5, 1.0), np.array([0.7, 0.7, 0.7, 0.71]), dipping)
    np.testing.assert_allclose(times[:3], [10, 1, 0.2])
    assert 0.5 < times[3] < 1


def test_a_baseline_that_only_falls_gives_no_saving_but_bounds():
    falling = np.array([0.8, 0.7, 0.6])
    assert label_multiplier(FRACTIONS, np.array([0.75, 0.69, 0.7]), falling).tolist() == [
        1, pytest.approx(0.1), pytest.approx(0.01)]


def test_no_arm_that_is_not_better_saves_a_label_whatever_the_baseline_does_later():
    dipping = np.array([0.60, 0.70, 0.65])
    assert (label_multiplier(FRACTIONS, dipping, dipping) <= 1).all()
    assert label_multiplier(FRACTIONS, np.array([0.6, 0.69, 0.65]), dipping)[1] <= 1
    assert label_multiplier(FRACTIONS, np.array([0.6, 0.71, 0.65]), dipping)[1] == math.inf


def test_monotone_is_isotonic_regression():
    curves = stream("isotonic").normal(size=(50, 6))
    np.testing.assert_allclose(monotone(curves), [isotonic_regression(curve) for curve in curves], atol=1e-12)


@pytest.mark.parametrize("seeds", [2, 3, 10])
def test_draws_of_a_mean_have_the_t_interval_over_seeds(seeds):
    scores = stream("joint", seeds).normal(size=seeds)
    means = joint_draws(np.tile(scores[:, None], (40_000, 1, 1)), stream("draws"))
    half = t.ppf(0.975, seeds - 1) * scores.std(ddof=1) / seeds**0.5
    low, high = np.quantile(means, [0.025, 0.975])
    assert (low, high) == pytest.approx((scores.mean() - half, scores.mean() + half), abs=0.05 * half)


def test_draws_of_a_mean_have_the_t_interval_over_pretrainings_too():
    scores = stream("joint pretrainings").normal(size=4)
    means = joint_draws(np.tile(scores, (40_000, 3, 1)), stream("draws"))
    half = t.ppf(0.975, 3) * scores.std(ddof=1) / 2
    low, high = np.quantile(means, [0.025, 0.975])
    assert (low, high) == pytest.approx((scores.mean() - half, scores.mean() + half), abs=0.05 * half)


def test_draws_keep_what_the_curves_have_in_common():
    shared = stream("shared").normal(size=(500, 1, 4, 3))
    means = joint_draws(np.concatenate([shared, shared + 1], axis=1), stream("draws"))
    np.testing.assert_allclose(means[:, 1] - means[:, 0], 1)
