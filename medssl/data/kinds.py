"""Kinds and modalities of cases: what a folder turned out to hold, and how a recipe chooses among them."""

from __future__ import annotations

import polars as pl

from medssl.errors import ManifestError


def kinds_of(cases: pl.DataFrame) -> pl.DataFrame:
    """(kind, modality, cases, patients), the most frequent first."""
    counts = cases.group_by("kind", "modality").agg(pl.len().alias("cases"), pl.col("patient_id").n_unique()
                                                    .alias("patients"))
    return counts.sort("cases", "kind", "modality", descending=[True, False, False])


def choice(**values: str) -> str:
    """The override by which a recipe takes only the cases of a kind or modality, quoted as a shell wants it."""
    return "'data.where={" + ", ".join(f"{name}: [{value}]" for name, value in values.items()) + "}'"


def require_one_kind(cases: pl.DataFrame) -> None:
    """ManifestError for images, volumes and clips together, before a night of decoding and not after it."""
    counts = cases["kind"].value_counts(sort=True).rows()
    if len(counts) > 1:
        told = ", ".join(f"{kind} in {count} case(s)" for kind, count in counts)
        raise ManifestError(f"The cases are of several kinds: {told}", expected="one kind, since a recipe takes one",
                            remedy=f"choose one behind the command, e.g. {choice(kind=counts[0][0])}")
