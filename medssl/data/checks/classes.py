"""How often each class is there in each split, and which classes are too rare for a split or for a label fraction."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import polars as pl

from medssl.data.checks.finding import Finding
from medssl.data.split import SPLITS

FEW_POSITIVE = 10
"""Fewer positive patients than this, and a score says more of these patients than of the model."""
FRACTION = 0.01
"""The label fraction that classes are measured by: a smaller one than most curves begin with."""


def class_counts(values: pl.DataFrame) -> pl.DataFrame:
    """A row a split, in order: cases positive, negative and uncertain (-1); patients labelled, and positive among them.

    values: split, patient_id, value.
    """
    column = pl.col("value")
    counts = values.group_by("split").agg(
        positive=(column == 1).sum(), negative=(column == 0).sum(), uncertain=(column == -1).sum(),
        patients=pl.col("patient_id").filter(column.is_in([0.0, 1.0])).n_unique(),
        positive_patients=pl.col("patient_id").filter(column == 1).n_unique(),
    )
    return counts.sort(pl.col("split").cast(pl.Enum(SPLITS)))


def findings(kind: str, classes: Mapping[str, pl.DataFrame], score: str) -> Iterator[Finding]:
    """A note with the counts of each class, and one finding for all that is too rare.

    Args:
        kind: "label" or "region".
        classes: `class_counts` by name.
        score: what such classes are judged by, "AUROC" or "Dice".
    """
    for name, counts in classes.items():
        yield Finding("note", f"{kind} {name}, positive cases: {', '.join(map(_counted, counts.to_dicts()))}")
    absent, rare = _told(classes, _absent if score == "AUROC" else _never), _told(classes, _rare)
    if absent:
        yield Finding("warning", f"some {kind}s have one class only in a split: {'; '.join(absent)}", "both classes",
                      f"their {score} is undefined there: leave them out, or judge by cross-validation")
    if rare:
        yield Finding("warning", f"few patients are positive for some {kind}s: {'; '.join(rare)}",
                      f"{FEW_POSITIVE} or more", "read their confidence intervals, not their values")
    yield from _too_few(kind, classes)


def _counted(row: dict[str, Any]) -> str:
    uncertain = f" and {row['uncertain']} uncertain" if row["uncertain"] else ""
    return f"{row['split']} {row['positive']} of {row['positive'] + row['negative']}{uncertain}"


def _told(classes: Mapping[str, pl.DataFrame], fault: Callable[[dict[str, Any]], str | None]) -> list[str]:
    """"Edema 3 in test", ..., of the classes with a split that `fault` says something of."""
    told = {name: [said for row in counts.to_dicts() if (said := fault(row))] for name, counts in classes.items()}
    return [f"{name} {', '.join(faults)}" for name, faults in told.items() if faults]


def _absent(row: dict[str, Any]) -> str | None:
    return _never(row) or (None if row["negative"] else f"no negative in {row['split']}")


def _never(row: dict[str, Any]) -> str | None:
    return None if row["positive"] else f"no positive in {row['split']}"


def _rare(row: dict[str, Any]) -> str | None:
    return f"{row['positive_patients']} in {row['split']}" if 0 < row["positive_patients"] < FEW_POSITIVE else None


def _too_few(kind: str, classes: Mapping[str, pl.DataFrame]) -> Iterator[Finding]:
    """One finding of all classes that a small label fraction holds too little of, the rarest first.

    Draws are stratified (`fraction.nested_fractions`), so that what is expected is what comes, within a patient.
    """
    train = {name: counts.filter(split="train")["positive_patients"].sum() for name, counts in classes.items()}
    rare = {name: count for name, count in train.items() if 0 < FRACTION * count < FEW_POSITIVE}
    if rare:
        told = ", ".join(f"{name} {FRACTION * count:.2g} ({_from(fraction_with(FEW_POSITIVE, count))})"
                         for name, count in sorted(rare.items(), key=lambda item: item[1]))
        yield Finding("warning", "too few positive training patients of some "
                      f"{kind}s are to be expected at a label fraction of {FRACTION:.0%}: {told}",
                      f"{FEW_POSITIVE} or more; the brackets say at which fraction",
                      "begin the curve at a larger fraction, or leave these out")


def fraction_with(patients: int, positive_patients: int) -> float | None:
    """The share of the labelled patients from which on so many positive ones are to be expected; None: at no share."""
    return patients / positive_patients if positive_patients >= patients else None


def _from(fraction: float | None) -> str:
    return f"{FEW_POSITIVE} from {100 * fraction:.3g}% on" if fraction else f"{FEW_POSITIVE} at none"
