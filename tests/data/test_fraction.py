"""Label fractions: nested, of the stated size, proportionate, and the same for the same patients and seed."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medssl.data.fraction import distinct_fractions, nested_fractions, subset_digest
from medssl.errors import ConfigError

cohorts = st.dictionaries(st.text(min_size=1, max_size=6), st.integers(0, 5), min_size=2, max_size=80)
shares = st.lists(st.floats(0.005, 1.0), min_size=1, max_size=6)


def draw(cohort: dict[str, int], fractions: list[float], seed: int = 0) -> dict[float, list[str]]:
    return nested_fractions(list(cohort), list(cohort.values()), fractions, seed)


@given(cohorts, shares, st.integers(0, 3))
@settings(max_examples=150, deadline=None)
def test_nested_sized_and_proportionate(cohort: dict[str, int], fractions: list[float], seed: int) -> None:
    drawn = draw(cohort, [*fractions, 1.0], seed)
    assert sorted(drawn[1.0]) == sorted(cohort)
    for smaller, larger in zip(sorted(drawn), sorted(drawn)[1:], strict=False):
        assert set(drawn[smaller]) <= set(drawn[larger])
    for fraction, patients in drawn.items():
        assert len(patients) == len(set(patients)) == max(2, int(fraction * len(cohort) + 0.5))
        for stratum in set(cohort.values()):
            expected = sum(s == stratum for s in cohort.values()) * len(patients) / len(cohort)
            assert abs(sum(cohort[p] == stratum for p in patients) - expected) < 1


@given(cohorts, st.randoms(use_true_random=False))
@settings(max_examples=40, deadline=None)
def test_the_order_of_input_and_the_other_fractions_do_not_matter(cohort: dict[str, int], shuffler) -> None:
    pairs = list(cohort.items())
    first = draw(cohort, [0.1, 0.5])
    shuffler.shuffle(pairs)
    assert draw(dict(pairs), [0.5])[0.5] == first[0.5]


@pytest.mark.parametrize("rare", [1, 5, 30, 50])
def test_the_smallest_fraction_holds_both_classes(rare: int) -> None:
    cohort = {f"p{i:03d}": int(i < rare) for i in range(100)}
    patients = draw(cohort, [0.01])[0.01]
    assert len(patients) == 2
    assert {cohort[p] for p in patients} == {0, 1}


def test_common_strata_come_before_rare_ones() -> None:
    cohort = {f"p{i:03d}": 0 if i < 60 else 1 if i < 95 else 2 for i in range(100)}
    drawn = draw(cohort, [0.02, 0.05])
    assert {cohort[p] for p in drawn[0.02]} == {0, 1}
    assert {cohort[p] for p in drawn[0.05]} == {0, 1, 2}


def test_seeds_draw_other_patients_and_one_seed_the_same() -> None:
    cohort = {f"p{i:03d}": i % 2 for i in range(100)}
    assert draw(cohort, [0.1], 0) == draw(cohort, [0.1], 0)
    assert set(draw(cohort, [0.1], 0)[0.1]) != set(draw(cohort, [0.1], 1)[0.1])


def test_strata_may_be_anything_hashable() -> None:
    strata = [(1, None), "a", 1.5, (1, None)]
    assert len(nested_fractions(list("wxyz"), strata, [0.5], 0)[0.5]) == 2


@pytest.mark.parametrize("fraction", [0.0, -0.1, 1.5])
def test_a_fraction_outside_its_range_is_refused(fraction: float) -> None:
    with pytest.raises(ConfigError, match="Label fraction"):
        nested_fractions(["a", "b"], [0, 1], [fraction], 0)


def test_fractions_that_come_to_the_same_patients_are_one() -> None:
    assert distinct_fractions([1.0, 0.001, 0.01, 0.02, 0.03, 0.04, 0.05], 69) == [0.03, 0.04, 1.0]
    assert distinct_fractions([0.1, 1.0], 2) == [1.0]
    assert distinct_fractions([0.1], 2) == []


def test_one_patient_is_too_few() -> None:
    with pytest.raises(ConfigError, match="1 patient"):
        nested_fractions(["a"], [0], [1.0], 0)


def test_the_digest_of_a_subset_ignores_order_and_repeats() -> None:
    assert subset_digest(["b", "a", "b"]) == subset_digest(["a", "b"]) != subset_digest(["a", "c"])
