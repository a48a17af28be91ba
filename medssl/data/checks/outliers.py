"""Cases whose spacing or intensities lie far from the others': other units, another window, another protocol.

Far is more than FAR robust standard deviations from the median, where one is 1.4826 times the median absolute
deviation, but at least LEAST of the usual value (Iglewicz & Hoaglin 1993, How to detect and handle outliers). Cases are
compared with those of their modality, kind and channel.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import polars as pl

from medssl.data.checks.finding import Finding, once
from medssl.data.manifest import Manifest

FAR = 3.5
LEAST = 0.05
FEWEST = 10
"""So many cases it takes to say what is usual."""
AXES = {"volume": ("slices", "rows", "columns"), "image": ("rows", "columns"), "cine": ("rows", "columns")}


def spacings(manifest: Manifest, facts: pl.DataFrame) -> Iterator[Finding]:
    """Spacing along each axis, compared as ratios; and volumes that do not say theirs."""
    firsts = _compared(manifest, facts.filter(pl.col("channel") == 0)).unique("case_id", keep="first",
                                                                             maintain_order=True)
    silent = firsts.filter(pl.col("spacing").is_null(), pl.col("kind") == "volume")
    if silent.height:
        yield Finding("note", f"{silent.height} volume(s) do not say their spacing", "mm per voxel",
                      "prepare them by `size`, not by `spacing`", silent["case_id"].to_list())
    for (modality, kind), group in firsts.drop_nulls("spacing").group_by("modality", "kind", maintain_order=True):
        axes = [Measure(f"mm between {axis}", pl.col("spacing").list.get(place, null_on_oob=True), LEAST, ratio=True)
                for place, axis in enumerate(AXES[kind])]
        yield from _unusual(group, axes, f"{modality} {kind}(s)", "spacing",
                            "look whether they are of another protocol, or their header is wrong")


def intensities(manifest: Manifest, facts: pl.DataFrame) -> Iterator[Finding]:
    """Contrast (1st to 99th percentile, compared as ratios) and brightness (median above the background).

    Of a colour picture the first colour stands for all.
    """
    contrast = pl.max_horizontal(pl.col("high") - pl.col("low"), pl.lit(1e-6))
    known = _compared(manifest, facts).filter(
        pl.col("minimum") < pl.col("maximum"), (pl.col("channel") == 0) | (pl.col("kind") == "volume"))
    groups = known.group_by("modality", "kind", "role", "channel", maintain_order=True)
    for (modality, kind, role, channel), group in groups:
        scale = group.select(contrast).to_series().median()
        measures = [Measure("contrast", contrast, LEAST, ratio=True),
                    Measure("brightness", pl.col("middle"), LEAST * scale, ratio=False)]
        which = role if channel == 0 else f"{role} {channel + 1}"
        yield from _unusual(group, measures, f"{modality} {kind}(s)", f"intensities of {which}",
                            "look whether they are in other units, windowed or inverted")


@dataclass(frozen=True)
class Measure:
    """A figure to compare cases by. least: the smallest standard deviation it may have; ratio: compare logarithms."""

    name: str
    value: pl.Expr
    least: float
    ratio: bool


def _unusual(group: pl.DataFrame, measures: list[Measure], who: str, what: str, remedy: str) -> Iterator[Finding]:
    """One finding of all cases that lie far from the others by any measure; none where there are too few to tell."""
    cases, told, usual = [], [], []
    for measure in measures:
        figures = group.select("case_id", value=measure.value).drop_nulls()
        far = _far(figures, measure) if figures.height >= FEWEST else figures.clear()
        if far.height:
            cases += far["case_id"].to_list()
            told.append(f"{measure.name} {_span(far['value'])}")
            usual.append(f"{measure.name} about {figures['value'].median():.3g}")
    if cases:
        cases = once(cases)
        yield Finding("warning", f"{len(cases)} {who} have unusual {what}: {', '.join(told)}", ", ".join(usual), remedy,
                      cases)


def _far(figures: pl.DataFrame, measure: Measure) -> pl.DataFrame:
    compared = pl.col("value").log() if measure.ratio else pl.col("value")
    away = (compared - compared.median()).abs()
    return figures.filter(away > FAR * pl.max_horizontal(1.4826 * away.median(), pl.lit(measure.least)))


def _compared(manifest: Manifest, facts: pl.DataFrame) -> pl.DataFrame:
    """The channels that could be read, each with its case's modality."""
    images = facts.filter(pl.col("role") != "mask", pl.col("kind").is_not_null())
    return images.join(manifest.cases.select("case_id", "modality"), on="case_id", maintain_order="left")


def _span(values: pl.Series) -> str:
    low, high = values.min(), values.max()
    return f"{low:.3g}" if low == high else f"{low:.3g} to {high:.3g}"
