"""medssl.evaluate.studies: several images, one judgement a study."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from pydantic import ValidationError

from medssl.evaluate import studies
from medssl.evaluate.studies import judged_units, to_be_judged
from medssl.tasks import Classify, Regress

VALUES = np.array([[0.2, 0.9], [0.8, 0.1], [0.5, 0.5], [0.3, 0.6], [0.1, 0.2]])


@pytest.fixture(autouse=True)
def untold() -> None:
    studies._warn_once.cache_clear()


def images() -> pl.DataFrame:
    """Three studies, of two, one and two images."""
    return pl.DataFrame({
        "case_id": ["c0", "c1", "c2", "c3", "c4"], "study_id": ["s1", "s0", "s1", "s2", "s2"],
        "patient_id": ["p0", "p1", "p0", "p1", "p1"], "attr.view": ["AP", "PA", "lateral", "PA", "PA"],
        "attr.age": [40.0, None, 40.0, 61.0, None],
        "label.Edema": [1.0, 0.0, -1.0, 1.0, 0.0], "label.Fracture": [None, -1.0, None, 0.0, None]})


@pytest.mark.parametrize(("pool", "expected"), [("mean", [[0.35, 0.7], [0.8, 0.1], [0.2, 0.4]]),
                                                ("max", [[0.5, 0.9], [0.8, 0.1], [0.3, 0.6]])])
def test_images_of_a_study_are_pooled(pool, expected):
    task = Classify.Config(labels=("Edema", "Fracture"), scored_by="study", pool=pool)
    units, values = judged_units(task, images(), VALUES)
    assert units.to_dict(as_series=False) == {
        "case_id": ["s1", "s0", "s2"], "patient_id": ["p0", "p1", "p1"], "label.Edema": [1.0, 0.0, None],
        "label.Fracture": [None, None, 0.0], "attr.view": ["AP + lateral", "PA", "PA"], "attr.age": [40.0, None, None]}
    np.testing.assert_allclose(values, expected)


def test_disagreement_is_told_once_and_a_single_label_study_of_two_classes_is_not_judged(caplog):
    cases = images().with_columns(pl.Series("label.Fracture", [0.0, 1.0, 0.0, 0.0, 1.0]))
    task = Classify.Config(labels=("Edema", "Fracture"), kind="single_label", scored_by="study")
    for _ in range(2):
        units, _ = judged_units(task, cases, VALUES)
    assert caplog.messages == ["the images of 1 of 3 studies disagree on Edema; these are not judged on it",
                               "the images of 1 of 3 studies disagree on Fracture; these are not judged on it"]
    assert units["label.Edema"].to_list() == [1.0, 0.0, None]


@pytest.mark.parametrize("task", [Classify.Config(labels=("Edema",)), Regress.Config(label="EF")])
def test_otherwise_images_stay_what_they_are(task):
    units, values = judged_units(task, images(), VALUES)
    assert units.equals(images())
    assert values is VALUES


def test_a_study_is_judged_over_all_of_its_images_though_one_has_no_label():
    cases = images().with_columns(pl.Series("label.Edema", [1.0, None, None, None, None]), **{"label.Fracture": None})
    by_study, by_image = (Classify.Config(labels=("Edema", "Fracture"), scored_by=unit) for unit in ("study", "image"))
    assert to_be_judged(by_study, cases)["case_id"].to_list() == ["c0", "c2"]
    assert to_be_judged(by_image, cases)["case_id"].to_list() == ["c0"]


def test_new_cases_need_no_labels():
    task = Classify.Config(labels=("Edema", "Fracture"), scored_by="study")
    units, _ = judged_units(task, images().drop("label.Edema", "label.Fracture"), VALUES)
    assert units.columns == ["case_id", "patient_id", "attr.view", "attr.age"]


def test_the_largest_probabilities_of_classes_are_refused():
    with pytest.raises(ValidationError, match="pool max is for multi_label.*use pool mean"):
        Classify.Config(labels=("a", "b"), kind="single_label", pool="max")
