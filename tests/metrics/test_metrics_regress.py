"""MAE, RMSE and R² against scikit-learn, and their edges."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import mean_absolute_error, r2_score, root_mean_squared_error

from medssl import MedsslError
from medssl.metrics.regress import mae, r2, rmse
from medssl.rng import stream

PEERS = [(mae, mean_absolute_error), (rmse, root_mean_squared_error), (r2, r2_score)]


@pytest.mark.parametrize(("ours", "peer"), PEERS)
def test_agrees_with_scikit_learn_under_weights(ours, peer):
    rng = stream("regress")
    target = 55 + 12 * rng.normal(size=80)
    prediction = target + 6 * rng.normal(size=80)
    weights = rng.exponential(size=(20, 80)) * rng.integers(0, 2, (20, 80))
    expected = [peer(target, prediction, sample_weight=row) for row in weights]
    np.testing.assert_allclose(ours(target, prediction, weights), expected, rtol=1e-12, atol=1e-12)
    assert ours(target, prediction) == pytest.approx(peer(target, prediction), abs=1e-12)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 90), st.integers(0, 90), st.integers(0, 3)), min_size=1, max_size=25))
def test_weights_are_repetitions_of_rows(rows):
    target, prediction, weights = np.array(rows, dtype=float).T
    kept = np.repeat(np.arange(len(target)), weights.astype(int))
    for metric, _ in PEERS:
        repeated = metric(target[kept], prediction[kept])
        assert metric(target, prediction, weights) == pytest.approx(repeated, abs=1e-9, nan_ok=True)


def test_r2_is_one_when_perfect_and_zero_for_the_mean():
    assert r2([1, 2, 6], [1, 2, 6]) == 1.0
    assert r2([1, 2, 6], [3, 3, 3]) == 0.0


def test_r2_is_nan_where_a_draw_holds_one_value_only():
    values = r2([0.1, 0.3, 0.3], [0.2, 0.2, 0.4], [[1, 1, 1], [0, 1, 2], [3, 0, 0], [0, 0, 0]])
    assert np.isnan(values).tolist() == [False, True, True, True]


def test_errors_carry_the_unit_and_no_sign():
    assert mae([50, 60], [47, 65]) == 4.0
    assert rmse([50, 60], [47, 64]) == pytest.approx(np.sqrt(12.5))


def test_nan_prediction_is_named():
    with pytest.raises(MedsslError, match="prediction holds 1 values that are NaN"):
        mae([50, 60], [47, np.nan])
