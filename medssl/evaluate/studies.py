"""Predictions of images made into one a study, where a classification is scored by study."""

from __future__ import annotations

import logging
from functools import cache

import numpy as np
import polars as pl

from medssl.tasks import TASKS, TaskConfig

log = logging.getLogger(__name__)


def to_be_judged(task: TaskConfig, cases: pl.DataFrame) -> pl.DataFrame:
    """The cases with a truth; where a study is judged, all of its images, though only one of them has one."""
    known = TASKS[task.name].judgeable(task, cases)
    if not _by_study(task):
        return known
    return cases.filter(pl.col("study_id").is_in(known["study_id"].unique().to_list()))


def judged_units(task: TaskConfig, cases: pl.DataFrame, values: np.ndarray) -> tuple[pl.DataFrame, np.ndarray]:
    """The cases as they are with their values (n, L), or a row a study with those of its images pooled.

    A study's case_id is its study_id. Its label is the one on which its certain images agree, and blank where there is
    none; where certain images disagree, that is told. An attribute that differs among its images names all of theirs
    ("AP + lateral"), and a number that does is blank.
    """
    if not _by_study(task):
        return cases, values
    labels = [f"label.{name}" for name in task.labels if f"label.{name}" in cases.columns]
    attributes = [column for column in cases.columns if column.startswith("attr.")]
    certain = {label: pl.col(label).cast(pl.Float64).filter(pl.col(label).is_in([0.0, 1.0])) for label in labels}
    grouped = cases.group_by("study_id", maintain_order=True)
    _tell_disagreement(grouped.agg(values.n_unique() for values in certain.values()), labels)
    shared = [_shared(values).alias(name) for name, values in certain.items()]
    studies = grouped.agg(pl.col("patient_id").first(), *shared, *[_all_of(cases, name) for name in attributes])
    place = {study: number for number, study in enumerate(studies["study_id"])}
    index = np.array([place[study] for study in cases["study_id"]])
    return studies.rename({"study_id": "case_id"}), _pooled(task.pool, values, index, len(studies))


def _pooled(pool: str, values: np.ndarray, index: np.ndarray, count: int) -> np.ndarray:
    """(n, L) -> (count, L), by the number of each row's study."""
    pooled = np.full((count, values.shape[1]), -np.inf if pool == "max" else 0.0)
    (np.maximum if pool == "max" else np.add).at(pooled, index, values)
    return pooled if pool == "max" else pooled / np.bincount(index, minlength=count)[:, None]


def _shared(values: pl.Expr) -> pl.Expr:
    return pl.when(values.n_unique() == 1).then(values.first())


def _all_of(cases: pl.DataFrame, attribute: str) -> pl.Expr:
    if cases.schema[attribute] != pl.String:
        return _shared(pl.col(attribute))
    terms = pl.col(attribute).drop_nulls().unique().sort()
    return pl.when(terms.len() > 0).then(terms.str.join(" + ")).alias(attribute)


def _by_study(task: TaskConfig) -> bool:
    return task.name == "classify" and task.scored_by == "study"


def _tell_disagreement(counts: pl.DataFrame, labels: list[str]) -> None:
    for label in labels:
        if count := int((counts[label] > 1).sum()):
            _warn_once(f"the images of {count} of {len(counts)} studies disagree on {label.removeprefix('label.')}; "
                       "these are not judged on it")


@cache
def _warn_once(told: str) -> None:
    log.warning(told)
