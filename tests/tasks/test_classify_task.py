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
from medssl.rng import stream
from medssl.tasks import Classify, LabelledModel, build_task
from medssl.tasks.classify import one_sided
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
    ({"uncertain": "multi_class", "uncertain_by_label": {"Edema": "self_trained"}},
     [[1, -1, NAN], [0, -1, 1], [NAN, 0, -1], [NAN] * 3]),
])
def test_each_label_has_its_own_reading_of_uncertain(config, expected):
    np.testing.assert_array_equal(table(task(**config).prepare_targets(cases())), expected)


def test_a_misspelt_label_of_a_policy_is_refused():
    with pytest.raises(ValidationError, match="Edma"):
        Classify.Config(labels=LABELS, uncertain_by_label={"Edma": "ones"})
    with pytest.raises(ValidationError, match="once each"):
        Classify.Config(labels=("Edema", "Edema"))


def targets_of(model: Classify, cases: pl.DataFrame) -> torch.Tensor:
    return torch.from_numpy(np.stack(list(model.prepare_targets(cases).values())))


def loss_of(model: Classify, *cases: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Of one batch of two cases, which are all that there are."""
    pooled = torch.linspace(-1, 1, 2 * 8).reshape(2, 8).requires_grad_()
    return model(Features([], pooled), Views((), target=targets_of(model, classes(*cases))))[0], pooled


def fitted_without_features(model: Classify, targets: torch.Tensor) -> None:
    """To features that tell nothing: the biases learn how frequent each answer is."""
    features, views = Features([], torch.zeros(len(targets), 8)), Views((), target=targets)
    solver = torch.optim.LBFGS(model.head.parameters(), max_iter=100)

    def loss() -> torch.Tensor:
        solver.zero_grad()
        found = model(features, views)[0]
        found.backward()
        return found

    solver.step(loss)


def test_loss_is_the_mean_cross_entropy_of_the_known_labels_only():
    model = task()
    torch.nn.init.normal_(model.head.linear.weight)
    loss, pooled = loss_of(model, "1.0", "..1")
    p = torch.sigmoid(model.head(pooled)).detach().double().numpy()
    expected = -(math.log(p[0, 0]) + math.log(1 - p[0, 2]) + math.log(p[1, 2])) / 3
    assert float(loss.detach()) == pytest.approx(expected, rel=1e-5)
    parts = [model(Features([], pooled[row : row + 1]), Views((), target=target[None]))[0].detach()
             for row, target in enumerate(targets_of(model, classes("1.0", "..1")))]
    assert float(sum(parts) / 2) == pytest.approx(expected, rel=1e-5), "however the batch is cut"


def test_uncertain_is_an_answer_of_its_own_and_left_out_of_the_probability():
    model = task(uncertain_by_label={"Pneumonia": "multi_class", "Fracture": "multi_class"})
    torch.nn.init.normal_(model.head.linear.weight)
    loss, pooled = loss_of(model, "1u.", ".10")
    one, two, three, unsure_two, unsure_three = np.exp(model.head(pooled).detach().double().numpy()).T
    expected = -(math.log(one[0] / (1 + one[0])) + math.log(unsure_two[0] / (1 + two[0] + unsure_two[0]))
                 + math.log(two[1] / (1 + two[1] + unsure_two[1])) + math.log(1 / (1 + three[1] + unsure_three[1]))) / 4
    assert float(loss.detach()) == pytest.approx(expected, rel=1e-5)
    found = model.outputs(Features(maps=[], pooled=pooled), ()).detach().numpy()
    np.testing.assert_allclose(found, np.stack([one, two, three], 1) / (1 + np.stack([one, two, three], 1)), rtol=1e-5)


def test_a_third_answer_learns_shares_of_present_among_the_certain():
    model = task(uncertain="multi_class", balance=True)
    known = classes(*["111"] * 10, *["000"] * 30, *["uuu"] * 60)
    targets = targets_of(model, known)
    assert model.weight.tolist() == [3, 3, 3]
    fitted_without_features(model, targets)
    told = model.outputs(Features([], torch.zeros(1, 8)), ()).detach()
    np.testing.assert_allclose(told, [[0.25] * 3], atol=1e-3)
    shares = 60 / 30 * torch.ones(3)  # of uncertain against absent
    np.testing.assert_allclose(model.head.linear.bias[3:].exp().detach(), shares, rtol=1e-2)


def test_what_a_teacher_says_is_learnt_of_the_uncertain_alone():
    model = task(uncertain_by_label={"Edema": "self_trained", "Pneumonia": "ones"})
    known = classes("u0u", "1u0", "0..", "u11")
    assert model.to_be_taught(known)["case_id"].to_list() == ["c0", "c3"]
    assert len(task().to_be_taught(known)) == 0
    model.be_taught({"c0": np.array([0.3, 0.9, 0.9]), "c3": np.array([0.75, 0.1, 0.1])})
    expected = np.array([[0.3, 0, NAN], [1, 1, 0], [0, NAN, NAN], [0.75, 1, 1]], np.float32)
    np.testing.assert_array_equal(table(model.prepare_targets(known)), expected)


def test_missing_labels_give_no_gradient():
    model = task()
    loss_of(model, "1..", "0..")[0].backward()
    gradient = model.head.linear.weight.grad
    assert gradient[0].abs().sum() > 0
    assert (gradient[1:] == 0).all()
    loss, pooled = loss_of(task(), "...", "...")
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


def test_cases_that_are_uncertain_alone_are_learnt_from_and_not_judged():
    config, known = Classify.Config(labels=LABELS), classes("u..", "u1.", "uuu", "...")
    assert Classify.labelled(config, known)["case_id"].to_list() == ["c0", "c1", "c2"]
    assert Classify.judgeable(config, known)["case_id"].to_list() == ["c1"]


def test_labels_of_which_all_are_on_one_side_are_found():
    assert one_sided(Classify.Config(labels=LABELS), classes("1u0", "0u0", "1..")) == ["Pneumonia", "Fracture"]
    ones = Classify.Config(labels=LABELS, uncertain="ones")
    assert one_sided(ones, classes("1u0", "000", "1.1")) == []


def test_a_label_that_is_no_answer_is_named():
    wrong = classes("100", "0.1").with_columns(pl.Series("label.Fracture", [0.0, 9.0]))
    with pytest.raises(ManifestError, match="'Fracture' of case c1 is 9.*blank.*values: {9: null}"):
        Classify.labelled(Classify.Config(labels=LABELS), wrong)


def test_an_unknown_label_names_the_known_ones():
    with pytest.raises(ManifestError, match="no label 'Oedema'.*Edema, Pneumonia, Fracture"):
        Classify.labelled(Classify.Config(labels=("Oedema",)), cases())


def classes(*rows: str) -> pl.DataFrame:
    """A case a row: a letter a label, 1, 0, u for uncertain or . for blank."""
    values = {"1": 1.0, "0": 0.0, "u": -1.0, ".": None}
    columns = {f"label.{name}": [values[row[n]] for row in rows] for n, name in enumerate(LABELS)}
    ids = {"case_id": [f"c{n}" for n in range(len(rows))], "patient_id": [f"p{n}" for n in range(len(rows))]}
    return pl.DataFrame(ids | columns, schema_overrides=dict.fromkeys(columns, pl.Float64))


def test_a_case_of_classes_has_one_and_is_left_out_where_it_is_not_known():
    config, known = Classify.Config(labels=LABELS, kind="single_label"), classes("100", "0.1", "...", "0.0", "1u0")
    assert Classify.labelled(config, known)["case_id"].to_list() == ["c0", "c1"]
    targets = task(kind="single_label").prepare_targets(known[:2])
    assert table(targets) == [[1, 0, 0], [0, 0, 1]]


@pytest.mark.parametrize(("row", "told"), [("110", "c1 has 2 of Edema, Pneumonia, Fracture"),
                                           ("1u1", "c1 has 2 of"), ("000", "c1 has none of")])
def test_a_case_of_no_class_or_of_several_is_told(row, told):
    with pytest.raises(ManifestError, match=f"1 of 2 cases are not of one class: {told}.*task.kind=multi_label"):
        Classify.labelled(Classify.Config(labels=LABELS, kind="single_label"), classes("100", row))


@pytest.mark.parametrize("wrong", [{"labels": ("Edema",)}, {"uncertain": "ones"},
                                   {"uncertain_by_label": {"Edema": "ones"}}])
def test_classes_are_several_and_have_no_uncertain_policy(wrong):
    with pytest.raises(ValidationError, match="single_label"):
        Classify.Config(**{"labels": LABELS, "kind": "single_label"} | wrong)


def test_classes_are_learnt_and_told_by_one_softmax():
    model = task(kind="single_label")
    torch.nn.init.normal_(model.head.linear.weight)
    loss, pooled = loss_of(model, "100", "..1")
    odds = np.exp(model.head(pooled).detach().double().numpy())
    p = odds / odds.sum(axis=1, keepdims=True)
    assert float(loss.detach()) == pytest.approx(-(math.log(p[0, 0]) + math.log(p[1, 2])) / 2, rel=1e-5)
    found = model.outputs(Features(maps=[], pooled=pooled), ())
    np.testing.assert_allclose(found.detach(), p, rtol=1e-5)
    (known,) = classes("0.1").to_dicts()
    assert [(row.name, row.target) for row in model.judge(known, p[0], None)] == [
        ("Edema", 0), ("Pneumonia", 0), ("Fracture", 1)]
    assert model.judge(classes("0u1").to_dicts()[0], p[0], None) == []


def test_rare_findings_and_rare_classes_weigh_as_much_as_frequent_ones():
    model = task(balance=True)
    model.prepare_targets(classes("1u0", "000", "010", "0.0", "000"))
    assert model.weight.tolist() == [4, 2, 1], "of the known ones; 1 where there is no positive"
    model.prepare_targets(classes("100", *["000"] * 500))
    assert model.weight.tolist() == [100, 1, 1]
    model = task(kind="single_label", balance=True)
    model.prepare_targets(classes("100", "100", "100", "001"))
    np.testing.assert_allclose(model.weight, [2 / 3, 1, 2])


def test_the_weights_of_a_run_that_has_none_are_not_looked_for():
    assert "weight" not in task().state_dict()
    assert "weight" in task(balance=True).state_dict()


@pytest.mark.parametrize("kind", ["multi_label", "single_label"])
def test_weights_do_not_move_the_probabilities(kind):
    names = stream("balance").choice(3, size=400, p=[0.05, 0.15, 0.8])
    known = classes(*("".join(str(int(n == name)) for n in range(3)) for name in names))
    model = task(kind=kind, balance=True)
    targets = targets_of(model, known)
    fitted_without_features(model, targets)
    shares = np.bincount(names) / 400
    np.testing.assert_allclose(model.outputs(Features([], torch.zeros(1, 8)), ()).detach()[0], shares, atol=2e-3)
    assert abs(float(model.head.linear.bias[0].detach()) - math.log(shares[0] / (1 - shares[0]))) > 1, "weighed"
