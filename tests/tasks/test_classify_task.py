"""medssl.tasks.classify: uncertain labels, missing ones, and what is judged."""

from __future__ import annotations

import math

import numpy as np
import polars as pl
import pytest
import torch
from pydantic import ValidationError

from medssl.errors import ManifestError
from medssl.models import build_encoder
from medssl.models.cnn import UNetEncoder
from medssl.tasks import Classify, LabelledModel, build_task
from medssl.types import Features, Views

LABELS = ("Edema", "Pneumonia", "Fracture")


def task(**config) -> Classify:
    encoder = build_encoder(UNetEncoder.Config(dims=2, widths=(4, 8)))
    return build_task(Classify.Config(labels=LABELS, **config), encoder, {})


def cases() -> pl.DataFrame:
    return pl.DataFrame({
        "case_id": ["c0", "c1", "c2", "c3"], "patient_id": ["p0", "p1", "p2", "p3"],
        "label.Edema": [1.0, 0.0, -1.0, None], "label.Pneumonia": [-1.0, -1.0, 0.0, None],
        "label.Fracture": [None, 1.0, -1.0, None]})


def table(targets: dict[str, np.ndarray]) -> list[list[float]]:
    return np.stack([targets[case] for case in sorted(targets)]).tolist()


NAN = math.nan


@pytest.mark.parametrize(("config", "expected"), [
    ({}, [[1, NAN, NAN], [0, NAN, 1], [NAN, 0, NAN], [NAN] * 3]),
    ({"uncertain": "zeros"}, [[1, 0, NAN], [0, 0, 1], [0, 0, 0], [NAN] * 3]),
    ({"uncertain": "ones"}, [[1, 1, NAN], [0, 1, 1], [1, 0, 1], [NAN] * 3]),
    ({"uncertain": "zeros", "uncertain_by_label": {"Edema": "ones", "Fracture": "ignore"}},
     [[1, 0, NAN], [0, 0, 1], [1, 0, NAN], [NAN] * 3]),
])
def test_each_label_has_its_own_reading_of_uncertain(config, expected):
    np.testing.assert_array_equal(table(task(**config).prepare_targets(cases())), expected)


def test_a_misspelt_label_of_a_policy_is_refused():
    with pytest.raises(ValidationError, match="Edma"):
        Classify.Config(labels=LABELS, uncertain_by_label={"Edma": "ones"})
    with pytest.raises(ValidationError, match="once each"):
        Classify.Config(labels=("Edema", "Edema"))


def loss_of(model: Classify, target: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    pooled = torch.linspace(-1, 1, 2 * 8).reshape(2, 8).requires_grad_()
    return model(Features(maps=[], pooled=pooled), Views(images=(torch.zeros(2, 1, 8, 8),), target=target))[0], pooled


def test_loss_is_the_mean_cross_entropy_of_the_known_labels_only():
    model = task()
    torch.nn.init.normal_(model.head.linear.weight)
    target = torch.tensor([[1, NAN, 0], [NAN, NAN, 1.0]])
    loss, pooled = loss_of(model, target)
    p = torch.sigmoid(model.head(pooled)).detach().double().numpy()
    expected = -(math.log(p[0, 0]) + math.log(1 - p[0, 2]) + math.log(p[1, 2])) / 3
    assert float(loss.detach()) == pytest.approx(expected, rel=1e-5)


def test_missing_labels_give_no_gradient():
    model = task()
    loss_of(model, torch.tensor([[1, NAN, NAN], [0, NAN, NAN]]))[0].backward()
    gradient = model.head.linear.weight.grad
    assert gradient[0].abs().sum() > 0
    assert (gradient[1:] == 0).all()
    loss, pooled = loss_of(task(), torch.full((2, 3), NAN))
    loss.backward()
    assert float(loss.detach()) == 0
    assert (pooled.grad == 0).all()


def test_only_certain_truth_is_judged():
    rows = [task().judge(case, np.array([0.9, 0.2, 0.4]), None) for case in cases().to_dicts()]
    found = [[(row.name, row.target, row.prediction) for row in case] for case in rows]
    assert found == [[("Edema", 1.0, 0.9)], [("Edema", 0.0, 0.9), ("Fracture", 1.0, 0.4)],
                     [("Pneumonia", 0.0, 0.2)], []]


def test_outputs_are_probabilities_of_the_whole_model():
    model = task()
    images = torch.rand(2, 1, 8, 8)
    encoder = build_encoder(UNetEncoder.Config(dims=2, widths=(4, 8)))
    found = model.outputs(encoder(images), (8, 8))
    assert found.shape == (2, 3)
    assert ((found > 0) & (found < 1)).all()
    loss, _ = LabelledModel(encoder, model)(Views(images=(images,), target=torch.ones(2, 3)))
    assert loss.ndim == 0


def test_labelled_cases_and_their_strata():
    config = Classify.Config(labels=LABELS)
    assert Classify.labelled(config, cases())["case_id"].to_list() == ["c0", "c1", "c2"]
    assert Classify.strata(config, cases()) == ["100", "001", "000", "000"]


def test_an_unknown_label_names_the_known_ones():
    with pytest.raises(ManifestError, match="no label 'Oedema'.*Edema, Pneumonia, Fracture"):
        Classify.labelled(Classify.Config(labels=("Oedema",)), cases())
