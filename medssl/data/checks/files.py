"""Files that are not in the manifest, and files of the manifest that are not there."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import polars as pl

from medssl.data.checks.finding import Finding, once
from medssl.data.manifest import Manifest


def left_out(manifest: Manifest) -> Iterator[Finding]:
    """What the build skipped, told again."""
    told = manifest.skipped.group_by("reason", "remedy", maintain_order=True).agg(pl.col("count").sum())
    for reason, remedy, count in told.rows():
        yield Finding("note", f"{count} left out of the manifest: {reason}", remedy=remedy)


def missing(manifest: Manifest) -> Iterator[Finding]:
    """Missing and empty files: one `stat` a file, side by side, since on a network drive each one waits."""
    case_ids, paths = manifest.files["case_id"].to_list(), manifest.files["path"].to_list()
    parts = [paths[i : i + 2000] for i in range(0, len(paths), 2000)]
    with ThreadPoolExecutor(8) as pool:
        sizes = [size for part in pool.map(lambda some: [_size(path) for path in some], parts) for size in part]
    remedy = "copy them again, and build the manifest again if they moved"
    absent = [case_id for case_id, size in zip(case_ids, sizes, strict=True) if size is None]
    empty = [case_id for case_id, size in zip(case_ids, sizes, strict=True) if size == 0]
    if absent:
        yield Finding("error", f"{len(absent)} file(s) are missing", "every file where it was", remedy, once(absent))
    if empty:
        yield Finding("error", f"{len(empty)} file(s) are empty", "at least a header", remedy, once(empty))


def _size(path: str) -> int | None:
    try:
        return Path(path).stat().st_size
    except OSError:
        return None
