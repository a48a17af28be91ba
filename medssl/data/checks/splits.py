"""Who is in which split, of which kind, and with a mask or without."""

from __future__ import annotations

from collections.abc import Iterator

import polars as pl

from medssl.data.checks.finding import Finding
from medssl.data.manifest import Manifest
from medssl.data.split import SPLITS, overlapping_patients

FEW_PATIENTS = 20
"""Fewer patients than this in a split make every interval wide."""


def overlap(manifest: Manifest) -> Iterator[Finding]:
    """Patients in two splits. No build lets them through; a table of elsewhere may hold them."""
    leaking = overlapping_patients(manifest.cases)
    if leaking:
        cases = manifest.cases.filter(pl.col("patient_id").is_in(leaking))["case_id"].to_list()
        yield Finding("error", f"{len(leaking)} patient(s) are in more than one split", "each patient in one split",
                      "build the manifest again with a split by patient", cases)


def sizes(manifest: Manifest) -> Iterator[Finding]:
    """Patients and cases of each split, and splits with too few."""
    patients = dict(manifest.cases.group_by("split").agg(pl.col("patient_id").n_unique()).rows())
    cases = dict(manifest.cases.group_by("split").len().rows())
    counts = ", ".join(f"{name} {patients.get(name, 0)} patients / {cases.get(name, 0)} cases" for name in SPLITS)
    yield Finding("note", counts)
    if not patients.get("train"):
        yield Finding("error", "no patient to train on", "a train split", "change the card's `split`")
    for name in SPLITS:
        if 0 < patients.get(name, 0) < FEW_PATIENTS:
            yield Finding("warning", f"only {patients[name]} patient(s) in {name}", f"{FEW_PATIENTS} or more",
                          "judge by cross-validation, and read the confidence intervals")
    for name in ("validation", "test"):
        if not patients.get(name):
            yield Finding("note", f"no patient in {name}",
                          remedy="change the card's `split`, unless it is for pretraining")


def kinds(manifest: Manifest) -> Iterator[Finding]:
    """Images, volumes and clips in one manifest, of which a recipe takes one kind."""
    counts = manifest.cases.group_by("kind").len().sort("len", "kind", descending=[True, False]).rows()
    if len(counts) > 1:
        told = ", ".join(f"{count} {kind}(s)" for kind, count in counts)
        yield Finding("warning", f"cases of several kinds: {told}", "one kind, since a recipe takes one",
                      f"give the card `kind: {counts[0][0]}`, and build a manifest for each kind")


def masks(manifest: Manifest) -> Iterator[Finding]:
    """Cases and splits without a mask, where the card has one."""
    if not manifest.card.mask:
        return
    if not manifest.regions:
        yield Finding("warning", "the card has a mask but no regions", "`regions: {name: [values]}`",
                      "add them, if the masks are to be learnt")
    bare = manifest.cases.filter(~pl.col("has_mask"))
    if bare.height:
        yield Finding("note", f"{bare.height} of {len(manifest)} cases have no mask",
                      remedy="they serve pretraining only", cases=bare["case_id"].to_list())
    for name, masked in manifest.cases.group_by("split").agg(pl.col("has_mask").any()).sort("split").rows():
        if not masked:
            yield Finding("warning", f"no case in {name} has a mask", "masks to learn from and to judge by",
                          "add them, or change the card's `split`")
