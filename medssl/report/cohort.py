"""What a set looks like, for people to look at: how its figures spread, and who is in which split.

Counts of many cases alone: no case is drawn, and no text that few patients have is shown.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import polars as pl

from medssl.data.checks.classes import class_counts
from medssl.data.checks.labels import label_values, region_values
from medssl.data.groups import grouped
from medssl.data.manifest import Manifest
from medssl.data.split import SPLITS

BINS = 24
WIDE = 50
"""Where the largest value is more times the smallest than this, bins grow in ratio."""
CHANNELS = 8
"""So many channels have a histogram of their brightness."""
GRADES = {-1.0, 0.0, 1.0}
AXES = {"volume": ("slices", "rows", "columns"), "image": ("rows", "columns"), "cine": ("frames", "rows", "columns")}


@dataclass(frozen=True)
class Histogram:
    """counts: cases in each bin, from `low` to `high`. told: the whole in words."""

    title: str
    counts: list[int]
    low: str
    high: str
    told: str


@dataclass(frozen=True)
class Share:
    """count of `total` cases of a split."""

    count: int
    total: int

    @property
    def percent(self) -> float:
        return 100 * self.count / self.total if self.total else 0.0


@dataclass(frozen=True)
class Shares:
    """A row a group of cases, a column a split."""

    title: str
    splits: list[str]
    rows: list[tuple[str, list[Share]]]


def spreads(facts: pl.DataFrame) -> list[tuple[str, list[Histogram]]]:
    """Histograms of what `gather` read, under a heading each; none of what no file says."""
    images = facts.filter(pl.col("role") != "mask", pl.col("kind").is_not_null())
    firsts = images.filter(pl.col("channel") == 0).unique("case_id", keep="first", maintain_order=True)
    headed = [("Spacing, mm between", _by_axis(firsts, "spacing")), ("Size, number of", _by_axis(firsts, "shape")),
              ("Brightness, the median above the background", _brightness(images))]
    return [(heading, drawn) for heading, histograms in headed if (drawn := list(histograms))]


def _by_axis(firsts: pl.DataFrame, column: str) -> Iterator[Histogram]:
    kinds = firsts["kind"].unique().sort().to_list()
    for kind in kinds:
        vectors = firsts.filter(kind=kind)[column].drop_nulls()
        axes = AXES[kind] if column == "shape" else AXES[kind][-2:] if kind == "cine" else AXES[kind]
        for place, axis in enumerate(axes):
            values = vectors.list.get(place, null_on_oob=True).drop_nulls()
            if len(values):
                yield _histogram(axis if len(kinds) == 1 else f"{axis} of a {kind}", values)


def _brightness(images: pl.DataFrame) -> Iterator[Histogram]:
    known = images.filter(pl.col("minimum") < pl.col("maximum"))
    groups = list(known.group_by("role", "channel", maintain_order=True))
    for (role, channel), group in groups[:CHANNELS]:
        yield _histogram(role if channel == 0 else f"{role} {channel + 1}", group["middle"].drop_nulls())


def _histogram(title: str, values: pl.Series) -> Histogram:
    numbers = values.to_numpy().astype(np.float64)
    low, high, middle = numbers.min(), numbers.max(), float(np.median(numbers))
    cases = f"{len(numbers):,} case{'s' if len(numbers) > 1 else ''}"
    if low == high:
        return Histogram(title, [], _short(low), _short(high), f"{_short(low)} in all {cases}")
    growing = low > 0 and high > WIDE * low
    edges = (np.geomspace if growing else np.linspace)(low, high, BINS + 1)
    edges[0], edges[-1] = low, high
    counts, _ = np.histogram(numbers, edges)
    scale = ", bins growing in ratio" if growing else ""
    return Histogram(title, counts.tolist(), _short(low), _short(high), f"median {_short(middle)}, {cases}{scale}")


def _short(number: float) -> str:
    return f"{number:,.0f}" if abs(number) >= 1000 else f"{number:.3g}"


def shares(manifest: Manifest, facts: pl.DataFrame | None) -> list[Shares]:
    """Labels, mask regions and attributes by split."""
    present = set(manifest.cases["split"])
    splits = [name for name in SPLITS if name in present]
    classes, tables = {}, []
    for name in manifest.labels:
        values = label_values(manifest, name)
        if set(values["value"].drop_nulls()) <= GRADES:
            classes[name] = values
        else:
            tables.append(_groups(f"label {name}", manifest.cases, f"label.{name}", splits))
    regions = {name: region_values(manifest, facts, name) for name in manifest.regions} if facts is not None else {}
    for attribute in manifest.attributes:
        tables.append(_groups(attribute, manifest.cases, f"attr.{attribute}", splits))
    drawn = [_positive("positive for label", classes, splits), _positive("masks that hold", regions, splits), *tables]
    return [table for table in drawn if table.rows]


def _positive(title: str, values: dict[str, pl.DataFrame], splits: list[str]) -> Shares:
    rows = []
    for name, frame in values.items():
        counts = {row["split"]: Share(row["positive"], row["positive"] + row["negative"])
                  for row in class_counts(frame).to_dicts()}
        rows.append((name, [counts.get(split, Share(0, 0)) for split in splits]))
    return Shares(title, splits, rows)


def _groups(title: str, cases: pl.DataFrame, column: str, splits: list[str]) -> Shares:
    groups = cases.select("split", group=grouped(cases, column))
    totals = dict(groups.group_by("split").len().rows())
    counts = {(split, group): count for split, group, count in groups.group_by("split", "group").len().rows()}
    names = groups["group"].unique().sort().to_list()
    if len(names) < 2:
        return Shares(title, splits, [])
    return Shares(title, splits, [(name, [Share(counts.get((split, name), 0), totals[split]) for split in splits])
                                  for name in names])
