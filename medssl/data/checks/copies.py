"""The same pixels twice: cases that are copies of each other, and channels of a case that repeat one another."""

from __future__ import annotations

from collections.abc import Iterator

import polars as pl

from medssl.data.checks.finding import Finding, once
from medssl.data.manifest import Manifest

_BLANK = pl.col("minimum") == pl.col("maximum")


def cases(manifest: Manifest, facts: pl.DataFrame) -> Iterator[Finding]:
    """Cases of the same pixels, whatever their files are called and however they are stored, unless they are blank."""
    images = facts.filter(pl.col("role") != "mask", pl.col("digest").is_not_null())
    whole = images.group_by("case_id", maintain_order=True).agg(content=pl.col("digest").str.join(), blank=_BLANK.all())
    known = whole.filter(~pl.col("blank")).join(manifest.cases.select("case_id", "patient_id", "split"), on="case_id")
    copies = known.filter(pl.len().over("content") > 1).sort("content", "case_id").with_columns(
        splits=pl.col("split").n_unique().over("content"), patients=pl.col("patient_id").n_unique().over("content"))
    across = copies.filter(pl.col("splits") > 1)["case_id"].to_list()
    strangers = copies.filter(pl.col("splits") == 1, pl.col("patients") > 1)["case_id"].to_list()
    own = copies.filter(pl.col("splits") == 1, pl.col("patients") == 1)["case_id"].to_list()
    if across:
        yield Finding("error", f"{len(across)} cases are the same image in different splits", "no image twice",
                      "remove the copies: a model would be judged on what it was shown", across)
    if strangers:
        yield Finding("warning", f"{len(strangers)} cases are the same image under different patients of one split",
                      "an image of one patient", "find out whose it is: one person of two names may be in two splits",
                      strangers)
    yield from _shared(images.join(known.filter(~pl.col("case_id").is_in(copies["case_id"].to_list())), on="case_id"))
    if own:
        yield Finding("warning", f"{len(own)} cases are copies of an image of the same patient", "no image twice",
                      "remove the copies", own)


def _shared(images: pl.DataFrame) -> Iterator[Finding]:
    """Single channels that are the same in several patients, of cases that are no copies as a whole."""
    images = images.filter(~_BLANK).with_columns(
        patients=pl.col("patient_id").n_unique().over("digest"), splits=pl.col("split").n_unique().over("digest"))
    for (role,), group in images.filter(pl.col("patients") > 1).group_by("role", maintain_order=True):
        cases = once(group["case_id"].to_list())
        level = "error" if group["splits"].max() > 1 else "warning"
        yield Finding(level, f"{len(cases)} case(s): {role} is the same image as in another patient",
                      "an image of one patient", "find out whose it is, and leave the other out", cases)


def channels(facts: pl.DataFrame) -> Iterator[Finding]:
    """Channels that hold the same pixels as another of their case, unless both are blank."""
    name = pl.when(pl.col("channel").max().over("case_id", "role") > 0).then(
        pl.format("{} {}", "role", pl.col("channel") + 1)).otherwise("role")
    known = facts.filter(pl.col("role") != "mask", pl.col("digest").is_not_null(), pl.col("kind") == "volume", ~_BLANK)
    groups = known.group_by("case_id", "digest", maintain_order=True).agg(names=name)
    groups = groups.filter(pl.col("names").list.len() > 1)
    for (names,), group in groups.group_by("names", maintain_order=True):
        shown = f"{', '.join(names[:-1])} and {names[-1]}"
        yield Finding("warning", f"{group.height} case(s): channels {shown} hold the same pixels",
                      "an image of its own in each", "find the right one, or leave the case out: a model would learn "
                      "the copy in its place", group["case_id"].to_list())
