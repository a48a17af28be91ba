"""medssl.metrics.ood against scikit-learn, and by hand."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_curve
from sklearn.neighbors import NearestNeighbors

from medssl.errors import MedsslError
from medssl.metrics.ood import energy, fpr_at_95, neighbour_distance, unsure
from medssl.rng import stream

LOGITS = np.array([[0.0, np.log(3.0)], [np.log(9.0), -np.log(4.0)]])


def test_the_largest_probability_of_classes_and_of_labels_by_hand():
    np.testing.assert_allclose(unsure(LOGITS, exclusive=True), [0.25, 1 - 36 / 37])
    np.testing.assert_allclose(unsure(LOGITS, exclusive=False), [(0.5 + 0.25) / 2, (0.1 + 0.2) / 2])


def test_energy_of_classes_and_of_labels_by_hand():
    np.testing.assert_allclose(energy(LOGITS, exclusive=True), [-np.log(4), -np.log(9.25)])
    np.testing.assert_allclose(energy(LOGITS, exclusive=False), [-np.log(2 * 4), -np.log(10 * 1.25)])
    assert np.isfinite(energy([[900.0, -900.0]], exclusive=False)).all()


def test_distances_agree_with_scikit_learn():
    draw = stream("ood").normal(size=(60, 5))
    known, features = draw[:40], draw[40:] * 7
    of_length_1 = [part / np.linalg.norm(part, axis=1, keepdims=True) for part in (known, features)]
    expected, _ = NearestNeighbors(n_neighbors=10).fit(of_length_1[0]).kneighbors(of_length_1[1])
    np.testing.assert_allclose(neighbour_distance(known, features), expected[:, 9])
    np.testing.assert_allclose(neighbour_distance(known[:3], features), NearestNeighbors(n_neighbors=3).fit(
        of_length_1[0][:3]).kneighbors(of_length_1[1])[0][:, 2])
    with pytest.raises(MedsslError, match="no known features"):
        neighbour_distance(known[:0], features)


def test_distances_are_the_same_in_blocks(monkeypatch):
    draw = stream("blocks").normal(size=(30, 4))
    whole = neighbour_distance(draw[:12], draw[12:])
    monkeypatch.setattr("medssl.metrics.ood.CELLS", 60)  # five cases at a time
    np.testing.assert_array_equal(neighbour_distance(draw[:12], draw[12:]), whole)


def test_fpr95_agrees_with_scikit_learns_curve():
    rng = stream("fpr")
    strange = (rng.random(400) < 0.3).astype(float)
    score = np.round(rng.normal(size=400) + strange, 1)  # with ties
    false_alarms, found, _ = roc_curve(strange, score, drop_intermediate=False)
    expected = 1 - found[false_alarms <= 0.05 + 1e-12].max()
    assert fpr_at_95(strange, score) == pytest.approx(expected)


def test_weights_are_repetitions():
    strange, score = np.array([0, 0, 0, 1, 1, 1.0]), np.array([0.1, 0.4, 0.3, 0.2, 0.5, 0.9])
    weights = np.array([[1, 1, 1, 1, 1, 1], [30, 1, 1, 2, 0, 1]])
    repeated = [np.repeat(values, weights[1]) for values in (strange, score)]
    np.testing.assert_allclose(fpr_at_95(strange, score, weights), [fpr_at_95(strange, score), fpr_at_95(*repeated)])
    assert fpr_at_95(strange, score) == pytest.approx(1 / 3)
    assert fpr_at_95(strange, -score) == 1
    assert np.isnan(fpr_at_95(np.zeros(3), score[:3]))
