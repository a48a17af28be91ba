"""Every file of a manifest opened once, in parallel: what its pixels and headers say, as a table to find faults in."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import numpy as np
import polars as pl

from medssl.data.files import Files
from medssl.data.grid import difference, shear
from medssl.data.manifest import Manifest
from medssl.data.pool import LOST, LOST_REMEDY, cores, results
from medssl.errors import MedsslError
from medssl.types import Scan

FACTS = {
    "case_id": pl.String, "role": pl.String, "channel": pl.Int64,
    "what": pl.String, "expected": pl.String, "remedy": pl.String,
    "kind": pl.String, "shape": pl.List(pl.Int64), "spacing": pl.List(pl.Float64), "grid": pl.String,
    "shear": pl.String, "burned_in": pl.String, "ultrasound": pl.Boolean, "marks_outside": pl.Boolean,
    "digest": pl.String, "finite": pl.Boolean, "top": pl.Float64,
    "minimum": pl.Float64, "low": pl.Float64, "middle": pl.Float64, "high": pl.Float64, "maximum": pl.Float64,
    "values": pl.List(pl.Float64),
}
"""role: a channel of the card, or "mask". channel: which of the file's own channels, 0 unless it holds several.
what, expected, remedy: why the file cannot be read; all that follows is then null.
shape (*S); spacing mm in array order, null where the file does not say; grid: how the file lies otherwise than the
case's first one, null where it does not. shear: of a tilted gantry, say, null where the grid is straight and for masks.
burned_in: BurnedInAnnotation (PS3.3 C.7.6.1.1.1).
ultrasound: whether the file says that it is. marks_outside: whether anything is drawn outside the regions that it was
cropped to; null where nothing was cropped.
digest: of the pixels and their shape, whatever the format and type they are stored in. finite: no NaN, no infinity.
Of the finite pixels: minimum, low (1 %), middle (the median of those above the minimum, so that a background does not
count), high (99 %), maximum, and top: the share that holds the maximum.
values: a mask's distinct values, at most MOST_VALUES of them; a mask has no figures of brightness, and no digest."""

MOST_VALUES = 257
"""One more than a mask of 8 bits can hold."""
_SAMPLE = 1 << 18
"""Percentiles come from about this many pixels, evenly spread."""


def gather(
    manifest: Manifest, workers: int | None = None, progress: Callable[[int, int], None] | None = None
) -> pl.DataFrame:
    """The facts of every case, as FACTS has them: a row for each channel, and one for the mask.

    A file that is missing has no row: `check` names it without. `progress(done, total)` counts cases.
    """
    jobs = [(case_id, manifest.files_of(case_id)) for case_id in manifest.cases["case_id"]]
    workers = min(cores() if workers is None else workers, len(jobs))
    rows = {}
    for done, (case_id, found) in enumerate(results(_read_case, jobs, workers, _lost_case), start=1):
        rows[case_id] = found
        if progress:
            progress(done, len(jobs))
    return pl.DataFrame([row for case_id, _ in jobs for row in rows[case_id]], schema=FACTS, orient="row")


def _lost_case(job: tuple[str, Files]) -> tuple[str, list[dict[str, Any]]]:
    """What is known of a case that took its worker down with it."""
    case_id, files = job
    failure = {"what": LOST, "expected": "files that can be decoded", "remedy": LOST_REMEDY}
    return case_id, [dict.fromkeys(FACTS) | {"case_id": case_id, "role": next(iter(files.paths))} | failure]


def _read_case(job: tuple[str, Files]) -> tuple[str, list[dict[str, Any]]]:
    case_id, files = job
    rows, first = [], None
    for role, paths in files.paths.items():
        row = dict.fromkeys(FACTS) | {"case_id": case_id, "role": role}
        if not all(path.exists() for path in paths):
            continue
        try:
            scan = files.open(role, first)
        except (MedsslError, OSError) as error:
            rows.append(row | _failure(error))
            continue
        first = first or scan
        row |= {"kind": scan.kind, "shape": list(scan.array.shape[1:]), "spacing": scan.spacing and list(scan.spacing),
                "grid": difference(first, scan), "shear": None if role == "mask" else shear(scan),
                "ultrasound": scan.modality == "US", "burned_in": scan.header.get("burned_in_annotation"),
                "marks_outside": scan.header.get("marks_outside_regions")}
        if role == "mask":
            rows.append(row | {"channel": 0, "values": np.unique(scan.array)[:MOST_VALUES].astype(float).tolist()})
        else:
            rows += [row | {"channel": number} | _pixel_facts(pixels) for number, pixels in enumerate(_channels(scan))]
    return case_id, rows


def _failure(error: MedsslError | OSError) -> dict[str, str]:
    if isinstance(error, MedsslError):
        return {"what": error.what, "expected": error.expected,
                "remedy": error.remedy or "export the file again, or leave the case out"}
    return {"what": f"the file could not be read ({error.strerror})", "expected": "a readable file",
            "remedy": "check the file system"}


def _channels(scan: Scan) -> np.ndarray:
    """(C, *S), with C = 1 for a grey picture that was saved in colour."""
    array = scan.array
    grey = scan.kind != "volume" and len(array) == 3 and (array[1:] == array[:1]).all()
    return array[:1] if grey else array


def _pixel_facts(pixels: np.ndarray) -> dict[str, Any]:
    """pixels: (*S), of one channel."""
    facts: dict[str, Any] = {"digest": _digest(pixels), "finite": bool(np.isfinite(pixels).all())}
    known = pixels.reshape(-1) if facts["finite"] else pixels[np.isfinite(pixels)]
    if known.size == 0:
        return facts
    minimum, maximum = known.min(), known.max()
    sample = np.sort(known[:: -(-known.size // _SAMPLE) | 1])
    first, last = (round(share * (len(sample) - 1)) for share in (0.01, 0.99))
    above = sample[np.searchsorted(sample, minimum, side="right") :]
    return facts | {
        "top": np.count_nonzero(known == maximum) / known.size, "minimum": float(minimum), "maximum": float(maximum),
        "low": float(sample[first]), "middle": float((above if above.size else sample)[len(above) // 2]),
        "high": float(sample[last]),
    }


def _digest(pixels: np.ndarray) -> str:
    """SHA-256 over the shape and the values as float32, a slice at a time; as many bits as no accident repeats."""
    digest = hashlib.sha256(repr(pixels.shape).encode())
    for part in pixels:
        digest.update(np.ascontiguousarray(part, dtype="<f4"))
    return digest.hexdigest()[:32]
