"""Temperature scaling: finds the temperature that was put in, and touches no rank and no test label."""

from __future__ import annotations

import numpy as np
import pytest

from medssl.errors import MedsslError
from medssl.evaluate.calibrate import at_temperature, fit_temperature
from medssl.metrics.classify import auroc, ece
from medssl.report.reliability import reliability_figure
from medssl.rng import stream


@pytest.mark.parametrize("temperature", [0.4, 1.0, 3.0])
def test_the_temperature_that_was_put_in_is_found(temperature):
    rng = stream("temperature")
    honest = rng.uniform(0.02, 0.98, 20000)
    target = (rng.uniform(size=20000) < honest).astype(float)
    given = at_temperature(honest, 1 / temperature)  # overconfident where it is above 1
    found = fit_temperature(target, given)
    assert found == pytest.approx(temperature, rel=0.05)
    scaled = at_temperature(given, found)
    np.testing.assert_allclose(scaled, honest, atol=0.02)
    assert ece(target, scaled) < 0.02
    assert auroc(target, scaled) == pytest.approx(auroc(target, given), abs=1e-12)


@pytest.mark.parametrize("temperature", [0.4, 3.0])
def test_classes_have_one_temperature_and_their_probabilities_a_sum_of_1(temperature):
    rng = stream("temperature of classes")
    honest = rng.dirichlet([1, 2, 3, 4], size=20000)
    target = np.stack([rng.multinomial(1, row) for row in honest]).astype(float)
    given = at_temperature(honest, 1 / temperature)
    assert fit_temperature(target, given) == pytest.approx(temperature, rel=0.05)
    scaled = at_temperature(given, temperature)
    np.testing.assert_allclose(scaled, honest, atol=0.01)
    np.testing.assert_allclose(scaled.sum(axis=1), 1)


def test_a_finding_is_two_classes():
    rng = stream("two classes")
    probability = rng.uniform(0.01, 0.99, 500)
    target = (rng.uniform(size=500) < probability**2).astype(float)
    both = [np.stack([1 - values, values], axis=1) for values in (target, probability)]
    assert fit_temperature(target, probability) == pytest.approx(fit_temperature(*both))
    logit = np.log(probability / (1 - probability))
    np.testing.assert_allclose(at_temperature(probability, 2.5), 1 / (1 + np.exp(-logit / 2.5)))


def test_probabilities_of_0_and_1_have_a_temperature():
    assert fit_temperature([0, 1, 1, 0], [0.0, 1.0, 0.0, 0.0]) == pytest.approx(-np.log(1e-7) / np.log(3), rel=0.01)
    assert at_temperature([0.0, 1.0], 2.0).tolist() == pytest.approx([0.0, 1.0], abs=1e-3)


@pytest.mark.parametrize(("probability", "what"), [([0.1, 0.9], "never wrong"), ([0.9, 0.1], "no better than a guess")])
def test_a_model_that_is_always_right_or_wrong_has_none(probability, what):
    with pytest.raises(MedsslError, match=what):
        fit_temperature([0, 1], probability)


def test_one_class_has_none():
    with pytest.raises(MedsslError, match="all of one class"):
        fit_temperature([1, 1], [0.2, 0.7])
    with pytest.raises(MedsslError, match="all of one class"):
        fit_temperature([[0, 1, 0], [0, 1, 0]], [[0.2, 0.7, 0.1], [0.3, 0.3, 0.4]])


def test_the_picture_has_a_line_a_kind_of_probability():
    rng = stream("picture")
    probability = rng.uniform(size=300)
    target = (rng.uniform(size=300) < probability).astype(float)
    shares, counts = reliability_figure(target, {"before": probability, "after": probability**2}).axes
    _, before, after = shares.lines
    assert len(before.get_xdata()) == 10
    assert np.abs(before.get_xdata() - before.get_ydata()).max() < 0.35
    assert (np.diff(after.get_xdata()) > 0).all()
    assert len(counts.lines) + len(counts.patches) >= 2
