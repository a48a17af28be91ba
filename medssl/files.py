"""Files written whole or not at all: beside their place, then moved over it, so that nobody ever reads half of one."""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import polars as pl

DRAFT = ".part"
"""How the names of drafts end; a killed process leaves its draft behind."""
BLOCK = 1 << 16
"""Bytes; more than a file system still has to give after it has refused a write."""


@contextmanager
def whole(path: str | Path, *, mode: int = 0o666, durable: bool = True) -> Iterator[Path]:
    """An empty draft beside `path`, to be written by its name; moved over `path` at the end, removed where that fails.

    Args:
        mode: permissions, less the umask, from the first moment on.
        durable: on the disk before it is moved, so that even a power cut leaves the old file or the new one. Without,
            a power cut may leave an empty file; a killed process never does.

    Raises:
        OSError: naming `path`, with the disk's own reason, whatever the library that was writing made of it.
    """
    path = Path(path)
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}{DRAFT}")  # hidden, and of no ending that readers know
    try:
        os.close(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode))
        allowed = draft.stat().st_mode
        yield draft
        os.chmod(draft, allowed)  # safetensors puts a file of its own in the draft's place
        if durable:
            with draft.open("rb") as file:
                os.fsync(file.fileno())
        os.replace(draft, path)
        if durable:
            _keep_name(path)
    except Exception as error:
        reason = error if isinstance(error, OSError) and error.errno else _told(error) or _refusal(draft)
        if reason and reason.filename in (None, str(draft)):
            raise OSError(reason.errno, reason.strerror, str(path)) from error
        raise
    finally:
        draft.unlink(missing_ok=True)


def write_whole(path: str | Path, content: str | bytes, *, mode: int = 0o666) -> None:
    """Text (UTF-8) or bytes as a file, whole or not at all; OSError as for `whole`."""
    with whole(path, mode=mode) as draft:
        draft.write_bytes(content.encode() if isinstance(content, str) else content)


def write_table(path: str | Path, table: pl.DataFrame, *, mode: int = 0o666) -> None:
    """A table as CSV where `path` ends in .csv, and as Parquet elsewhere, whole or not at all; OSError as for
    `whole`."""
    with whole(path, mode=mode) as draft:
        (table.write_csv if Path(path).suffix == ".csv" else table.write_parquet)(draft)


def clear_drafts(folder: Path) -> None:
    """Removes the drafts that killed processes left in a folder that is this process's alone."""
    for draft in folder.glob(f".*{DRAFT}"):
        draft.unlink(missing_ok=True)


def append_whole(path: str | Path, piece: bytes) -> None:
    """Adds all of `piece` to the end of a file, or nothing; OSError where it cannot, or the file is a link."""
    with open(path, "ab", buffering=0, opener=lambda name, how: os.open(name, how | os.O_NOFOLLOW, 0o666)) as file:
        end = file.seek(0, os.SEEK_END)
        try:
            while piece:
                piece = piece[file.write(piece):]
        except OSError as error:
            file.truncate(end)
            raise OSError(error.errno, error.strerror, str(path)) from error


def _keep_name(path: Path) -> None:
    """Brings to the disk that the file goes by its new name now."""
    with suppress(OSError):  # some network file systems know no such thing of a folder
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _told(error: Exception) -> OSError | None:
    """The reason that a library in Rust (polars, safetensors) quotes in an error of its own."""
    found = re.search(r"\(os error (\d+)\)", str(error))
    return OSError(int(found[1]), os.strerror(int(found[1]))) if found else None


def _refusal(draft: Path) -> OSError | None:
    """What the disk says to one more block: numpy and torch hide that it is full."""
    try:
        with draft.open("r+b", buffering=0) as file:
            file.seek(0, os.SEEK_END)
            for _ in range(2):  # the first may be cut short without an error; the second then says why
                file.write(bytes(BLOCK))
            os.fsync(file.fileno())
    except OSError as error:
        return None if isinstance(error, FileNotFoundError) else error
    return None
