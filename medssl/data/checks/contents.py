"""What single files say of themselves: unreadable, of another kind or grid, constant, clipped, outside the regions."""

from __future__ import annotations

import re
from collections.abc import Iterator

import polars as pl

from medssl.data.checks.facts import MOST_VALUES
from medssl.data.checks.finding import Finding, once
from medssl.data.grid import STRAIGHT, STRAIGHTEN
from medssl.data.manifest import Manifest

CLIPPED = 0.05
"""From this share of pixels at the largest value on, an image is taken to be cut off there."""
_NUMBER = re.compile(r"\d+(?:\.\d+)?")


def unreadable(facts: pl.DataFrame) -> Iterator[Finding]:
    """Gathered by what is wrong, whatever the numbers in it, so that a thousand alike are one line."""
    failed = facts.filter(pl.col("what").is_not_null())
    alike = pl.col("what").str.replace_all(_NUMBER.pattern, "#")
    for (role, _), group in failed.group_by("role", alike.alias("alike"), maintain_order=True):
        what, expected, remedy = group.select("what", "expected", "remedy").row(0)
        others = "; the others differ in their numbers" if group["what"].n_unique() > 1 else ""
        yield _about("error", group, f"{role}: {what}{others}", expected, remedy)


def kinds(manifest: Manifest, facts: pl.DataFrame) -> Iterator[Finding]:
    """Files that hold another kind of scan than their case is said to be."""
    told = manifest.cases.select("case_id", told="kind")
    other = facts.drop_nulls("kind").join(told, on="case_id").filter(pl.col("kind") != pl.col("told"))
    for (role, kind, wanted), group in other.group_by("role", "kind", "told", maintain_order=True):
        yield _about("error", group, f"{role} is a {kind} where the manifest says {wanted}", "the same kind",
                     "mend the card's `kind`, or leave the case out")


def grids(facts: pl.DataFrame) -> Iterator[Finding]:
    """Channels and masks on another grid than the case's first file, and grids that no recipe takes as they are."""
    for (role,), group in facts.drop_nulls("grid").group_by("role", maintain_order=True):
        yield _about("error", group, f"{role} lies on another grid than the first file: {group['grid'][0]}"
                     + ("; others otherwise" if group["grid"].n_unique() > 1 else ""),
                     "one grid for all files of a case",
                     "data.prepare.align=resample in a recipe (=register where the patient moved), or mend its header")
    for (role,), group in facts.drop_nulls("shear").group_by("role", maintain_order=True):
        yield _about("warning", group, f"{role}: {group['shear'][0]}", f"{STRAIGHT}: prepare skips others", STRAIGHTEN)


def channels(facts: pl.DataFrame) -> Iterator[Finding]:
    """Volumes whose number of channels differs from most: no batch can hold both."""
    volumes = facts.filter(pl.col("kind") == "volume", pl.col("role") != "mask")
    counts = volumes.group_by("case_id", "role", maintain_order=True).len()
    for (role,), group in counts.group_by("role", maintain_order=True):
        usual = group["len"].mode().min()
        odd = group.filter(pl.col("len") != usual)
        if odd.height:
            shown = ", ".join(map(str, odd["len"].unique().sort()))
            yield _about("error", odd, f"{role} holds {shown} channel(s)", f"{usual}, as in most",
                         "leave them out, or split them into channels of their own")


def pixels(facts: pl.DataFrame) -> Iterator[Finding]:
    """Values that are no numbers, and images that hold nothing or are cut off at the top."""
    images = facts.filter(pl.col("role") != "mask")
    blank = pl.col("minimum") == pl.col("maximum")
    for (role,), group in images.filter(~pl.col("finite")).group_by("role", maintain_order=True):
        yield _about("error", group, f"{role} holds NaN or infinite values", "finite numbers",
                     "export it again, or leave the case out")
    for (role,), group in images.filter(blank).group_by("role", maintain_order=True):
        yield _about("warning", group, f"every pixel of {role} has the same value", "an image",
                     "export it again, or leave the case out")
    for (role,), group in images.filter(~blank, pl.col("top") >= CLIPPED).group_by("role", maintain_order=True):
        yield _about("warning", group, f"{role} is clipped: its largest value fills {group['top'].max():.0%} of it",
                     f"below {CLIPPED:.0%}", "look whether a window was burnt in, or the image is inverted")


def mask_values(manifest: Manifest, facts: pl.DataFrame) -> Iterator[Finding]:
    """Masks that hold what is no label, or a label that is in no region of the card."""
    masks = facts.drop_nulls("values").select("case_id", value="values").explode("value")
    whole = (pl.col("value") == pl.col("value").round()) & pl.col("value").is_between(0, MOST_VALUES - 2)
    odd = masks.filter(~whole | pl.col("value").is_nan())
    if odd.height:
        yield _about("error", odd, "the mask holds values that are no labels", "whole numbers from 0 to 255",
                     "export the labels themselves, not probabilities or colours, or leave the case out")
    allowed = sorted({0, *(value for values in manifest.regions.values() for value in values)})
    known = masks.join(odd, on="case_id", how="anti")
    strange = known.filter(~pl.col("value").is_in([float(value) for value in allowed]))
    if manifest.regions and strange.height:
        shown = ", ".join(f"{value:g}" for value in strange["value"].unique().sort()[:5])
        yield _about("error", strange, f"mask values {shown} are in no region of the card", f"one of {allowed}",
                     "correct the card's `regions`, or the mask")


def burned_in(facts: pl.DataFrame) -> Iterator[Finding]:
    """Images whose header says that text is burned into them (PS3.3 C.7.6.1.1.1)."""
    flagged = facts.filter(pl.col("burned_in") == "YES")
    if flagged.height:
        yield _about("warning", flagged, "text is burned into the pixels, says the header", "none: it may name people",
                     "look at them; crop them, or leave them out by a filter on {burned_in_annotation}")


def ultrasound(facts: pl.DataFrame) -> Iterator[Finding]:
    """Ultrasound with text outside its regions, and ultrasound of which nothing could be cropped (see io/sector.py)."""
    clips = facts.filter(pl.col("ultrasound"), pl.col("role") != "mask")
    marked, whole = clips.filter(pl.col("marks_outside")), clips.filter(pl.col("marks_outside").is_null())
    if marked.height:
        yield _about("warning", marked, "text or other marks lie outside the regions of the ultrasound",
                     "nothing outside the image", "none for training: what lay outside is cropped away and in no "
                     "cache; but the source files may still name people")
    if whole.height:
        yield _about("warning", whole, "ultrasound that names no region within its picture, so that nothing is cropped",
                     "SequenceOfUltrasoundRegions", "look at them for names; crop them, or leave them out")


def _about(level, group: pl.DataFrame, what: str, expected: str, remedy: str) -> Finding:
    cases = once(group["case_id"].to_list())
    return Finding(level, f"{len(cases)} case(s): {what}", expected, remedy, cases)
