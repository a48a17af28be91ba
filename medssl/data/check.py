"""What is wrong with a manifest, before a night is lost: files, leakage, labels, splits, confounding.

Without `deep` only tables and file sizes are looked at (225,000 cases in seconds); with it every file is opened.
"""

from __future__ import annotations

import hashlib
import math
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import polars as pl

from medssl.data.card import fields
from medssl.data.manifest import Manifest
from medssl.data.split import SPLITS, overlapping_patients
from medssl.errors import MedsslError
from medssl.types import Kind

Level = Literal["error", "warning", "note"]

FEW_PATIENTS = 20
"""Fewer patients than this in a split make every interval wide."""
FEW_POSITIVE = 10
"""As FEW_PATIENTS, for the positive patients of a label."""
CONFOUNDED = 0.2
"""From this correlation ratio on a model may learn the attribute in its label's place: an even binary attribute then
predicts an even label with an AUROC of 0.6."""
_GRID_TOLERANCE = 1e-2
"""mm by which a mask's affine may differ from its image's."""


@dataclass(frozen=True)
class Finding:
    """One thing to know before training. `cases` holds the case_ids concerned, never a path or a raw id."""

    level: Level
    what: str
    expected: str = ""
    remedy: str = ""
    cases: list[str] = field(default_factory=list, repr=False)


def check(
    manifest: Manifest, deep: bool = False, progress: Callable[[int, int], None] | None = None
) -> list[Finding]:
    """Everything found, errors first.

    deep: opens every file: unreadable images, masks on another grid, mask values outside the card's regions, and files
        of equal content. `progress(done, total)` counts its cases.
    """
    findings = [*_skipped(manifest), *_overlap(manifest), *_sizes(manifest), *_splits(manifest), *_labels(manifest),
                *_masks(manifest), *_confounding(manifest), *_telling_attributes(manifest)]
    if deep:
        findings += _contents(manifest, progress)
    order = ("error", "warning", "note")
    return sorted(findings, key=lambda finding: order.index(finding.level))


def _skipped(manifest: Manifest) -> Iterator[Finding]:
    told = manifest.skipped.group_by("reason", "remedy", maintain_order=True).agg(pl.col("count").sum())
    for reason, remedy, count in told.rows():
        yield Finding("note", f"{count} left out of the manifest: {reason}", remedy=remedy)


def _overlap(manifest: Manifest) -> Iterator[Finding]:
    leaking = overlapping_patients(manifest.cases)
    if leaking:
        cases = manifest.cases.filter(pl.col("patient_id").is_in(leaking))["case_id"].to_list()
        yield Finding("error", f"{len(leaking)} patient(s) are in more than one split", "each patient in one split",
                      "build the manifest again with a split by patient", cases)


def _sizes(manifest: Manifest) -> Iterator[Finding]:
    """Missing and empty files: one `stat` a file, side by side, since on a network drive each one waits."""
    case_ids, paths = manifest.files["case_id"].to_list(), manifest.files["path"].to_list()
    parts = [paths[i : i + 2000] for i in range(0, len(paths), 2000)]
    with ThreadPoolExecutor(8) as pool:
        sizes = [size for part in pool.map(lambda some: [_size(path) for path in some], parts) for size in part]
    remedy = "copy them again, and build the manifest again if they moved"
    missing = [case_id for case_id, size in zip(case_ids, sizes, strict=True) if size is None]
    empty = [case_id for case_id, size in zip(case_ids, sizes, strict=True) if size == 0]
    if missing:
        yield Finding("error", f"{len(missing)} file(s) are missing", "every file where it was", remedy, _once(missing))
    if empty:
        yield Finding("error", f"{len(empty)} file(s) are empty", "at least a header", remedy, _once(empty))


def _size(path: str) -> int | None:
    try:
        return Path(path).stat().st_size
    except OSError:
        return None


def _splits(manifest: Manifest) -> Iterator[Finding]:
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


def _labels(manifest: Manifest) -> Iterator[Finding]:
    for name in manifest.labels:
        column = manifest.cases[f"label.{name}"]
        known = column.drop_nulls()
        if known.n_unique() < 2:
            yield Finding("warning", f"label {name} is {'missing everywhere' if known.is_empty() else 'constant'}",
                          "two values or more", "leave it out of the task")
            continue
        if column.null_count():
            yield Finding("note", f"label {name} is missing in {column.null_count() / len(column):.1%} of the cases")
        if set(known.unique()) <= {-1.0, 0.0, 1.0}:
            yield _classes(manifest, name)


def _classes(manifest: Manifest, name: str) -> Finding:
    """Positive, negative and uncertain cases of a binary label in each split, with what they are too few for."""
    column = pl.col(f"label.{name}")
    counts = manifest.cases.group_by("split").agg(
        positive=(column == 1).sum(), negative=(column == 0).sum(), uncertain=(column == -1).sum(),
        patients=pl.col("patient_id").filter(column == 1).n_unique(),
    )
    rows = sorted(counts.to_dicts(), key=lambda row: SPLITS.index(row["split"]))
    shown = ", ".join(
        f"{row['split']} {row['positive']} of {row['positive'] + row['negative']}"
        + (f" and {row['uncertain']} uncertain" if row["uncertain"] else "") for row in rows
    )
    what = f"label {name}, positive cases: {shown}"
    absent = [row["split"] for row in rows if not row["positive"] or not row["negative"]]
    rare = [row["split"] for row in rows if row["patients"] < FEW_POSITIVE]
    if absent:
        return Finding("warning", f"{what}; one class is absent from {' and '.join(absent)}", "both classes",
                       "its AUROC is undefined there: leave it out, or judge by cross-validation")
    if rare:
        return Finding("warning", f"{what}; few patients are positive in {' and '.join(rare)}",
                       f"{FEW_POSITIVE} or more", "read its confidence interval, not its value")
    return Finding("note", what)


def _masks(manifest: Manifest) -> Iterator[Finding]:
    if not manifest.card.mask:
        return
    if not manifest.regions:
        yield Finding("warning", "the card has a mask but no regions", "`regions: {name: [values]}`",
                      "add them, if the masks are to be learnt")
    bare = manifest.cases.filter(~pl.col("has_mask"))
    if bare.height:
        yield Finding("note", f"{bare.height} of {len(manifest)} cases have no mask",
                      remedy="they serve pretraining only", cases=bare["case_id"].to_list())
    for name, masked in manifest.cases.group_by("split").agg(pl.col("has_mask").any()).rows():
        if not masked:
            yield Finding("warning", f"no case in {name} has a mask", "masks to learn from and to judge by",
                          "add them, or change the card's `split`")


def _confounding(manifest: Manifest) -> Iterator[Finding]:
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


def _telling_attributes(manifest: Manifest) -> Iterator[Finding]:
    """A text attribute that differs from patient to patient may name them."""
    patients = manifest.cases["patient_id"].n_unique()
    for name in manifest.attributes:
        column = manifest.cases[f"attr.{name}"]
        if column.dtype == pl.String and patients >= 10 and column.drop_nulls().n_unique() > 0.5 * patients:
            yield Finding("warning", f"attribute {name} is different for most patients and may name them",
                          "a few values that many patients share",
                          "leave it out of the card before the manifest is shared")


def _contents(manifest: Manifest, progress: Callable[[int, int], None] | None) -> Iterator[Finding]:
    """Opens every file once. Findings are gathered by what is wrong, so that a thousand alike are one line."""
    wrong: dict[tuple[str, str, str], list[str]] = defaultdict(list)
    same: dict[str, list[str]] = defaultdict(list)
    allowed = {0} | {value for values in manifest.regions.values() for value in values}
    kinds = dict(manifest.cases.select("case_id", "kind").rows())
    for done, (case_id, kind) in enumerate(kinds.items(), start=1):
        files = manifest.all_paths(case_id)
        try:
            _check_case(case_id, kind, files, allowed if manifest.regions else None, wrong)
            same[_content(files)].append(case_id)
        except OSError:
            pass  # a missing file, which _sizes has named
        if progress:
            progress(done, len(kinds))
    for (what, expected, remedy), cases in wrong.items():
        yield Finding("error", f"{len(cases)} case(s): {what}", expected, remedy, cases)
    yield from _twins(manifest, [cases for cases in same.values() if len(cases) > 1])


def _check_case(
    case_id: str, kind: Kind, files: dict[str, tuple[Path, ...]], allowed: set[int] | None,
    wrong: dict[tuple[str, str, str], list[str]],
) -> None:
    from medssl.io import FoundScan, open_scan  # readers are loaded only where files are opened

    first = None
    for role, paths in files.items():
        try:
            scan = open_scan(paths[0] if len(paths) == 1 else FoundScan(paths, kind))
        except MedsslError as error:
            if all(path.exists() for path in paths):
                remedy = error.remedy or "export the file again, or leave the case out"
                wrong[(f"{role}: {error.what}", error.expected, remedy)].append(case_id)
            continue
        if first is None:
            first = scan
        elif scan.array.shape[1:] != first.array.shape[1:]:
            wrong[(f"{role} has another shape than the first channel", "one grid for all files of a case",
                   "resample it onto the image's grid")].append(case_id)
        elif scan.affine is not None and first.affine is not None and \
                np.abs(scan.affine - first.affine).max() > _GRID_TOLERANCE:
            wrong[(f"{role} lies elsewhere than the first channel (another affine)", "one grid for all files of a case",
                   "resample it onto the image's grid, or correct its header")].append(case_id)
        if role == "mask" and allowed is not None:
            strange = sorted(set(np.unique(scan.array).tolist()) - allowed)
            if strange:
                shown = ", ".join(f"{value:g}" for value in strange[:5])
                wrong[(f"mask values {shown} are in no region of the card", f"one of {sorted(allowed)}",
                       "correct the card's `regions`, or the mask")].append(case_id)


def _content(files: dict[str, tuple[Path, ...]]) -> str:
    """SHA-256 of a case's image files."""
    sha = hashlib.sha256()
    for role, paths in files.items():
        for path in paths if role != "mask" else ():
            with path.open("rb") as file:
                sha.update(hashlib.file_digest(file, "sha256").digest())
    return sha.hexdigest()


def _twins(manifest: Manifest, groups: list[list[str]]) -> Iterator[Finding]:
    splits = dict(manifest.cases.select("case_id", "split").rows())
    across = [case for group in groups if len({splits[case] for case in group}) > 1 for case in group]
    within = [case for group in groups if len({splits[case] for case in group}) == 1 for case in group]
    if across:
        yield Finding("error", f"{len(across)} cases are the same image in different splits", "no image twice",
                      "remove the copies: a model would be judged on what it was shown", across)
    if within:
        yield Finding("warning", f"{len(within)} cases are copies of an image in their split", "no image twice",
                      "remove the copies", within)


def _once(case_ids: list[str]) -> list[str]:
    return list(dict.fromkeys(case_ids))
