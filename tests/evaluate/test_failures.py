"""medssl.evaluate.failures: counted as written out by hand, and the worst cases named with what was predicted."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from medssl.evaluate.failures import (
    CASES,
    COUNTS,
    DIVERGED,
    FALSE_ALARM,
    MISSED,
    UNCHOSEN,
    WORST,
    failed_rates,
    failures,
    failures_of_one,
)
from medssl.rng import stream


def rows(arm: str, name: str, target: list[float], prediction: list[float], *, seed: int = 0, fold: int = 0,
         fraction: float = 1.0, pretraining: int = 0) -> pl.DataFrame:
    cases = [f"{fold}-{number}" for number in range(len(target))]
    return pl.DataFrame({"case_id": cases, "patient_id": cases, "name": name, "target": target,
                         "prediction": prediction}, strict=False).with_columns(
        pl.col("target", "prediction").cast(pl.Float64), arm=pl.lit(arm), seed=pl.lit(seed), fold=pl.lit(fold),
        fraction=pl.lit(fraction), pretraining=pl.lit(pretraining))


def test_counts_are_those_of_ranks_with_even_classes_and_ties():
    rng = stream("ranks")
    target = (rng.random(41) < 0.4).astype(float)
    predicted = np.round(rng.random(41) + 0.3 * target, 1)
    expected = {MISSED: 0, FALSE_ALARM: 0}
    for truth, value in zip(target, predicted, strict=True):
        others = predicted[target != truth]
        below = (others < value).mean() + 0.5 * (others == value).mean()
        expected[MISSED if truth else FALSE_ALARM] += below < 0.5 if truth else below > 0.5
    part = rows("a", "Edema", target.tolist(), predicted.tolist())
    counts = failures("classify", part, ["a"]).counts
    assert dict(counts.select("kind", "failed").rows()) == expected
    squeezed = part.with_columns(pl.col("prediction") ** 9)
    assert failures("classify", squeezed, ["a"]).counts.equals(counts), "ranks know no scale"


def test_a_finding_is_ranked_on_the_wrong_side_of_half_of_the_others():
    # With it: 0.9, 0.3, 0.05 (median 0.3); without it: 0.1, 0.2, 0.8 (median 0.2).
    first = rows("a", "Edema", [1, 1, 1, 0, 0, 0], [0.9, 0.3, 0.05, 0.1, 0.2, 0.8])
    second = rows("a", "Edema", [1, 1, 1, 0, 0, 0], [0.9, 0.8, 0.7, 0.1, 0.2, 0.3], seed=1)
    few = rows("a", "Edema", [1, 1, 1, 0, 0, 0], [0, 0, 0, 1, 1, 1], fraction=0.1)
    counts = failures("classify", pl.concat([first, second, few]), ["a"]).counts
    assert counts.schema == COUNTS
    assert counts.rows() == [("a", "Edema", kind, 0.5, 3.0, 3.0) for kind in (FALSE_ALARM, MISSED)]


def test_folds_have_scales_of_their_own_and_are_counted_together():
    right = [rows("a", "Edema", [1, 0], predicted, fold=fold) for fold, predicted in enumerate([[0.9, 0.8], [0.2, 0.1],
                                                                                              [0.3, 0.25]])]
    wrong = rows("a", "Edema", [1, 0], [0.94, 0.95], fold=3)
    counts = failures("classify", pl.concat([*right, wrong]), ["a"]).counts
    assert counts.select("kind", "failed", "cases").rows() == [("ranked too high", 1.0, 4.0),
                                                               ("ranked too low", 1.0, 4.0)]


def test_every_pretraining_is_a_model_of_its_own():
    right, wrong = (rows("a", "Edema", [1, 0], predicted, pretraining=number)
                    for number, predicted in enumerate([[0.2, 0.1], [0.8, 0.9]]))
    counts = failures("classify", pl.concat([right, wrong]), ["a"]).counts
    assert counts.select("failed", "cases").rows() == [(0.5, 1.0)] * 2


def test_a_finding_that_all_or_none_have_is_ranked_against_nobody():
    part = rows("a", "Edema", [1, 0], [0.1, 0.2])
    alike = pl.concat([rows("a", "Cyst", [1, 1], [0.1, 0.2]), rows("a", "Edema", [1, 1], [0.1, 0.2], fold=1)])
    counts = failures("classify", pl.concat([part, alike]), ["a"]).counts
    assert counts.select("name", "failed", "cases", "patients").rows() == [
        ("Cyst", 0.0, 0.0, 2.0), ("Edema", 1.0, 1.0, 1.0), ("Edema", 1.0, 1.0, 3.0)]


def test_patients_are_counted_beside_their_cases():
    part = rows("a", "Edema", [1, 1, 1, 0, 0], [0.1, 0.2, 0.3, 0.4, 0.5])
    one = part.with_columns(patient_id=pl.when(target=1.0).then(pl.lit("p")).otherwise("patient_id"))
    counts = failures("classify", one, ["a"]).counts
    assert counts.select("kind", "cases", "patients").rows() == [(FALSE_ALARM, 2.0, 2.0), (MISSED, 3.0, 1.0)]


def test_a_region_that_was_not_found_at_all_is_counted_and_distances_are_not():
    dice = [rows("a", "ET", [1, 1, 1], [0.0, 0.4, 0.0], seed=seed) for seed in (0, 1)]
    mm = rows("a", "hd95/ET", [0, 0, 0], [0.0, 0.0, 9.0])
    found = failures("segment", pl.concat([*dice, mm]), ["a"])
    assert found.counts.rows() == [("a", "ET", "Dice of 0", 2.0, 3.0, 3.0)]
    assert set(found.cases["name"]) == {"ET"}
    assert found.cases["case_id"].to_list() == ["0-0", "0-2", "0-1"]


def test_the_worst_cases_stand_first_with_the_mean_over_models():
    truth = [float(number) for number in range(8)]
    one = rows("a", "EF", truth, [value + error for value, error in zip(truth, [0, 9, 1, 2, 3, 4, 5, 6], strict=True)])
    two = rows("a", "EF", truth, [value - error for value, error in zip(truth, [0, 7, 1, 2, 3, 4, 5, 6], strict=True)],
               seed=1)
    found = failures("regress", pl.concat([one, two, one.with_columns(arm=pl.lit("b"))]), ["b", "a"])
    assert found.counts.is_empty()
    assert found.cases.schema == CASES
    assert found.cases["arm"].to_list() == ["b"] * WORST + ["a"] * WORST, "in the order of the arms"
    worst = found.cases.filter(arm="a")
    assert worst["case_id"].to_list() == ["0-1", "0-7", "0-6", "0-5", "0-4"]
    assert worst.row(0, named=True) | {"arm": "a"} == {
        "arm": "a", "case_id": "0-1", "score": -8.0, "name": "EF", "target": 1.0, "prediction": pytest.approx(2.0)}


def test_worst_cases_are_ranked_and_scored_by_what_may_be_told():
    common = rows("a", "Edema", [1] * 5 + [0] * 5, [0.9] * 4 + [0.2] + [0.1] * 5)
    rare = rows("a", "Cyst", [1] * 4 + [0] * 6, [0.01] * 4 + [0.1] * 6)
    cases = failures("classify", pl.concat([common, rare]), ["a"]).cases
    assert set(cases["name"]) == {"Edema"}
    assert cases.row(0, named=True)["case_id"] == "0-4"
    assert cases["score"][0] == pytest.approx(np.log(0.2)), "which tells nothing of the cyst"


def test_one_models_predictions_need_no_columns_of_a_curve():
    target, predicted = [1, 0, 1, 1, 1, 1, 0, 0, 0, 0], [0.1, 0.95, 0.8, 0.9, 0.9, 0.9, 0.2, 0.2, 0.2, 0.2]
    alone = rows("a", "Edema", target, predicted).drop("arm", "seed", "fold", "fraction", "pretraining")
    found = failures_of_one("classify", alone)
    assert found.counts["failed"].to_list() == [1, 1]
    assert found.cases["case_id"].to_list()[:2] == ["0-1", "0-0"], "0.95 of a truth of 0, and 0.1 of 1"


def test_rates_that_diverged_and_points_that_could_choose_none_are_counted():
    told = [{"arm": "a", "lr": 0.01, "held_out_score": 0.7, "diverged": [0.1, 1.0]},
            {"arm": "a", "lr": 0.01, "held_out_score": 0.6, "diverged": [1.0]},
            {"arm": "a", "lr": 0.003, "held_out_score": None}, {"arm": "b"}]
    assert failed_rates(told).rows() == [("a", 0.003, UNCHOSEN, 1), ("a", 0.1, DIVERGED, 1), ("a", 1.0, DIVERGED, 2)]
    assert failed_rates([{"arm": "b"}]).is_empty()
