"""The index of a cache folder: what is prepared from which files. No kill, full disk or neighbour costs it a row.

`index.parquet` holds a row for every case and state of its files. While cases are being prepared, each one's row is
appended to `journal.jsonl` as soon as its arrays are in place; at the end the journal is folded into the table.
"""

from __future__ import annotations

import errno
import json
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

import polars as pl

from medssl.data.parquet import read_parquet
from medssl.errors import RunError
from medssl.files import DRAFT, write_table

log = logging.getLogger(__name__)

COLUMNS = {"case_id": pl.String, "stamp": pl.String, "address": pl.String, "shape": pl.List(pl.Int64),
           "spacing": pl.List(pl.Float64), "has_mask": pl.Boolean, "lost_labels": pl.List(pl.Int64),
           "reason": pl.String, "remedy": pl.String}
"""stamp: the state of the case's files. address: None where they could not be prepared, for `reason`.
lost_labels: as `Sample` has it; null in what an earlier version prepared."""
ADDRESS = r"^[0-9a-f]{32}$"
_TABLE, _JOURNAL, _LOCK = "index.parquet", "journal.jsonl", "lock"
_LINES = 10_000


def is_there(folder: Path) -> bool:
    return (folder / _TABLE).is_file() or (folder / _JOURNAL).is_file()


def read(folder: Path) -> pl.DataFrame:
    """Every row, of each case and stamp the latest; no rows where nothing is prepared yet.

    RunError where the index is no such table, or leads to files that are not the cache's own.
    """
    try:
        journal = list(_journal(folder))  # before the table: whoever folds it in removes it last
        table = [_of_today(read_parquet(folder / _TABLE)[0])] if (folder / _TABLE).is_file() else []
        rows = pl.concat([pl.DataFrame(schema=COLUMNS), *table, *journal])
    except (ValueError, TypeError, pl.exceptions.PolarsError) as error:
        raise _strange(folder, str(error).splitlines()[0]) from None
    if not rows["address"].str.contains(ADDRESS).all():
        raise _strange(folder, "it names arrays by what is no digest")
    return rows.unique(["case_id", "stamp"], keep="last", maintain_order=True) if journal else rows


def _of_today(table: pl.DataFrame) -> pl.DataFrame:
    """With the column that earlier versions did not write."""
    if "lost_labels" not in table.columns:
        table = table.with_columns(lost_labels=pl.lit(None, COLUMNS["lost_labels"]))
    return table.select(list(COLUMNS))


def _strange(folder: Path, how: str) -> RunError:
    return RunError(f"The index of the cache {folder} cannot be used: {how}", expected="as medssl prepare wrote it",
                    remedy="remove that folder, and prepare the cases again")


def append(folder: Path, row: dict) -> None:
    """Adds a row; any process may. A line is one write, and one that a full disk cut short spoils no other."""
    line = f"\n{json.dumps(row)}\n".encode()
    journal = os.open(folder / _JOURNAL, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    try:
        while line:
            line = line[os.write(journal, line):]
    finally:
        os.close(journal)


@contextmanager
def written_by_one(folder: Path) -> Iterator[None]:
    """Around all `append`s: waits while another process prepares into the folder, and folds the journal at the end.

    The lock is the kernel's, and ends with its process, however that ends. Where a file system has none, processes go
    side by side, and the journal is left for a later run to read.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / _LOCK, "a") as lock:
        alone = _locked(lock.fileno(), folder)
        if alone:
            _sweep(folder)
        yield
        if alone:
            write_table(folder / _TABLE, read(folder))
            (folder / _JOURNAL).unlink(missing_ok=True)


def _locked(lock: int, folder: Path) -> bool:
    from fcntl import LOCK_EX, LOCK_NB, flock

    try:
        try:
            flock(lock, LOCK_EX | LOCK_NB)
        except BlockingIOError:
            log.warning("another process prepares cases with the same settings into %s: waiting for its end", folder)
            flock(lock, LOCK_EX)
    except OSError as error:
        if error.errno not in (errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK):
            raise
        return False
    return True


def _sweep(folder: Path) -> None:
    """Removes what killed processes left half written."""
    for entry in os.scandir(folder):
        if entry.name.endswith(DRAFT):
            os.unlink(entry)


def _journal(folder: Path) -> Iterator[pl.DataFrame]:
    """The journal's whole lines; a full disk may have cut some short."""
    if not (folder / _JOURNAL).is_file():
        return
    with open(folder / _JOURNAL, "rb") as file:
        while lines := list(islice(file, _LINES)):
            yield pl.DataFrame([row for line in lines if (row := _row(line))], schema=COLUMNS)


def _row(line: bytes) -> dict | None:
    try:
        return json.loads(line)
    except ValueError:
        return None
