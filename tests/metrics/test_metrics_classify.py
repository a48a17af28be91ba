"""AUROC and average precision against scikit-learn, and by what must not change them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, brier_score_loss, roc_auc_score, roc_curve

from medssl import MedsslError
from medssl.metrics.classify import BLOCK, auprc, auroc, brier, ece, sensitivity_at
from medssl.rng import stream

METRICS = [auroc, auprc, sensitivity_at]
PEERS = [(auroc, roc_auc_score), (auprc, average_precision_score)]
few = settings(max_examples=60, deadline=None)


@st.composite
def judged(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """target, score, weights: both classes present with weight, scores on a coarse grid so that many tie."""
    cases = draw(st.integers(2, 30))
    integers = st.integers(0, 4)
    target = np.array([0, 1, *draw(st.lists(st.integers(0, 1), min_size=cases - 2, max_size=cases - 2))])
    score = np.array(draw(st.lists(st.integers(-5, 5), min_size=cases, max_size=cases)), dtype=float)
    weights = np.array([1, 1, *draw(st.lists(integers, min_size=cases - 2, max_size=cases - 2))], dtype=float)
    return target, score, weights


@pytest.mark.parametrize(("ours", "peer"), PEERS)
@pytest.mark.parametrize("decimals", [1, 12])
@pytest.mark.parametrize("cases", [40, BLOCK // 16 + 3])
def test_agrees_with_scikit_learn_under_weights(ours, peer, decimals, cases):
    rng = stream("classify", decimals, cases)
    target = rng.integers(0, 2, cases)
    score = (target + rng.normal(size=cases)).round(decimals)
    weights = rng.exponential(size=(35, cases)) * rng.integers(0, 2, (35, cases))
    expected = [peer(target, score, sample_weight=row) for row in weights]
    np.testing.assert_allclose(ours(target, score, weights), expected, rtol=0, atol=1e-12)
    assert ours(target, score) == pytest.approx(peer(target, score), abs=1e-12)
    assert ours(target, score, weights[0]) == pytest.approx(expected[0], abs=1e-12)


@few
@given(judged())
def test_unchanged_by_a_rising_map(case):
    target, score, weights = case
    for metric in METRICS:
        assert metric(target, 3 * score**3 - 7, weights) == metric(target, score, weights)


@few
@given(judged())
def test_auroc_of_the_negated_score_is_the_complement(case):
    target, score, weights = case
    assert auroc(target, -score, weights) == pytest.approx(1 - auroc(target, score, weights), abs=1e-12)
    assert auroc(1 - target, score, weights) == pytest.approx(1 - auroc(target, score, weights), abs=1e-12)


@few
@given(judged())
def test_weights_are_repetitions_of_rows(case):
    target, score, weights = case
    rows = np.repeat(np.arange(len(target)), weights.astype(int))
    for metric in METRICS:
        assert metric(target, score, weights) == pytest.approx(metric(target[rows], score[rows]), abs=1e-12)


@few
@given(judged(), st.integers(0, 100))
def test_the_order_of_the_cases_does_not_matter(case, seed):
    target, score, weights = case
    order = stream("order", seed).permutation(len(target))
    for metric in METRICS:
        shuffled = metric(target[order], score[order], weights[order])
        assert shuffled == pytest.approx(metric(target, score, weights), abs=1e-12)


def test_known_values():
    assert auroc([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8]) == 0.75
    assert auroc([0, 1, 0, 1], [5, 5, 5, 5]) == 0.5
    assert auprc([0, 1, 0, 1], [5, 5, 5, 5]) == 0.5
    assert auprc([0, 0, 1, 1], [0, 1, 2, 3]) == auroc([0, 0, 1, 1], [0, 1, 2, 3]) == 1.0


@pytest.mark.parametrize("metric", METRICS)
def test_a_missing_class_is_nan_only_where_it_is_missing(metric):
    values = metric([0, 1, 1], [0.2, 0.1, 0.3], [[1, 1, 1], [0, 1, 2], [1, 0, 0]])
    assert np.isnan(values).tolist() == [False, True, True]
    assert np.isnan(metric([1, 1], [0.2, 0.1]))
    assert np.isnan(metric([], []))


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (([0, 1, -1], [0.1, 0.2, 0.3]), "target holds -1"),
        (([0, 1], [0.1, np.nan]), "score holds 1 values that are NaN"),
        (([0, 1], [0.1, 0.2, 0.3]), "score has shape"),
        (([0, 1], [0.1, 0.2], [1, 1, 1]), "weights have shape"),
        (([0, 1], [0.1, 0.2], [1, -1]), "weights hold negative"),
    ],
)
def test_bad_input_is_named(metric, arguments, what):
    with pytest.raises(MedsslError, match=what):
        metric(*arguments)


@pytest.mark.parametrize("decimals", [1, 12])
@pytest.mark.parametrize("specificity", [0.5, 0.9, 0.95, 1.0])
def test_sensitivity_is_the_best_point_of_the_roc_curve_that_spares_enough(decimals, specificity):
    rng = stream("sensitivity", decimals)
    target = rng.integers(0, 2, 150)
    score = (target + rng.normal(size=150)).round(decimals)
    weights = rng.integers(0, 4, (20, 150)).astype(float)
    found = sensitivity_at(target, score, weights, specificity)
    for row, ours in zip(weights, found, strict=True):
        false, true, _ = roc_curve(target, score, sample_weight=row, drop_intermediate=False)
        assert ours == pytest.approx(true[false <= 1 - specificity + 1e-9].max())


def test_sensitivity_of_a_score_that_says_nothing_is_none():
    assert sensitivity_at([0, 1, 0, 1], [0.5, 0.5, 0.5, 0.5]) == 0.0
    assert sensitivity_at([0, 1, 0, 1], [0.1, 0.8, 0.2, 0.9]) == 1.0


def test_the_brier_score_is_scikit_learn_s():
    rng = stream("brier")
    target, probability, weights = rng.integers(0, 2, 60), rng.uniform(size=60), rng.uniform(size=(5, 60))
    expected = [brier_score_loss(target, probability, sample_weight=row) for row in weights]
    np.testing.assert_allclose(brier(target, probability, weights), expected)


def test_the_calibration_error_of_a_case_written_out():
    target = [0, 0, 1, 1, 1, 0, 1, 1]
    probability = [0.1, 0.1, 0.1, 0.1, 0.95, 0.95, 1.0, 0.95]
    # bins of a tenth: |2/4 - 0.1| of four cases, and |3/4 - 3.85/4| of four
    assert ece(target, probability, bins=10) == pytest.approx((abs(2 - 0.4) + abs(3 - 3.85)) / 8)
    assert ece(target, target) == 0


def test_a_calibrated_probability_has_little_calibration_error_and_an_overconfident_one_much():
    rng = stream("calibrated")
    probability = rng.uniform(size=20000)
    target = (rng.uniform(size=20000) < probability).astype(float)
    assert ece(target, probability) < 0.02
    logit = np.log(probability / (1 - probability))
    assert ece(target, 1 / (1 + np.exp(-4 * logit))) > 0.1


@few
@given(judged())
def test_weights_of_probabilities_are_repetitions(case):
    target, score, weights = case
    probability = (score + 5) / 10
    times = weights.astype(int)
    for metric in (brier, ece):
        repeated = metric(np.repeat(target, times), np.repeat(probability, times))
        assert metric(target, probability, weights) == pytest.approx(repeated)


def test_logits_are_no_probabilities():
    for metric in (brier, ece):
        with pytest.raises(MedsslError, match="reach from -1 to 2"):
            metric([0, 1], [-1.0, 2.0])
