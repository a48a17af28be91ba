"""medssl.evaluate.probe: finds what is there, claims nothing that is not, and learns from training cases alone."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from medssl.errors import ConfigError
from medssl.evaluate.probe import Nearest, neighbours, probe
from medssl.metrics.classify import auroc
from medssl.rng import stream
from medssl.tasks import Classify, Regress, Segment

TRAIN, JUDGED = 60, 200


def cases(count: int, prefix: str, **labels) -> pl.DataFrame:
    return pl.DataFrame({"case_id": [f"{prefix}{n}" for n in range(count)],
                         "patient_id": [f"{prefix}p{n // 2}" for n in range(count)],
                         "attr.view": ["A"] * count, **{f"label.{name}": values for name, values in labels.items()}})


@pytest.fixture
def features() -> tuple[np.ndarray, np.ndarray]:
    draw = stream("probe").normal(size=(TRAIN + JUDGED, 20)) * np.geomspace(1, 1000, 20) + 50
    return draw[:TRAIN], draw[TRAIN:]


def truth(x: np.ndarray) -> np.ndarray:
    return (x[:, 0] > 50).astype(float)


def test_separable_features_are_separated(features):
    train, judged = features
    table = probe(Classify.Config(labels=("Edema",)), train, cases(TRAIN, "t", Edema=truth(train)),
                  judged, cases(JUDGED, "j", Edema=truth(judged)))
    assert table.columns == ["case_id", "patient_id", "name", "target", "prediction", "attr.view"]
    assert table["case_id"].to_list() == [f"j{n}" for n in range(JUDGED)]
    assert auroc(table["target"].to_numpy(), table["prediction"].to_numpy()) > 0.9
    assert table["prediction"].is_between(0, 1).all()


def test_a_vote_weighs_each_neighbour_by_its_angle():
    known = np.array([[1.0, 0.0], [0.0, 2.0], [3.0, 3.0]])
    judged = np.array([[5.0, 0.0], [0.0, 0.1]])
    cosines = np.array([[1.0, 0.0, np.sqrt(0.5)], [0.0, 1.0, np.sqrt(0.5)]])
    weights = np.exp(cosines / 0.07)
    truth = np.array([0.2, 0.4, 0.9])
    np.testing.assert_allclose(Nearest(known, judged).vote(truth), weights @ truth / weights.sum(axis=1))


def test_only_the_twenty_nearest_vote():
    angles = np.linspace(0, 1, 60)
    known = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    assert Nearest(known, known[:1]).vote((angles > angles[19]) * 1.0) == 0


def test_neighbours_learn_from_their_own_subset_and_from_certain_labels(features):
    train, judged = features
    known = truth(train)
    subsets = [np.arange(TRAIN) < count for count in (20, TRAIN)]
    labels = [value if n % 5 else -1.0 for n, value in enumerate(known)]
    found = neighbours(Classify.Config(labels=("Edema",)), train, cases(TRAIN, "t", Edema=labels), subsets, judged,
                       cases(JUDGED, "j", Edema=truth(judged)))
    for subset, table in zip(subsets, found, strict=True):
        certain = subset & (np.arange(TRAIN) % 5 > 0)
        np.testing.assert_allclose(table["prediction"], Nearest(train[certain], judged).vote(known[certain]))
    blank = cases(TRAIN, "t", Edema=[-1.0] * TRAIN)
    (none,) = neighbours(Classify.Config(labels=("Edema",)), train, blank, subsets[:1], judged,
                         cases(JUDGED, "j", Edema=truth(judged)))
    assert set(none["prediction"]) == {0.5}


def test_features_that_know_nothing_stay_at_chance(features):
    train, judged = features
    rng = stream("coins")
    table = probe(Classify.Config(labels=("Edema",)), train, cases(TRAIN, "t", Edema=rng.integers(0, 2, TRAIN) * 1.0),
                  judged, cases(JUDGED, "j", Edema=rng.integers(0, 2, JUDGED) * 1.0))
    assert 0.35 < auroc(table["target"].to_numpy(), table["prediction"].to_numpy()) < 0.65


def test_uncertain_and_missing_labels_are_neither_learnt_nor_judged(features):
    train, judged = features
    known, its = truth(train).tolist(), truth(judged).tolist()
    misleading = [1 - known[n] if n % 3 else known[n] for n in range(TRAIN)]
    hidden = [known[n] if n % 3 == 0 else (-1.0, None)[n % 2] for n in range(TRAIN)]
    labels = [its[n] if n % 4 else (-1.0, None)[n % 8 == 0] for n in range(JUDGED)]
    config = Classify.Config(labels=("Edema",))
    found = probe(config, train, cases(TRAIN, "t", Edema=hidden), judged, cases(JUDGED, "j", Edema=labels))
    misled = probe(config, train, cases(TRAIN, "t", Edema=misleading), judged, cases(JUDGED, "j", Edema=labels))
    assert len(found) == 150
    assert set(found["target"]) == {0.0, 1.0}
    scores = [auroc(table["target"].to_numpy(), table["prediction"].to_numpy()) for table in (found, misled)]
    assert scores[0] > 0.75 > scores[1]


def test_what_one_judged_case_gets_does_not_depend_on_the_others(features):
    train, judged = features
    config = Classify.Config(labels=("Edema",))
    labelled = cases(TRAIN, "t", Edema=truth(train))
    whole = probe(config, train, labelled, judged, cases(JUDGED, "j", Edema=truth(judged)))
    few = probe(config, train, labelled, judged[:3], cases(3, "j", Edema=truth(judged[:3])))
    np.testing.assert_allclose(few["prediction"], whole["prediction"][:3])


def test_one_class_in_training_says_its_share_and_no_label_a_half(features):
    train, judged = features
    config = Classify.Config(labels=("Edema", "Rare"))
    rare = [None] * TRAIN
    table = probe(config, train, cases(TRAIN, "t", Edema=[1.0] * TRAIN, Rare=pl.Series(rare, dtype=pl.Float64)),
                  judged, cases(JUDGED, "j", Edema=truth(judged), Rare=truth(judged)))
    assert set(table.filter(pl.col("name") == "Edema")["prediction"]) == {1.0}
    assert set(table.filter(pl.col("name") == "Rare")["prediction"]) == {0.5}


def test_regression_finds_a_linear_law(features):
    train, judged = features
    ef = [55 + 3 * (x[:, 0] - 50) + 0.01 * (x[:, 19] - 50) for x in (train, judged)]
    table = probe(Regress.Config(label="EF"), train, cases(TRAIN, "t", EF=ef[0]), judged, cases(JUDGED, "j", EF=ef[1]))
    error = np.abs(table["target"] - table["prediction"]).mean()
    assert error < 0.3 * np.abs(ef[1] - ef[1].mean()).mean()


def test_a_probe_cannot_segment(features):
    with pytest.raises(ConfigError, match="cannot segment.*how: finetune"):
        probe(Segment.Config(), *features, features[0], features[1])


@pytest.mark.parametrize(("policy", "read"), [("zeros", 0.0), ("ones", 1.0), ("ignore", None), ("multi_class", None),
                                              ("self_trained", None)])
def test_uncertain_labels_are_learnt_as_the_policy_reads_them(features, policy, read):
    train, judged = features
    unsure = [-1.0 if n % 3 == 0 else value for n, value in enumerate(truth(train))]
    by_hand = [read if value == -1 else value for value in unsure]
    its = cases(JUDGED, "j", Edema=truth(judged))
    found = probe(Classify.Config(labels=("Edema",), uncertain_by_label={"Edema": policy}), train,
                  cases(TRAIN, "t", Edema=unsure), judged, its)
    expected = probe(Classify.Config(labels=("Edema",)), train, cases(TRAIN, "t", Edema=by_hand), judged, its)
    assert found.equals(expected)


def test_classes_have_probabilities_that_sum_to_1_and_are_told_apart(features):
    train, judged = features

    def labelled(x: np.ndarray, prefix: str) -> pl.DataFrame:
        place = np.digitize(x[:, 0], [49.5, 50.5])
        return cases(len(x), prefix, **{name: (place == n) * 1.0 for n, name in enumerate("abc")})

    config = Classify.Config(labels=("a", "b", "c"), kind="single_label")
    table = probe(config, train, labelled(train, "t"), judged, labelled(judged, "j"))
    assert len(table) == 3 * JUDGED
    np.testing.assert_allclose(table.group_by("case_id").agg(pl.col("prediction").sum())["prediction"], 1)
    for name in "ac":
        rows = table.filter(pl.col("name") == name)
        assert auroc(rows["target"].to_numpy(), rows["prediction"].to_numpy()) > 0.9


@pytest.mark.parametrize("pool", ["mean", "max"])
def test_a_study_is_judged_once_by_its_pooled_images(features, pool):
    train, judged = features
    labelled, its = cases(TRAIN, "t", Edema=truth(train)), cases(JUDGED, "j", Edema=truth(judged))
    its = its.with_columns(study_id=pl.Series([f"s{n // 3}" for n in range(JUDGED)]))
    single = probe(Classify.Config(labels=("Edema",)), train, labelled, judged, its)
    found = probe(Classify.Config(labels=("Edema",), scored_by="study", pool=pool), train, labelled, judged, its)
    expected = {}
    for study, rows in single.join(its.select("case_id", "study_id"), on="case_id").group_by("study_id"):
        if rows["target"].n_unique() == 1:
            expected[study[0]] = getattr(rows["prediction"], pool)()
    assert 5 < len(expected) < JUDGED / 3, "some disagree"
    assert dict(zip(found["case_id"], found["prediction"], strict=True)) == pytest.approx(expected)
