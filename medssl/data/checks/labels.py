"""Labels and mask regions: missing, constant, stray, and counted as classes."""

from __future__ import annotations

from collections.abc import Iterator

import polars as pl

from medssl.data.checks import classes
from medssl.data.checks.finding import Finding
from medssl.data.manifest import Manifest

STRAY = 0.1
"""Up to this share of other values, a label of -1, 0 and 1 is taken for a class with mistakes in it."""
CLASS = (-1.0, 0.0, 1.0)


def of_tables(manifest: Manifest) -> Iterator[Finding]:
    """Each label of the manifest."""
    counts = {}
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
        counts[name] = classes.class_counts(label_values(manifest, name))
    yield from classes.findings("label", counts, "AUROC")


def of_masks(manifest: Manifest, facts: pl.DataFrame) -> Iterator[Finding]:
    """Each region that masks hold somewhere: nothing is learnt of one that is in no mask."""
    counts = {}
    for name in manifest.regions:
        values = region_values(manifest, facts, name)
        if values["value"].sum():
            counts[name] = classes.class_counts(values)
        elif values.height:
            yield Finding("warning", f"region {name} is in no mask", "masks that hold it",
                          "correct the card's `regions`, or leave it out")
    yield from classes.findings("region", counts, "Dice")


def label_values(manifest: Manifest, name: str) -> pl.DataFrame:
    """split, patient_id, value: of each case, null where the label is missing."""
    return manifest.cases.select("split", "patient_id", value=f"label.{name}")


def region_values(manifest: Manifest, facts: pl.DataFrame, name: str) -> pl.DataFrame:
    """split, patient_id, value: of each case with a mask, 1 where the mask holds the region and 0 where it does not."""
    there = pl.col("values").list.set_intersection([float(value) for value in manifest.regions[name]]).list.len() > 0
    masks = facts.filter(role="mask").drop_nulls("values").select("case_id", value=there.cast(pl.Float64))
    return manifest.cases.join(masks, on="case_id").select("split", "patient_id", "value")
