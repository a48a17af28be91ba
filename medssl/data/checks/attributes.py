"""Attributes that give a label away, and attributes that may give a patient away."""

from __future__ import annotations

import math
from collections.abc import Iterator

import polars as pl

from medssl.data.card import fields
from medssl.data.checks.finding import Finding
from medssl.data.manifest import Manifest

CONFOUNDED = 0.2
"""From this correlation ratio on a model may learn the attribute in its label's place: an even binary attribute then
predicts an even label with an AUROC of 0.6."""


def confounding(manifest: Manifest) -> Iterator[Finding]:
    """Labels that an attribute gives away, but for labels that were made from that attribute's own column."""
    sources = {name: set(fields(source.source)) for name, source in manifest.card.sources.items()}
    for label in (f"label.{name}" for name in manifest.labels):
        for attribute in (f"attr.{name}" for name in manifest.attributes):
            if sources[label] & sources[attribute]:
                continue
            strength = correlation_ratio(manifest.cases[label], manifest.cases[attribute])
            if strength >= CONFOUNDED:
                names = label.removeprefix("label."), attribute.removeprefix("attr.")
                yield Finding("note", f"label {names[0]} goes with {names[1]} (correlation ratio {strength:.2f})",
                              f"below {CONFOUNDED}", f"report results per {names[1]} beside the overall ones")


def correlation_ratio(label: pl.Series, attribute: pl.Series) -> float:
    """In [0, 1]: the root of the share of the label's variance that lies between the attribute's groups.

    Adjusted for the number of groups as an adjusted R² is (Kelley's ε, PNAS 21, 1935), so that chance gives about 0.
    Numeric attributes are cut at their quartiles; groups of fewer than 5 are left out; uncertain labels (−1) count as
    missing. 0 when fewer than 20 cases or two groups remain.
    """
    table = pl.DataFrame({"y": label, "g": attribute}).drop_nulls()
    if set(table["y"].unique()) <= {-1.0, 0.0, 1.0}:
        table = table.filter(pl.col("y") >= 0)
    if table["g"].dtype == pl.Float64 and table["g"].n_unique() > 4:
        edges = [table["g"].quantile(share) for share in (0.25, 0.5, 0.75)]
        table = table.with_columns(g=pl.sum_horizontal((pl.col("g") > edge).cast(pl.Int8) for edge in edges))
    table = table.filter(pl.len().over("g") >= 5)
    cases, groups = table.height, table["g"].n_unique()
    total = table["y"].var() if cases >= 20 and groups >= 2 else None
    if not total:
        return 0.0
    within = table.select((pl.col("y") - pl.col("y").mean().over("g")).pow(2).sum()).item() / (cases - groups)
    return math.sqrt(max(0.0, 1 - within / total))


def telling(manifest: Manifest) -> Iterator[Finding]:
    """A text attribute that differs from patient to patient may name them."""
    patients = manifest.cases["patient_id"].n_unique()
    for name in manifest.attributes:
        column = manifest.cases[f"attr.{name}"]
        if column.dtype == pl.String and patients >= 10 and column.drop_nulls().n_unique() > 0.5 * patients:
            yield Finding("warning", f"attribute {name} is different for most patients and may name them",
                          "a few values that many patients share",
                          "leave it out of the card before the manifest is shared")
