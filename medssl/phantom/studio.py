"""How a phantom reaches the disk: patients drawn in parallel, the folder signed when all of them are there."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from medssl.errors import RunError
from medssl.files import write_whole

GENERATOR_VERSION = 1
SIGNATURE = "phantom.json"
POOL_FROM = 8
"""Fewer patients than this are drawn in the calling process: a pool would cost more than it saves."""

Progress = Callable[[int, int], None]


def draw_patients(
    draw: Callable[[Path, int, int], Any], folder: Path, patients: int, seed: int, progress: Progress | None
) -> list[Any]:
    """Calls `draw(folder, seed, index)` for each patient, on all cores, and returns what they give in patient order.

    `draw` is a top-level function, so that a spawned worker finds it.
    """
    results = []
    for result in _mapped(partial(draw, folder, seed), patients):
        results.append(result)
        if progress:
            progress(len(results), patients)
    return results


def _mapped(draw: Callable[[int], Any], patients: int) -> Iterator[Any]:
    workers = min(os.cpu_count() or 1, patients)
    if patients < POOL_FROM or workers == 1:
        yield from map(draw, range(patients))
        return
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        yield from pool.map(draw, range(patients), chunksize=4)


@contextmanager
def signed(folder: Path, name: str, patients: int, seed: int, owns: Sequence[str]) -> Iterator[bool]:
    """Yields whether there is anything to draw, and signs the folder when the drawing came to its end.

    The signature says what the folder holds. While it is unfinished or of another phantom, what the phantom `owns`
    (patterns in the folder) is removed and drawn anew. A folder that holds files and no signature is somebody's
    data: RunError, nothing touched.
    """
    if patients < 1:
        raise RunError(f"{patients} patients", expected="at least 1")
    signature = {"phantom": name, "patients": patients, "seed": seed, "generator": GENERATOR_VERSION}
    path = folder / SIGNATURE
    found = _signature(path)
    if found == signature | {"finished": True}:
        yield False
        return
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()) and found.get("phantom") != name:
        raise RunError(f"{folder} holds files of something else", remedy=f"give an empty folder for the {name} phantom")
    for old in [entry for pattern in owns for entry in folder.glob(pattern)]:
        shutil.rmtree(old) if old.is_dir() else old.unlink()
    write_whole(path, json.dumps(signature | {"finished": False}) + "\n")
    yield True
    write_whole(path, json.dumps(signature | {"finished": True}) + "\n")


def _signature(path: Path) -> dict[str, Any]:
    """What a folder's signature says; empty where there is none, or another program's file of that name."""
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
