"""Labels and mask regions: missing, constant, stray, and too rare for a split or for a label fraction."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import polars as pl

from medssl.data.checks.finding import Finding
from medssl.data.manifest import Manifest
from medssl.data.split import SPLITS

FEW_POSITIVE = 10
"""Fewer positive patients than this, and a score says more of these patients than of the model."""
FRACTION = 0.01
"""The label fraction that classes are measured by: a smaller one than most curves begin with."""
STRAY = 0.1
"""Up to this share of other values, a label of -1, 0 and 1 is taken for a class with mistakes in it."""
CLASS = (-1.0, 0.0, 1.0)


def of_tables(manifest: Manifest) -> Iterator[Finding]:
    """Each label of the manifest."""
    classes = {}
    for name in manifest.labels:
        column = manifest.cases[f"label.{name}"]
        known = column.drop_nulls()
        if known.n_unique() < 2:
            yield Finding("warning", f"label {name} is {'missing everywhere' if known.is_empty() else 'constant'}",
                          "two values or more", "leave it out of the task")
            continue
        if column.null_count():
            yield Finding("note", f"label {name} is missing in {column.null_count() / len(column):.1%} of the cases")
        stray = manifest.cases.filter(~column.is_in(CLASS) & column.is_not_null())
        if stray.height > STRAY * len(known):
            continue  # a quantity, or a class of many grades
        if stray.height:
            shown = ", ".join(f"{value:g}" for value in stray[f"label.{name}"].unique().sort()[:5])
            yield Finding("warning", f"label {name} holds {shown} in {stray.height} case(s)", "1, 0 or -1",
                          "give the card a `values` map for this column", stray["case_id"].to_list())
        classes[name] = class_counts(label_values(manifest, name))
        yield _class(f"label {name}", classes[name], "AUROC")
    yield from _too_few("label", classes)


def of_masks(manifest: Manifest, facts: pl.DataFrame) -> Iterator[Finding]:
    """Each region that masks hold somewhere: nothing is learnt of one that is in no mask."""
    classes = {}
    for name in manifest.regions:
        values = region_values(manifest, facts, name)
        if values["value"].sum():
            classes[name] = class_counts(values)
            yield _class(f"region {name}", classes[name], "Dice")
        elif values.height:
            yield Finding("warning", f"region {name} is in no mask", "masks that hold it",
                          "correct the card's `regions`, or leave it out")
    yield from _too_few("region", classes)


def label_values(manifest: Manifest, name: str) -> pl.DataFrame:
    """split, patient_id, value: of each case, null where the label is missing."""
    return manifest.cases.select("split", "patient_id", value=f"label.{name}")


def region_values(manifest: Manifest, facts: pl.DataFrame, name: str) -> pl.DataFrame:
    """split, patient_id, value: of each case with a mask, 1 where the mask holds the region and 0 where it does not."""
    there = pl.col("values").list.set_intersection([float(value) for value in manifest.regions[name]]).list.len() > 0
    masks = facts.filter(role="mask").drop_nulls("values").select("case_id", value=there.cast(pl.Float64))
    return manifest.cases.join(masks, on="case_id").select("split", "patient_id", "value")


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


def fraction_with(patients: int, positive_patients: int) -> float | None:
    """The share of the labelled patients from which on so many positive ones are to be expected; None: at no share."""
    return patients / positive_patients if positive_patients >= patients else None


def _class(what: str, counts: pl.DataFrame, score: str) -> Finding:
    """How often a class is there in each split, and what that is too little for."""
    rows, sides = counts.to_dicts(), ("positive", "negative") if score == "AUROC" else ("positive",)
    told = f"{what}, positive cases: " + ", ".join(
        f"{row['split']} {row['positive']} of {row['positive'] + row['negative']}"
        + (f" and {row['uncertain']} uncertain" if row["uncertain"] else "") for row in rows)
    absent = [f"no {side} case in {row['split']}" for row in rows for side in sides if not row[side]]
    rare = [row["split"] for row in rows if row["positive_patients"] < FEW_POSITIVE]
    if absent:
        return Finding("warning", f"{told}; {', '.join(absent)}", "both classes",
                       f"its {score} is undefined there: leave it out, or judge by cross-validation")
    if rare:
        return Finding("warning", f"{told}; few patients are positive in {' and '.join(rare)}",
                       f"{FEW_POSITIVE} or more", "read its confidence interval, not its value")
    return Finding("note", told)


def _too_few(kind: str, classes: Mapping[str, pl.DataFrame]) -> Iterator[Finding]:
    """One finding of all classes that a small label fraction holds too little of, the rarest first.

    Draws are stratified (`fraction.nested_fractions`), so that what is expected is what comes, within a patient.
    """
    train = {name: counts.filter(split="train").row(0, named=True) for name, counts in classes.items()
             if "train" in counts["split"]}
    rare = {name: row["positive_patients"] for name, row in train.items()
            if 0 < FRACTION * row["positive_patients"] < FEW_POSITIVE}
    if rare:
        told = ", ".join(f"{name} {FRACTION * count:.2g} ({_from(fraction_with(FEW_POSITIVE, count))})"
                         for name, count in sorted(rare.items(), key=lambda item: item[1]))
        yield Finding("warning", "too few positive training patients of some "
                      f"{kind}s are to be expected at a label fraction of {FRACTION:.0%}: {told}",
                      f"{FEW_POSITIVE} or more; the brackets say at which fraction",
                      "begin the curve at a larger fraction, or leave these out")


def _from(fraction: float | None) -> str:
    return f"{FEW_POSITIVE} from {100 * fraction:.3g}% on" if fraction else f"{FEW_POSITIVE} at none"
