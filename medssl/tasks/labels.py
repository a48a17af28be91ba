"""A classification's labels as the manifest has them: 1 present, 0 absent, −1 uncertain, blank unknown."""

from __future__ import annotations

import numpy as np
import polars as pl

from medssl.errors import ManifestError

UNCERTAIN = -1.0


def label_table(cases: pl.DataFrame, names: tuple[str, ...]) -> np.ndarray:
    """(cases, L) float64 of the manifest's raw labels, NaN where blank; ManifestError for a label that is not there."""
    known = [column.removeprefix("label.") for column in cases.columns if column.startswith("label.")]
    absent = [name for name in names if name not in known]
    if absent:
        raise ManifestError(f"The manifest has no label {', '.join(map(repr, absent))}",
                            expected=f"some of {', '.join(known) or 'none (this card has no labels)'}",
                            remedy="choose task.labels from these, or add the column to the card")
    columns = [cases[f"label.{name}"].cast(pl.Float64).to_numpy().astype(np.float64) for name in names]
    return np.stack(columns, axis=1) if columns else np.zeros((len(cases), 0))


def certain(table: np.ndarray) -> np.ndarray:
    """(cases, L) of 0, 1 and NaN, which stands for blank and uncertain alike."""
    return np.where(np.isin(table, (0, 1)), table, np.nan)


def require_answers(cases: pl.DataFrame, names: tuple[str, ...]) -> None:
    """ManifestError where a label is neither 1, 0, −1 nor blank."""
    table = label_table(cases, names)
    wrong = np.argwhere(~np.isin(table, (1, 0, UNCERTAIN)) & ~np.isnan(table))
    if len(wrong):
        row, column = wrong[0]
        value, case_id = table[row, column], cases["case_id"][int(row)]
        raise ManifestError(f"The label {names[column]!r} of case {case_id} is {value:g}", expected="1 (present), 0 "
                            "(absent), −1 (uncertain) or blank", remedy="say what it means in the "
                            f"card's labels.derived, as values: {{{value:g}: null}}; a quantity is for "
                            "task.name=regress")


def one_class(table: np.ndarray) -> np.ndarray:
    """(cases, L), a 1 and otherwise 0 in each case; all NaN where not exactly one label is 1, or one is uncertain."""
    positive = table == 1
    known = (positive.sum(axis=1) == 1) & ~(table == UNCERTAIN).any(axis=1)
    return np.where(known[:, None], positive, np.nan)


def require_one_class(cases: pl.DataFrame, names: tuple[str, ...]) -> None:
    """ManifestError where a case has several labels of 1, or all of its labels are 0."""
    table = label_table(cases, names)
    positives = (table == 1).sum(axis=1)
    wrong = np.flatnonzero((positives > 1) | (table == 0).all(axis=1))
    if len(wrong):
        count = positives[wrong[0]]
        raise ManifestError(
            f"{len(wrong)} of {len(cases)} cases are not of one class: {cases['case_id'][int(wrong[0])]} has "
            f"{count or 'none'} of {', '.join(names)}", expected="exactly one, where task.kind is single_label",
            remedy="give task.labels that exclude each other and leave nobody out (a card's labels.derived makes some) "
                   "or take task.kind=multi_label")
