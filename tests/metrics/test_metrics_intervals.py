"""Intervals: by simulation, they cover the truth as often as they say."""

import math

import numpy as np
import pytest
from scipy.stats import ttest_1samp

from medssl import MedsslError
from medssl.metrics.intervals import Interval, over_patients_and_seeds, patient_weights
from medssl.rng import stream


def test_patients_are_drawn_whole_and_in_any_order_of_cases():
    ids = np.array(["b", "a", "b", "c", "a", "b"])
    weights = patient_weights(ids, stream(0), 200)
    assert weights.shape == (200, 6)
    for patient in "abc":
        assert (weights[:, ids == patient] == weights[:, ids == patient][:, :1]).all()
    assert (weights[:, [1, 0, 3]].sum(axis=1) == 3).all()
    order = [3, 1, 5, 0, 2, 4]
    np.testing.assert_array_equal(patient_weights(ids[order], stream(0), 200), weights[:, order])


def test_bootstrap_has_the_textbook_variance_of_a_mean():
    values = stream(1).normal(size=50)
    means = patient_weights(np.arange(50), stream(2), 20_000) @ values / 50
    assert means.var() == pytest.approx(values.var() / 50, rel=0.05)


@pytest.mark.parametrize(("patient_sd", "seed_sd"), [(1.0, 0.15), (0.5, 0.15), (1.0, 0.0)])
def test_covers_new_patients_and_new_seeds_where_patients_alone_do_not(patient_sd, seed_sd):
    """Nested random effects: 3 seeds, 60 patients, noise of each patient under each seed; the truth is 0."""
    seeds, patients, experiments = 3, 60, 600
    rng = stream("coverage", str(patient_sd), str(seed_sd))
    draws = patient_weights(np.arange(patients), rng, 300) / patients
    covered = patients_only = 0
    for _ in range(experiments):
        outcomes = (seed_sd * rng.normal(size=(1, seeds)) + patient_sd * rng.normal(size=(patients, 1))
                    + 0.4 * rng.normal(size=(patients, seeds)))
        bootstrap = draws @ outcomes
        interval = over_patients_and_seeds(outcomes.mean(axis=0), bootstrap, patients=patients)
        covered += interval.low <= 0 <= interval.high
        low, high = np.quantile(bootstrap.mean(axis=1), [0.025, 0.975])
        patients_only += low <= 0 <= high
    assert 0.92 <= covered / experiments <= 0.995
    if seed_sd:
        assert patients_only / experiments < covered / experiments - 0.05


SEEDS, PRETRAININGS, PATIENTS = 3, 3, 60


def crossed(rng, *, seed_sd=0.1, pretraining_sd=0.1, patient_sd=0.5):
    """Outcomes (P, S, R) about 0: luck of patients, seeds and pretrainings, and of each pair of them."""
    p, s, r = PATIENTS, SEEDS, PRETRAININGS
    return (patient_sd * rng.normal(size=(p, 1, 1)) + seed_sd * rng.normal(size=(1, s, 1))
            + pretraining_sd * rng.normal(size=(1, 1, r)) + 0.03 * rng.normal(size=(1, s, r))
            + 0.2 * rng.normal(size=(p, s, 1)) + 0.2 * rng.normal(size=(p, 1, r)) + 0.3 * rng.normal(size=(p, s, r)))


def covers(outcomes, draws):
    interval = over_patients_and_seeds(outcomes.mean(axis=0), np.tensordot(draws, outcomes, 1), patients=PATIENTS)
    return interval.low <= 0 <= interval.high


@pytest.mark.parametrize("luck", [{}, {"seed_sd": 0.0}, {"pretraining_sd": 0.0}, {"patient_sd": 1.0},
                                  {"pretraining_sd": 0.3, "patient_sd": 0.1}])
def test_covers_new_pretrainings_too(luck):
    rng = stream("pretrainings", str(luck))
    draws = patient_weights(np.arange(PATIENTS), rng, 300) / PATIENTS
    assert np.mean([covers(crossed(rng, **luck), draws) for _ in range(2000)]) >= 0.93


def test_pretraining_that_brings_nothing_is_called_nothing_beside_a_baseline_without_any():
    """Paired with a baseline that meets the same patients and seeds and is the same under every pretraining."""
    rng, found, blind = stream("nothing"), [], []
    draws = patient_weights(np.arange(PATIENTS), rng, 300) / PATIENTS
    for _ in range(600):
        shared = 0.5 * rng.normal(size=(PATIENTS, 1, 1)) + 0.1 * rng.normal(size=(1, SEEDS, 1))
        baseline = shared + 0.3 * rng.normal(size=(PATIENTS, SEEDS, 1))
        difference = shared + crossed(rng, patient_sd=0.1, seed_sd=0.02, pretraining_sd=0.15) - baseline
        found.append(covers(difference, draws))
        blind.append(covers(difference[..., :1], draws))
    assert np.mean(found) >= 0.93
    assert np.mean(blind) < 0.85, "one pretraining says nothing of another"


def test_what_is_the_same_under_every_pretraining_has_the_interval_of_one():
    scores = np.array([0.7, 0.74, 0.78])
    bootstrap = scores + 0.01 * stream("same").normal(size=(50, 3))
    three = over_patients_and_seeds(np.tile(scores[:, None], 3), np.tile(bootstrap[..., None], 3), patients=40)
    one = over_patients_and_seeds(scores, bootstrap, patients=40)
    assert (three.low, three.high, three.dof) == pytest.approx((one.low, one.high, one.dof))


def test_with_nothing_but_the_luck_of_pretraining_it_is_the_t_test_over_pretrainings():
    scores = np.tile([0.7, 0.74, 0.78, 0.71], (3, 1))
    interval = over_patients_and_seeds(scores, np.tile(scores, (10, 1, 1)))
    exact = ttest_1samp(scores[0], 0).confidence_interval(0.95)
    assert (interval.low, interval.high) == pytest.approx((exact.low, exact.high))


def test_with_no_patient_noise_it_is_the_t_test_over_seeds():
    scores = np.array([0.7, 0.74, 0.78, 0.71])
    interval = over_patients_and_seeds(scores, np.tile(scores, (10, 1)))
    exact = ttest_1samp(scores, 0).confidence_interval(0.95)
    assert (interval.low, interval.high) == pytest.approx((exact.low, exact.high))
    assert interval.dof == 3


def test_with_no_seed_noise_it_is_the_t_interval_over_patients():
    values = stream(3).normal(0.3, 1, size=25)
    bootstrap = np.tile(patient_weights(np.arange(25), stream(4), 20_000) @ values[:, None] / 25, (1, 2))
    interval = over_patients_and_seeds(np.full(2, values.mean()), bootstrap, patients=25)
    exact = ttest_1samp(values, 0)
    assert interval.dof == pytest.approx(24)
    assert interval.p_value() == pytest.approx(exact.pvalue, rel=0.1)
    assert interval.high == pytest.approx(exact.confidence_interval(0.95).high, rel=0.02)


@pytest.mark.parametrize(("seeds", "patients"), [(1, 50), (3, 1)])
def test_one_seed_or_one_patient_gives_no_interval_rather_than_a_narrow_one(seeds, patients):
    scores = np.full(seeds, 0.75)
    interval = over_patients_and_seeds(scores, np.full((10, seeds), 0.75), patients=patients)
    assert interval == Interval(0.75, -math.inf, math.inf, 0.0, math.inf)
    assert interval.p_value() == 1.0


def test_clips_to_the_range_only_when_asked():
    scores, bootstrap = np.array([0.9, 0.99, 0.95]), np.tile([0.9, 0.99, 0.95], (10, 1))
    assert over_patients_and_seeds(scores, bootstrap).high > 1
    assert over_patients_and_seeds(scores, bootstrap, clip=(0, 1)).high == 1
    assert over_patients_and_seeds(scores, bootstrap, clip=(0, 1)).p_value() < 0.01


def test_nan_is_refused():
    with pytest.raises(MedsslError, match="NaN"):
        over_patients_and_seeds([0.5, np.nan], np.ones((10, 2)))


def test_no_patients_is_refused():
    with pytest.raises(MedsslError, match="no patient"):
        patient_weights([], stream(0), 10)
