"""Scan -> Sample, decoded once: oriented, resampled, intensity-mapped, and stored so that a box reads without the rest.

A cache folder holds `<address>.npy` (C, *S) float16 and `<address>.mask.npy` (*S) uint8, where the address is a digest
of the source bytes, their roles and the PrepareConfig: an edited file or setting gives a new address and never a stale
sample. `index.parquet` maps case ids to addresses. All arrays can be read as plain memory maps.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from medssl.data import index
from medssl.data.cache import Cache
from medssl.data.decode import PrepareConfig, decode
from medssl.data.files import Files
from medssl.data.manifest import Manifest
from medssl.data.pool import LOST, LOST_REMEDY, cores, results
from medssl.errors import ManifestError, MedsslError, RunError
from medssl.files import whole, write_table
from medssl.types import Sample

FORMAT = 1


@dataclass(frozen=True)
class PrepareReport:
    """What `prepare` did: prepared now, found done, and skipped, each skip with its case, reason and remedy.

    listed: the table of all skips; None where there are none.
    lost_labels: as `Sample` has it, of the cases that have any.
    """

    prepared: int
    reused: int
    skipped: pl.DataFrame
    listed: Path | None
    lost_labels: dict[str, list[int]]


def prepare(
    manifest: Manifest,
    root: str | Path,
    config: PrepareConfig,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
    listed: Path | None = None,
) -> tuple[Cache, PrepareReport]:
    """Decodes every case of the manifest once, on all cores; a second call does only what is new or changed.

    Killed at any moment, it goes on where it was. A case that cannot be read becomes a listed skip and is asked again
    next time. Memory does not grow with the cases but for a row of the index each.

    Args:
        workers: processes, by default one a core; 0 decodes in this one, which a crash inside a decoder would end.
        listed: where a table of all skips goes, if there are any; by default beside the index.

    Raises:
        ManifestError: no case could be read.
        RunError: the cache cannot be written; a full disk is one reason.
    """
    folder = Path(root) / config.digest()
    wanted = _stamped(manifest)
    with _told_if_unwritable(folder):
        todo = _prepare_missing(wanted, manifest, config, folder, cores() if workers is None else workers, progress)
    rows = wanted.join(index.read(folder), on=["case_id", "stamp"], how="left", maintain_order="left")
    skipped = rows.filter(pl.col("address").is_null()).select("case_id", "reason", "remedy")
    with _told_if_unwritable(folder):
        listed = _list(skipped, listed or folder / f"skipped.{manifest.digest}.csv")
    if len(skipped) == len(wanted):
        reason, remedy = skipped.select("reason", "remedy").row(0) if len(skipped) else ("the manifest is empty", "")
        raise ManifestError(f"None of {len(wanted)} cases could be prepared; the first: {reason}",
                            expected="at least one readable case",
                            remedy=f"{remedy or 'export it again'}{f'; all of them: {listed}' if listed else ''}")
    lost = dict(rows.filter(pl.col("lost_labels").list.len() > 0).select("case_id", "lost_labels").iter_rows())
    return Cache(folder, rows), PrepareReport(todo - len(skipped), len(wanted) - todo, skipped, listed, lost)


@contextmanager
def _told_if_unwritable(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise RunError(f"The cache cannot be written: {error.strerror}", expected=f"room under {folder}",
                       remedy="free space or move data.cache, and run the same command again: what is prepared "
                              "stays") from None


@dataclass(frozen=True)
class _Job:
    case_id: str
    stamp: str
    earlier: list[dict]
    files: Files
    config: PrepareConfig
    folder: Path


def _prepare_missing(
    wanted: pl.DataFrame, manifest: Manifest, config: PrepareConfig, folder: Path, workers: int,
    progress: Callable[[int, int], None] | None,
) -> int:
    """Tries every case that the folder lacks; returns how many."""
    if _plan(wanted, folder)["done"].all():
        return 0
    with index.written_by_one(folder):
        plan = _plan(wanted, folder)  # again: another process may have done some meanwhile
        todo = len(plan) - plan["done"].sum()
        for count, _ in enumerate(_run(plan, manifest, config, folder, workers), start=1):
            if progress:
                progress(count, todo)
    return todo


def _stamped(manifest: Manifest) -> pl.DataFrame:
    """case_id and stamp of every case, in order."""
    rows = [(case_id, _stamp(files)) for case_id, files in manifest.each_files()]
    return pl.DataFrame(rows, schema={"case_id": pl.String, "stamp": pl.String}, orient="row")


def _plan(wanted: pl.DataFrame, folder: Path) -> pl.DataFrame:
    """`wanted` with `done`, and with `earlier`: what the index holds of the case in other states of its files."""
    known = index.read(folder).filter(pl.col("address").is_not_null())
    rows = wanted.join(known, on=["case_id", "stamp"], how="left", maintain_order="left")
    done = [row["address"] is not None and _is_whole(folder, row)
            for row in rows.select("address", "shape", "has_mask").iter_rows(named=True)]
    kept = pl.struct("address", "shape", "spacing", "has_mask", "lost_labels")
    earlier = known.group_by("case_id").agg(kept.alias("earlier"))
    return (wanted.with_columns(pl.Series("done", done, dtype=pl.Boolean))
            .join(earlier, on="case_id", how="left", maintain_order="left"))


def _run(plan: pl.DataFrame, manifest: Manifest, config: PrepareConfig, folder: Path, workers: int) -> Iterator[str]:
    """Prepares what is not done; yields the case ids as they finish."""
    rows = plan.select("stamp", "earlier", "done").iter_rows()
    jobs = (_Job(case_id, stamp, earlier or [], files, config, folder)
            for (case_id, files), (stamp, earlier, done) in zip(manifest.each_files(), rows, strict=True) if not done)
    yield from results(_prepare_case, jobs, min(workers, plan.height - plan["done"].sum()), _lost_case)


def _prepare_case(job: _Job) -> str:
    """Leaves the case's arrays and its row in the cache; OSError where they cannot be written."""
    row = _row(job)
    try:
        address = _address(job)
        known = [row for row in job.earlier if row["address"] == address and _is_whole(job.folder, row)]
        sample = None if known else decode(job.case_id, job.files, job.config)
        if _stamp(job.files) != job.stamp:
            raise ManifestError("The files changed while they were read", expected="files at rest",
                                remedy="run medssl prepare again when nothing writes to them")
    except MedsslError as error:
        row |= {"reason": _without_paths(error.what, job.files.all()), "remedy": error.remedy}
    except OSError as error:
        row |= {"reason": f"the file could not be read ({error.strerror})", "remedy": "check the file system"}
    else:
        row |= known[0] if known else _save(job.folder, address, sample)
    index.append(job.folder, row)
    return job.case_id


def _lost_case(job: _Job) -> str:
    """Notes the skip of a case that took its worker down with it."""
    index.append(job.folder, _row(job) | {"reason": LOST, "remedy": LOST_REMEDY})
    return job.case_id


def _row(job: _Job) -> dict:
    return dict.fromkeys(index.COLUMNS) | {"case_id": job.case_id, "stamp": job.stamp}


def _save(folder: Path, address: str, sample: Sample) -> dict:
    """Writes the sample's arrays; returns its part of the row. What a power cut makes of them, `_is_whole` finds."""
    arrays = {f"{address}.npy": sample.array.astype(np.float16)}
    if sample.mask is not None:
        arrays[f"{address}.mask.npy"] = sample.mask
    for name, array in arrays.items():
        with whole(folder / name, durable=False) as draft, draft.open("wb") as file:
            np.save(file, array)
    return {"address": address, "shape": list(sample.array.shape), "has_mask": sample.mask is not None,
            "spacing": list(sample.spacing) if sample.spacing else None, "lost_labels": list(sample.lost_labels)}


def _is_whole(folder: Path, row: dict) -> bool:
    """Whether a row's arrays are there, by their size."""
    sizes = {f"{row['address']}.npy": 2 * math.prod(row["shape"])}
    if row["has_mask"]:
        sizes[f"{row['address']}.mask.npy"] = math.prod(row["shape"][1:])
    try:
        return all(os.stat(folder / name).st_size > size for name, size in sizes.items())
    except FileNotFoundError:
        return False


def _stamp(files: Files) -> str:
    """A cheap sign that a case's sources are unchanged, of sizes and times, kind and roles."""
    told = [f"{FORMAT} {files.told}"]
    for path in files.all():
        try:
            stat = os.stat(path)
            told.append(f"{stat.st_size}:{stat.st_mtime_ns}")
        except OSError:
            told.append("missing")
    return hashlib.sha256(" ".join(told).encode()).hexdigest()[:16]


def _address(job: _Job) -> str:
    files = job.files
    digest = hashlib.sha256(f"{FORMAT} {job.config.digest()} {files.told}".encode())
    for role in files.paths:
        digest.update(f"{role} {len(files.paths[role])}".encode())
        for path in files.paths[role]:
            with open(path, "rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:32]


def _list(skipped: pl.DataFrame, path: Path) -> Path | None:
    """Writes all skips as a table (case_id, reason, remedy), which names no file; removes an older one."""
    if skipped.is_empty():
        if path.exists():  # asked first: a disk that nobody may write to refuses even to remove what is not there
            path.unlink()
        return None
    write_table(path, skipped)
    return path


def _without_paths(text: str, paths: Iterable[Path]) -> str:
    """What is saved names the case; a hospital's paths name people. Slices called 1, 2, 3 name nobody."""
    for path in paths:
        text = text.replace(str(path), "the file")
        text = text.replace(path.name, "the file") if len(path.name) > 3 else text
    return text
