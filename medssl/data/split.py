"""Splits by patient: a hash that needs no table, folds, and the guard against a patient in two splits."""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import polars as pl

from medssl.errors import ConfigError, LeakageError
from medssl.rng import stream
from medssl.types import Split

SPLITS: tuple[Split, ...] = ("train", "validation", "test")


@dataclass(frozen=True)
class Fold:
    """One round of cross-validation: pseudonyms of the patients trained on and of those held out, both sorted."""

    index: int
    train: list[str]
    held_out: list[str]


def hash_share(salt: str, raw_id: str) -> float:
    """A number in [0, 1) that belongs to this id: the first 53 bits of SHA-256(salt, id).

    It depends on nothing else, neither on the key, the machine, nor who else is in the set: a patient who is added
    moves no other patient to another split.
    """
    digest = hashlib.sha256(f"{salt}\x1f{raw_id}".encode()).digest()
    return (int.from_bytes(digest[:8], "big") >> 11) / 2**53


def assign_by_hash(salt: str, raw_ids: Sequence[str], shares: Mapping[Split, float]) -> list[Split]:
    """The split of each id. `shares` sum to 1; test takes the lowest hashes, then validation, then train.

    In that order a share of training patients moved to validation leaves the test patients who they were.
    """
    order = [name for name in ("test", "validation", "train") if shares.get(name, 0) > 0]
    edges = [sum(shares[name] for name in order[: i + 1]) for i in range(len(order) - 1)]
    return [order[sum(share >= edge for edge in edges)] for share in (hash_share(salt, raw) for raw in raw_ids)]


def refuse_overlap(cases: pl.DataFrame) -> None:
    """LeakageError that names the pseudonyms when a patient of `cases` (patient_id, split) is in two splits."""
    leaking = overlapping_patients(cases)
    if leaking:
        shown = ", ".join(leaking[:5]) + (f" and {len(leaking) - 5} more" if len(leaking) > 5 else "")
        raise LeakageError(
            f"{len(leaking)} patient(s) are in more than one split: {shown}",
            expected="all cases of a patient in one split",
            remedy="mend the card's `split` or `patient`, or split by hash of the patient (`shares:`)",
        )


def overlapping_patients(cases: pl.DataFrame) -> list[str]:
    """Pseudonyms of the patients who are in more than one split, sorted."""
    splits = cases.group_by("patient_id").agg(pl.col("split").n_unique())
    return splits.filter(pl.col("split") > 1)["patient_id"].sort().to_list()


def cross_validation(
    patients: Sequence[str], strata: Sequence[Hashable], folds: int, seed: int, name: str = "cross-validation"
) -> list[Fold]:
    """Cuts patients into `folds` parts that are held out in turn, every stratum spread evenly over them.

    patients, strata: of equal length, each patient once. Folds differ by at most one patient, overall and within every
    stratum. The same patients and seed give the same folds in whatever order they come.
    """
    groups = shuffled_strata(patients, strata, name, seed)
    if not 2 <= folds <= len(patients):
        raise ConfigError(f"{folds} folds of {len(patients)} patients", expected="2 folds or more, none of them empty")
    dealt = [patient for group in groups for patient in group]  # dealt on without a break, so that sizes stay even
    parts = [sorted(dealt[index::folds]) for index in range(folds)]
    everyone = sorted(patients)
    return [Fold(i, [p for p in everyone if p not in held], parts[i]) for i, held in enumerate(map(set, parts))]


def shuffled_strata(
    patients: Sequence[str], strata: Sequence[Hashable], name: str, seed: int
) -> list[list[str]]:
    """The patients of each stratum in random order; the largest stratum first. Independent of the order of input."""
    if len(patients) != len(strata):
        raise ConfigError(f"{len(patients)} patients with {len(strata)} strata", expected="a stratum for each patient")
    if len(set(patients)) != len(patients):
        raise ConfigError("A patient is listed twice", expected="each patient once, with one stratum")
    groups: dict[Hashable, list[str]] = {}
    for patient, stratum in sorted(zip(patients, strata, strict=True), key=lambda pair: pair[0]):
        groups.setdefault(stratum, []).append(patient)
    ordered = sorted(groups.values(), key=lambda group: (-len(group), group[0]))
    rng = stream(name, seed)
    return [[group[i] for i in rng.permutation(len(group))] for group in ordered]
