"""Scan -> Sample, decoded once: oriented, resampled, intensity-mapped, and stored so that a box reads without the rest.

A cache folder holds `<address>.npy` (C, *S) float16 and `<address>.mask.npy` (*S) uint8, where the address is a digest
of the source bytes, their roles and the PrepareConfig: an edited file or setting gives a new address and never a stale
sample. `index.parquet` maps case ids to addresses. All arrays can be read as plain memory maps.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import polars as pl
import torch

from medssl.data.decode import Files, PrepareConfig, decode
from medssl.data.manifest import Manifest
from medssl.data.pool import worker_pool
from medssl.errors import ManifestError, MedsslError, RunError
from medssl.files import whole
from medssl.types import Sample

FORMAT = 1
OPEN_MAPS = 16_384
"""Cases kept mapped: opening one again costs more than reading a small box of it. Linux allows a process 65,530."""
INDEX = {"case_id": pl.String, "stamp": pl.String, "address": pl.String, "shape": pl.List(pl.Int64),
         "spacing": pl.List(pl.Float64), "has_mask": pl.Boolean, "reason": pl.String, "remedy": pl.String}


@dataclass(frozen=True)
class PrepareReport:
    """What `prepare` did: prepared now, found done, and skipped, each skip with its case, reason and remedy."""

    prepared: int
    reused: int
    skipped: pl.DataFrame


class Cache:
    """Prepared cases of one PrepareConfig, read by case id."""

    def __init__(self, folder: Path, index: pl.DataFrame) -> None:
        self.folder = folder
        self._rows = {row["case_id"]: row for row in index.filter(pl.col("address").is_not_null()).to_dicts()}

    @classmethod
    def open(cls, root: str | Path, config: PrepareConfig) -> Cache:
        """RunError where nothing has been prepared with this config under `root`."""
        folder = Path(root) / config.digest()
        if not (folder / "index.parquet").is_file():
            raise RunError(f"Nothing is prepared under {folder}",
                           expected="index.parquet, or the manifest's files table",
                           remedy="run medssl prepare where the scans are, and bring the cache or the files table here")
        return cls(folder, pl.read_parquet(folder / "index.parquet"))

    def __contains__(self, case_id: str) -> bool:
        return case_id in self._rows

    def __len__(self) -> int:
        return len(self._rows)

    def shape(self, case_id: str) -> tuple[int, ...]:
        """(C, *S) of a prepared case."""
        return tuple(self._rows[case_id]["shape"])

    def has_mask(self, case_id: str) -> bool:
        return self._rows[case_id]["has_mask"]

    def array(self, case_id: str) -> np.ndarray:
        """(C, *S) float16, memory-mapped: slicing it reads only that box."""
        return _memory_map(str(self.folder / f"{self._rows[case_id]['address']}.npy"))

    def mask(self, case_id: str) -> np.ndarray:
        """(*S) uint8, memory-mapped: the file's own label values."""
        return _memory_map(str(self.folder / f"{self._rows[case_id]['address']}.mask.npy"))

    def read(self, case_id: str) -> Sample:
        row = self._rows[case_id]
        mask = np.asarray(self.mask(case_id)) if row["has_mask"] else None
        spacing = tuple(row["spacing"]) if row["spacing"] else None
        return Sample(case_id, self.array(case_id).astype(np.float32), mask, spacing)


@lru_cache(maxsize=OPEN_MAPS)
def _memory_map(path: str) -> np.ndarray:
    return np.asarray(np.load(path, mmap_mode="r"))  # a plain view: slicing an np.memmap costs ten times as much


def prepare(
    manifest: Manifest,
    root: str | Path,
    config: PrepareConfig,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Cache, PrepareReport]:
    """Decodes every case of the manifest once, in parallel; a second call does only what is new or changed.

    A case that cannot be read becomes a listed skip and is asked again next time. ManifestError when no case could
    be read.
    """
    folder = Path(root) / config.digest()
    folder.mkdir(parents=True, exist_ok=True)
    known = _known_rows(folder)
    channels = tuple(manifest.channels)
    wanted = {case_id: Files(kind, channels, manifest.all_paths(case_id))
              for case_id, kind in manifest.cases.select("case_id", "kind").iter_rows()}
    jobs = [_Job(case_id, files, config, folder) for case_id, files in wanted.items()
            if not _is_done(known.get(case_id), files, folder)]

    rows = dict(known)
    try:
        for count, row in enumerate(_run(jobs, workers or os.cpu_count() or 1), start=1):
            rows[row["case_id"]] = row
            if progress:
                progress(count, len(jobs))
            if count % 2000 == 0:
                _write_index(folder, rows)
    finally:  # also when interrupted: what is decoded stays decoded
        if jobs:
            _write_index(folder, rows)

    index = pl.DataFrame([rows[case_id] for case_id in wanted if case_id in rows], schema=INDEX)
    skipped = index.filter(pl.col("address").is_null()).select("case_id", "reason", "remedy")
    if len(skipped) == len(wanted):
        reason = skipped["reason"][0] if len(skipped) else "the manifest is empty"
        raise ManifestError(f"None of {len(wanted)} cases could be prepared; the first: {reason}",
                            expected="at least one readable case", remedy="run medssl check --deep on the manifest")
    failed_now = len(set(skipped["case_id"]) & {job.case_id for job in jobs})
    return Cache(folder, index), PrepareReport(len(jobs) - failed_now, len(wanted) - len(jobs), skipped)


@dataclass(frozen=True)
class _Job:
    case_id: str
    files: Files
    config: PrepareConfig
    folder: Path


def _run(jobs: list[_Job], workers: int) -> Iterator[dict]:
    if len(jobs) < 16 or workers == 1:
        yield from map(_prepare_case, jobs)
        return
    with worker_pool(workers, torch.set_num_threads, 1) as pool:
        yield from pool.map(_prepare_case, jobs, chunksize=8)


def _prepare_case(job: _Job) -> dict:
    empty = dict.fromkeys(INDEX) | {"case_id": job.case_id, "stamp": _stamp(job.files)}
    try:
        address = _address(job)
        sample = decode(job.case_id, job.files, job.config)
        _save(job.folder / f"{address}.npy", sample.array.astype(np.float16))
        if sample.mask is not None:
            _save(job.folder / f"{address}.mask.npy", sample.mask)
    except MedsslError as error:
        reason = _without_paths(error.what, job.files.all())
        return empty | {"reason": reason, "remedy": error.remedy}
    except OSError as error:
        if error.errno == 28:
            raise RunError("The disk of the cache is full", expected=f"room under {job.folder}",
                           remedy="free space or move data.cache; what is prepared stays") from None
        return empty | {"reason": f"the file could not be read ({error.strerror})", "remedy": "check the file system"}
    spacing = list(sample.spacing) if sample.spacing else None
    return empty | {"address": address, "shape": list(sample.array.shape), "spacing": spacing,
                    "has_mask": sample.mask is not None}


def _known_rows(folder: Path) -> dict[str, dict]:
    path = folder / "index.parquet"
    return {row["case_id"]: row for row in pl.read_parquet(path).to_dicts()} if path.is_file() else {}


def _is_done(row: dict | None, files: Files, folder: Path) -> bool:
    return (row is not None and row["address"] is not None and row["stamp"] == _stamp(files)
            and (folder / f"{row['address']}.npy").is_file()
            and (not row["has_mask"] or (folder / f"{row['address']}.mask.npy").is_file()))


def _stamp(files: Files) -> str:
    """Cheap sign that a case's sources are unchanged: sizes and times, their kind and roles, and no file's name."""
    stamps = [f"{FORMAT} {files.kind} {','.join(files.channels)}"]
    for path in files.all():
        try:
            stat = os.stat(path)
            stamps.append(f"{stat.st_size}:{stat.st_mtime_ns}")
        except OSError:
            stamps.append("missing")
    return " ".join(stamps)


def _address(job: _Job) -> str:
    files = job.files
    digest = hashlib.sha256(f"{FORMAT} {job.config.digest()} {files.kind} {','.join(files.channels)}".encode())
    for role in files.paths:
        digest.update(f"{role} {len(files.paths[role])}".encode())
        for file in files.paths[role]:
            digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()[:32]


def _save(path: Path, array: np.ndarray) -> None:
    with whole(path) as draft, draft.open("wb") as file:
        np.save(file, array)


def _write_index(folder: Path, rows: dict[str, dict]) -> None:
    with whole(folder / "index.parquet") as draft:
        pl.DataFrame(list(rows.values()), schema=INDEX).write_parquet(draft)


def _without_paths(text: str, paths: Iterable[Path]) -> str:
    """What is saved names the case; a hospital's paths name people. Slices called 1, 2, 3 name nobody."""
    for path in paths:
        text = text.replace(str(path), "the file")
        text = text.replace(path.name, "the file") if len(path.name) > 3 else text
    return text
