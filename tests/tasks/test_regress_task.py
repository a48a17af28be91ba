"""medssl.tasks.regress: units, where the head starts, and the mean and sd of the training labels."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
import torch
from pydantic import ValidationError

from medssl.models import build_encoder
from medssl.models.cnn import UNetEncoder
from medssl.tasks import Regress, build_task
from medssl.types import Features, Views

CONFIG = Regress.Config(label="EF")


def task() -> Regress:
    torch.manual_seed(0)
    return build_task(CONFIG, build_encoder(UNetEncoder.Config(dims=2, widths=(4, 8))), {})


def cases(values: list[float | None]) -> pl.DataFrame:
    names = [str(n) for n in range(len(values))]
    return pl.DataFrame({"case_id": names, "patient_id": names, "label.EF": values})


def features(count: int) -> Features:
    return Features(maps=[], pooled=torch.linspace(-1, 1, 8 * count).reshape(count, 8))


def test_mean_and_sd_are_those_of_the_cases_it_is_given():
    model = task()
    targets = model.prepare_targets(cases([40.0, 60.0, 56.0]))
    assert float(model.mean) == pytest.approx(52)
    assert float(model.sd) == pytest.approx(np.std([40, 60, 56]))
    np.testing.assert_array_equal([targets[case] for case in "012"], [[40], [60], [56]])  # in the label's own unit


def test_a_new_head_says_about_the_mean_and_the_loss_is_in_standard_deviations():
    model, truth = task(), torch.tensor([[40.0], [60.0], [56.0]])
    model.prepare_targets(cases(truth.flatten().tolist()))
    output = model.outputs(features(3), (8, 8)).detach()
    np.testing.assert_allclose(output, 52, atol=1.0)
    loss, figures = model(features(3), Views(images=(torch.zeros(3, 1, 8, 8),), target=truth))
    error = (output - truth).double().numpy()
    assert float(loss.detach()) == pytest.approx(float((error ** 2).mean() / np.var([40, 60, 56])), rel=1e-5)
    assert float(figures["rmse"]) == pytest.approx(float(np.sqrt((error ** 2).mean())), rel=1e-5)


def test_equal_labels_do_not_divide_by_zero():
    model = task()
    model.prepare_targets(cases([55.6, 55.6]))
    loss, _ = model(features(2), Views(images=(torch.zeros(2, 1, 8, 8),), target=torch.full((2, 1), 55.6)))
    assert torch.isfinite(loss)


def test_mean_and_sd_travel_with_the_weights():
    model, other = task(), task()
    model.prepare_targets(cases([40.0, 60.0]))
    other.load_state_dict(model.state_dict())
    assert torch.equal(other.outputs(features(2), (8, 8)), model.outputs(features(2), (8, 8)))


def test_judge_labelled_and_strata():
    [row] = task().judge(cases([61.5]).row(0, named=True), np.array([58.25]), None)
    assert (row.name, row.target, row.prediction) == ("EF", 61.5, 58.25)
    known = Regress.labelled(CONFIG, cases([1.0, None, 3.0]))
    assert known["case_id"].to_list() == ["0", "2"]
    strata = Regress.strata(CONFIG, cases([float(n) for n in range(40)]))
    assert [strata.count(quarter) for quarter in range(4)] == [10, 10, 10, 10]
    assert strata == sorted(strata)
    assert Regress.strata(CONFIG, cases([])) == []


def test_a_bound_is_given_once():
    with pytest.raises(ValidationError, match="names one twice"):
        Regress.Config(label="EF", below=(40, 40.0))
