"""How every file of the real corpora ends: a scan, or a skip with its reason.

    MEDSSL_DATA=/where/the/scans/are python tests/io/make_corpus_tables.py

writes tests/io/corpus.csv, which test_io_corpus.py holds the readers to. Read the difference before you commit it.
"""

from __future__ import annotations

import csv
import os
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

from medssl import find_scans, open_scan
from medssl.errors import MedsslError
from medssl.io import FoundScan, SkippedFile

TABLE = Path(__file__).with_name("corpus.csv")
CORPORA = ("dicom_corpus", "nifti_corpus", "cine_sunnybrook")
CPU_SECONDS = 60
"""A worker that computes for longer over one call is ended: it hangs. Of its own time, since machines are shared."""


class Row(NamedTuple):
    """A file, by its path below $MEDSSL_DATA, and its scan, by the shape of its array (C, [K or T,] J, I)."""

    path: str
    outcome: str
    kind: str = ""
    shape: str = ""
    reason: str = ""


class Worker:
    """A process for one call at a time, and a new one after it died: a native decoder may end it and nothing else."""

    def __init__(self) -> None:
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool is not None:
            self._pool.shutdown()

    def call(self, function: Callable, *arguments: object):
        """What `function` returns; BrokenProcessPool where it ended its process or took longer than CPU_SECONDS."""
        if self._pool is None:
            self._pool = ProcessPoolExecutor(1, mp_context=get_context("spawn"))
        try:
            return self._pool.submit(_within_time, function, *arguments).result()
        except BrokenProcessPool:
            self._pool = None
            raise


def rows(data: Path) -> Iterator[Row]:
    """A row for every file and scan, sorted."""
    with Worker() as worker:
        for corpus in CORPORA:
            made = [row for end in worker.call(_ends, data / corpus) for row in _rows_of(end, data, worker)]
            yield from sorted(made)


def read_table() -> list[Row]:
    """The rows as committed."""
    with TABLE.open(newline="") as file:
        return [Row(*line) for line in list(csv.reader(file))[1:]]


def _rows_of(end: FoundScan | SkippedFile, data: Path, worker: Worker) -> list[Row]:
    if isinstance(end, SkippedFile):
        return [Row(str(end.path.relative_to(data)), "skip", reason=end.reason)]
    try:
        outcome = worker.call(_opened, end)
    except BrokenProcessPool:
        outcome = ("crash", "", "", "the process died")
    return [Row(str(path.relative_to(data)), *outcome) for path in end.paths]


def _ends(folder: Path) -> list[FoundScan | SkippedFile]:
    return list(find_scans(folder))


def _opened(found: FoundScan) -> tuple[str, ...]:
    try:
        scan = open_scan(found)
    except MedsslError as error:
        return "skip", "", "", error.what
    return "scan", scan.kind, "x".join(map(str, scan.array.shape)), ""


def _within_time(function: Callable, *arguments: object):
    signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS)  # whose signal ends the process, inside native code as well
    try:
        return function(*arguments)
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def _write() -> None:
    made = list(rows(Path(os.environ["MEDSSL_DATA"])))
    with TABLE.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(Row._fields)
        writer.writerows(made)


if __name__ == "__main__":
    _write()
