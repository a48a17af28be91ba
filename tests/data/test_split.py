"""Splits: by hash, by fold, and the guard against leakage."""

from __future__ import annotations

from collections import Counter

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medssl.data.split import assign_by_hash, cross_validation, hash_share, refuse_overlap
from medssl.errors import ConfigError, LeakageError

cohorts = st.dictionaries(st.text(min_size=1, max_size=6), st.integers(0, 4), min_size=2, max_size=60)


def test_the_hash_of_a_patient_is_fixed_for_good() -> None:
    """Golden values: a change here would move test patients into training in every hospital."""
    golden = {"1280": 0.6026666571375895, "1283": 0.5761705337484573, "1281": 0.8536225521938009}  # by sha256sum
    assert {raw: hash_share("nih_cxr", raw) for raw in golden} == pytest.approx(golden, abs=1e-15)
    shares = {"train": 0.3, "validation": 0.11, "test": 0.59}
    assert assign_by_hash("nih_cxr", list(golden), shares) == ["validation", "test", "train"]


def test_shares_are_met_and_salts_are_independent() -> None:
    people = [str(i) for i in range(20_000)]
    shares = {"train": 0.6, "validation": 0.1, "test": 0.3}
    first, second = (assign_by_hash(salt, people, shares) for salt in ("a", "b"))
    counts = Counter(first)
    assert {name: counts[name] / 20_000 for name in shares} == pytest.approx(shares, abs=0.02)
    both = sum(a == b == "test" for a, b in zip(first, second, strict=True)) / 20_000
    assert both == pytest.approx(0.09, abs=0.01)


def test_more_validation_leaves_the_test_patients_who_they_were() -> None:
    people = [str(i) for i in range(500)]
    before = assign_by_hash("s", people, {"train": 0.8, "test": 0.2})
    after = assign_by_hash("s", people, {"train": 0.5, "validation": 0.3, "test": 0.2})
    assert [a == "test" for a in before] == [b == "test" for b in after]
    assert "validation" not in before


def test_all_shares_in_one_split_leave_none_out() -> None:
    assert set(assign_by_hash("s", [str(i) for i in range(100)], {"train": 1.0})) == {"train"}


def test_a_patient_in_two_splits_is_named_by_pseudonym() -> None:
    cases = pl.DataFrame({"patient_id": ["p1", "p1", "p2"], "split": ["train", "test", "train"]})
    with pytest.raises(LeakageError, match="1 patient.*more than one split: p1"):
        refuse_overlap(cases)
    refuse_overlap(cases.filter(pl.col("split") == "train"))


@given(cohorts, st.integers(2, 6), st.integers(0, 3))
@settings(max_examples=60, deadline=None)
def test_folds_are_disjoint_cover_all_and_are_even_by_stratum(cohort: dict[str, int], folds: int, seed: int) -> None:
    if folds > len(cohort):
        return
    rounds = cross_validation(list(cohort), list(cohort.values()), folds, seed)
    held = [patient for fold in rounds for patient in fold.held_out]
    assert sorted(held) == sorted(cohort)
    for fold in rounds:
        assert sorted(fold.train + fold.held_out) == sorted(cohort)
    sizes = [len(fold.held_out) for fold in rounds]
    assert max(sizes) - min(sizes) <= 1
    for stratum in set(cohort.values()):
        counts = [sum(cohort[p] == stratum for p in fold.held_out) for fold in rounds]
        assert max(counts) - min(counts) <= 1


@given(cohorts, st.randoms(use_true_random=False))
@settings(max_examples=30, deadline=None)
def test_folds_do_not_depend_on_the_order_of_input(cohort: dict[str, int], shuffler) -> None:
    pairs = list(cohort.items())
    first = cross_validation(*zip(*pairs, strict=True), folds=2, seed=0)
    shuffler.shuffle(pairs)
    assert cross_validation(*zip(*pairs, strict=True), folds=2, seed=0) == first


def test_another_seed_gives_other_folds_and_nonsense_is_refused() -> None:
    people = [str(i) for i in range(30)]
    assert cross_validation(people, [0] * 30, 3, 0) != cross_validation(people, [0] * 30, 3, 1)
    with pytest.raises(ConfigError, match="31 folds of 30 patients"):
        cross_validation(people, [0] * 30, 31, 0)
    with pytest.raises(ConfigError, match="listed twice"):
        cross_validation(["a", "a"], [0, 0], 2, 0)
