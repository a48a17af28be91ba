"""Scan -> Sample, decoded once: oriented, resampled, intensity-mapped, and stored so that a box reads without the rest.

A cache folder holds `<address>.npy` (C, *S) float16 and `<address>.mask.npy` (*S) uint8, where the address is a digest
of the source bytes and of the PrepareConfig: an edited file or setting gives a new address and never a stale sample.
`index.parquet` maps case ids to addresses. Both can be read as plain memory maps.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from multiprocessing import get_context
from pathlib import Path
from typing import Literal

import numpy as np
import polars as pl
import torch
import torch.nn.functional as F

from medssl.config import Config
from medssl.data.manifest import Manifest
from medssl.errors import GeometryError, ManifestError, MedsslError, RunError, UnreadableScan
from medssl.types import Kind, Sample, Scan

FORMAT = 1
INDEX = {"case_id": pl.String, "stamp": pl.String, "address": pl.String, "shape": pl.List(pl.Int64),
         "spacing": pl.List(pl.Float64), "has_mask": pl.Boolean, "reason": pl.String, "remedy": pl.String}


class PrepareConfig(Config):
    """How a Scan becomes a Sample. Part of every model's `preprocessing`."""

    size: tuple[int, ...] | None = None
    """Resize to this many voxels, in array order: (J, I) for images and frames, (K, J, I) for volumes; (J, I) resizes
    the slices of a volume and keeps their number."""
    spacing: tuple[float, float, float] | None = None
    """Resample volumes to this spacing in mm (K, J, I)."""
    intensity: Literal["percentile", "range", "window", "zscore", "zscore_nonzero"] = "percentile"
    """percentile: 0.5-99.5 % of each case to [0, 1]; range: the stored type's range to [0, 1]; window: `window` to
    [0, 1]; zscore: each channel to mean 0, sd 1; zscore_nonzero: the same over voxels that are not 0 (which stay 0)."""
    window: tuple[float, float] | None = None
    """Lowest and highest value (HU for CT) of `intensity: window`."""
    margin: int | None = None
    """Crop volumes to the voxels that are not 0, with this margin in voxels."""


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
            raise RunError(f"Nothing is prepared under {folder}", expected="index.parquet", remedy="run medssl prepare")
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


@lru_cache(maxsize=512)
def _memory_map(path: str) -> np.ndarray:
    return np.load(path, mmap_mode="r")


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
    wanted = {case_id: manifest.all_paths(case_id) for case_id in manifest.cases["case_id"]}
    kinds = dict(zip(manifest.cases["case_id"], manifest.cases["kind"], strict=True))
    jobs = [_Job(case_id, kinds[case_id], paths, tuple(manifest.channels), config, folder)
            for case_id, paths in wanted.items() if not _is_done(known.get(case_id), paths, folder)]

    rows = dict(known)
    for count, row in enumerate(_run(jobs, workers or os.cpu_count() or 1), start=1):
        rows[row["case_id"]] = row
        if progress:
            progress(count, len(jobs))
        if count % 2000 == 0:
            _write_index(folder, rows)
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
    kind: Kind
    paths: dict[str, tuple[Path, ...]]
    channels: tuple[str, ...]
    config: PrepareConfig
    folder: Path


def _run(jobs: list[_Job], workers: int) -> Iterator[dict]:
    if len(jobs) < 16 or workers == 1:
        yield from map(_prepare_case, jobs)
        return
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=torch.set_num_threads,
                             initargs=(1,)) as pool:
        yield from pool.map(_prepare_case, jobs, chunksize=8)


def _prepare_case(job: _Job) -> dict:
    empty = dict.fromkeys(INDEX) | {"case_id": job.case_id, "stamp": _stamp(_files(job.paths))}
    try:
        address = _address(job)
        sample = _decode(job)
        _save(job.folder / f"{address}.npy", sample.array.astype(np.float16))
        if sample.mask is not None:
            _save(job.folder / f"{address}.mask.npy", sample.mask.astype(np.uint8))
    except MedsslError as error:
        reason = f"{type(error).__name__}: {_without_paths(error.what, _files(job.paths))}"
        return empty | {"reason": reason, "remedy": error.remedy}
    except OSError as error:
        if error.errno == 28:
            raise RunError("The disk of the cache is full", expected=f"room under {job.folder}",
                           remedy="free space or move data.cache; what is prepared stays") from None
        return empty | {"reason": f"the file could not be read ({error.strerror})", "remedy": "check the file system"}
    spacing = list(sample.spacing) if sample.spacing else None
    return empty | {"address": address, "shape": list(sample.array.shape), "spacing": spacing,
                    "has_mask": sample.mask is not None}


def _decode(job: _Job) -> Sample:
    scans = [_open(job, role) for role in _image_roles(job)]
    for role, scan in zip(_image_roles(job)[1:], scans[1:], strict=True):
        _require_same_grid(scans[0], scan, f"channel {role!r}")
    array = np.concatenate([np.asarray(scan.array, dtype=np.float32) for scan in scans])
    if not np.isfinite(array).all():
        raise UnreadableScan("The image holds NaN or infinite values", expected="finite numbers",
                             remedy="export it again, or leave the case out")
    mask = None
    if "mask" in job.paths:
        scan = _open(job, "mask")
        _require_same_grid(scans[0], scan, "the mask")
        mask = scan.array[0].astype(np.uint8)
    if len(scans) == 1 and len(array) == 3 and job.kind != "volume":
        array = array.mean(axis=0, keepdims=True)  # a grey picture saved as colour
    spacing = scans[0].spacing
    if job.config.margin is not None:
        array, mask = _crop_to_content(array, mask, job.config.margin)
    array = _map_intensity(array, job.config, scans[0])
    array, mask, spacing = _resample(array, mask, spacing, job)
    return Sample(job.case_id, array, mask, spacing)


def _image_roles(job: _Job) -> list[str]:
    missing = [channel for channel in job.channels if channel not in job.paths]
    if missing:
        raise ManifestError(f"Channels {', '.join(missing)} are missing", expected=f"{', '.join(job.channels)}",
                            remedy="leave the case out, or name fewer channels in the card")
    return list(job.channels)


def _open(job: _Job, role: str) -> Scan:
    from medssl.io import FoundScan, open_scan  # a machine that holds only a prepared cache needs no reader
    from medssl.io.geometry import canonical

    paths = job.paths[role]
    scan = open_scan(paths[0] if len(paths) == 1 else FoundScan(paths, job.kind))
    return canonical(scan) if scan.kind == "volume" and scan.affine is not None else scan


def _require_same_grid(reference: Scan, other: Scan, name: str) -> None:
    shapes = reference.array.shape[1:], other.array.shape[1:]
    apart = None
    if reference.affine is not None and other.affine is not None and shapes[0] == shapes[1]:
        apart = float(np.abs(reference.affine - other.affine).max())
    if shapes[0] != shapes[1] or (apart is not None and apart > 1e-2):
        found = f"shape {shapes[1]}" if apart is None else f"an affine {apart:.3g} mm away"
        raise GeometryError(f"{name} lies on another grid: {found}", expected=f"the image's grid, shape {shapes[0]}",
                            remedy="resample it onto the image with the nearest neighbour, or leave the case out")


def _crop_to_content(array: np.ndarray, mask: np.ndarray | None, margin: int) -> tuple[np.ndarray, np.ndarray | None]:
    content = np.argwhere((array != 0).any(axis=0))
    if len(content) == 0:
        return array, mask
    low = np.maximum(content.min(axis=0) - margin, 0)
    high = content.max(axis=0) + 1 + margin
    box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    return array[(slice(None), *box)], None if mask is None else mask[box]


def _map_intensity(array: np.ndarray, config: PrepareConfig, scan: Scan) -> np.ndarray:
    if config.intensity == "percentile":
        low, high = np.percentile(array, (0.5, 99.5))
        return np.clip((array - low) / max(high - low, 1e-6), 0, 1)
    if config.intensity == "range":
        return array / (255.0 if array.max() <= 255 else float(2 ** np.ceil(np.log2(array.max() + 1)) - 1))
    if config.intensity == "window":
        if config.window is None or config.window[0] >= config.window[1]:
            raise GeometryError(f"prepare.window is {config.window}", expected="[lowest, highest]",
                                remedy="give prepare.window=[-1000,1000]")
        low, high = config.window
        return np.clip((array - low) / (high - low), 0, 1)
    within = array != 0 if config.intensity == "zscore_nonzero" else np.ones_like(array, dtype=bool)
    mapped = np.zeros_like(array)
    for channel, (values, inside) in enumerate(zip(array, within, strict=True)):
        if inside.any():
            mean, sd = values[inside].mean(dtype=np.float64), values[inside].std(dtype=np.float64)
            mapped[channel][inside] = (values[inside] - mean) / max(sd, 1e-6)
    return np.clip(mapped, -10, 10)


def _resample(
    array: np.ndarray, mask: np.ndarray | None, spacing: tuple[float, ...] | None, job: _Job
) -> tuple[np.ndarray, np.ndarray | None, tuple[float, ...] | None]:
    frames_or_image = job.kind in ("image", "cine")
    old = array.shape[-2:] if frames_or_image else array.shape[-3:]
    new = job.config.size
    if job.config.spacing is not None and not frames_or_image:
        if spacing is None:
            raise GeometryError("The file does not say its spacing", expected="mm per voxel",
                                remedy="give prepare.size instead of prepare.spacing")
        new = tuple(max(1, round(n * s / t)) for n, s, t in zip(old, spacing, job.config.spacing, strict=True))
    if new is not None and len(new) == 2 and job.kind == "volume":
        new = (old[0], *new)
    if new is None or tuple(new) == tuple(old):
        return array, mask, spacing
    if len(new) != len(old):
        raise GeometryError(f"prepare.size {tuple(new)} has {len(new)} axes", expected=f"{len(old)} for {job.kind}s",
                            remedy="give as many sizes as the case has spatial axes (frames are kept)")
    if spacing is not None:
        spacing = tuple(s * n / m for s, n, m in zip(spacing, old, new, strict=True))
    return _resize(array, new), None if mask is None else _resize_labels(mask, new), spacing


def _resize(array: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    """Anti-aliased in the plane (area average when it shrinks); linear along slices."""
    planes = torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))
    planes = planes.reshape(-1, 1, *planes.shape[-2:])
    planes = F.interpolate(planes, size=tuple(size[-2:]), mode="bilinear", antialias=True, align_corners=False)
    resized = planes.reshape(*array.shape[:-2], *size[-2:])
    if len(size) == 3 and size[0] != array.shape[-3]:
        resized = F.interpolate(resized[None], size=tuple(size), mode="trilinear", align_corners=False)[0]
    return resized.numpy()


def _resize_labels(mask: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    values = torch.from_numpy(np.ascontiguousarray(mask, dtype=np.float32))
    trailing = len(size)
    lead = values.shape[:-trailing]
    flat = values.reshape(-1, 1, *values.shape[-trailing:])
    return F.interpolate(flat, size=tuple(size), mode="nearest-exact").reshape(*lead, *size).numpy().astype(np.uint8)


def _known_rows(folder: Path) -> dict[str, dict]:
    path = folder / "index.parquet"
    return {row["case_id"]: row for row in pl.read_parquet(path).to_dicts()} if path.is_file() else {}


def _files(paths: dict[str, tuple[Path, ...]]) -> list[Path]:
    return [file for role in sorted(paths) for file in paths[role]]


def _is_done(row: dict | None, paths: dict[str, tuple[Path, ...]], folder: Path) -> bool:
    return (row is not None and row["address"] is not None and row["stamp"] == _stamp(_files(paths))
            and (folder / f"{row['address']}.npy").is_file())


def _stamp(paths: Iterable[Path]) -> str:
    """Cheap sign that sources are unchanged: sizes and times only, no names."""
    stamps = []
    for path in paths:
        try:
            stat = os.stat(path)
            stamps.append(f"{stat.st_size}:{stat.st_mtime_ns}")
        except OSError:
            stamps.append("missing")
    return " ".join(stamps)


def _address(job: _Job) -> str:
    digest = hashlib.sha256(f"{FORMAT} {job.config.digest()} {job.kind}".encode())
    for role, files in sorted(job.paths.items()):
        digest.update(role.encode())
        for file in files:
            digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()[:32]


def _save(path: Path, array: np.ndarray) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with open(temporary, "wb") as file:
        np.save(file, array)
    os.replace(temporary, path)


def _write_index(folder: Path, rows: dict[str, dict]) -> None:
    temporary = folder / f".index.{os.getpid()}"
    pl.DataFrame(list(rows.values()), schema=INDEX).write_parquet(temporary)
    os.replace(temporary, folder / "index.parquet")


def _without_paths(text: str, paths: Iterable[Path]) -> str:
    """What is saved names the case; a hospital's paths name people."""
    for path in paths:
        text = text.replace(str(path), "the file").replace(path.name, "the file")
    return text
