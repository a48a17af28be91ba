"""medssl.files: the old file or the new one, with its permissions, and the disk's own reason when it refuses."""

from __future__ import annotations

import errno
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from stat import S_ISDIR

import numpy as np
import polars as pl
import pytest
import safetensors.torch
import torch
from small_disks import ROOM

from medssl.files import DRAFT, whole, write_whole

BIG = np.random.default_rng(0).integers(0, 255, size=4 * ROOM, dtype=np.uint8)


def save_numpy(draft: Path) -> None:
    with draft.open("wb") as file:
        np.save(file, BIG)


def save_torch(draft: Path) -> None:
    with draft.open("wb") as file:
        torch.save(torch.from_numpy(BIG), file)


WRITERS: dict[str, Callable[[Path], object]] = {
    "numpy": save_numpy,
    "torch": save_torch,
    "polars": lambda draft: pl.DataFrame({"a": BIG}).write_parquet(draft),
    "safetensors": lambda draft: safetensors.torch.save_file({"a": torch.from_numpy(BIG)}, draft),
    "bytes": lambda draft: draft.write_bytes(BIG.tobytes()),
}
"""What medssl writes with; they report a full disk in five ways, and numpy without an errno."""


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
def test_every_writer_is_moved_into_place_whole(tmp_path, write):
    with whole(tmp_path / "a.bin") as draft:
        write(draft)
        assert not (tmp_path / "a.bin").exists()
    assert (tmp_path / "a.bin").stat().st_size >= BIG.nbytes
    assert [path.name for path in tmp_path.iterdir()] == ["a.bin"]


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
def test_a_limit_on_files_is_told_as_such_and_costs_nothing(tmp_path, limited, write):
    refused(tmp_path / "a.bin", write, errno.EFBIG)


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
def test_a_full_disk_is_told_as_such_and_costs_nothing(small_disk, write):
    refused(small_disk / "a.bin", write, errno.ENOSPC)


def refused(path: Path, write: Callable[[Path], object], reason: int) -> None:
    path.write_text("old")
    with pytest.raises(OSError, match=os.strerror(reason)) as caught, whole(path) as draft:
        write(draft)
    assert caught.value.errno == reason
    assert caught.value.filename == str(path)
    assert path.read_text() == "old"
    assert list(path.parent.iterdir()) == [path]


def test_an_error_of_the_writer_is_its_own_and_leaves_the_old_file(tmp_path):
    write_whole(tmp_path / "a.txt", "old")
    with pytest.raises(ZeroDivisionError), whole(tmp_path / "a.txt") as draft:
        draft.write_text(str(1 // 0))
    assert (tmp_path / "a.txt").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


@pytest.mark.parametrize(("place", "kind"), [("nowhere/a", FileNotFoundError), ("folder", IsADirectoryError)])
def test_a_place_that_cannot_be_written_is_named_not_its_draft(tmp_path, place, kind):
    (tmp_path / "folder/within").mkdir(parents=True)
    with pytest.raises(kind) as caught:
        write_whole(tmp_path / place, "x")
    assert caught.value.filename == str(tmp_path / place)
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


@pytest.mark.parametrize("mode", [0o600, 0o666])
def test_nobody_may_read_more_than_the_mode_says_not_even_for_a_moment(tmp_path, mode):
    old = os.umask(0o022)
    try:
        with whole(tmp_path / "a", mode=mode) as draft:
            assert stat.S_IMODE(draft.stat().st_mode) == mode & ~0o022
            draft.write_text("x")
        assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == mode & ~0o022
    finally:
        os.umask(old)


def test_a_killed_writer_leaves_the_old_file_and_a_hidden_draft(tmp_path):
    write_whole(tmp_path / "a.txt", "old")
    code = ("import os, signal, sys; from medssl.files import whole\n"
            "with whole(sys.argv[1]) as draft:\n"
            "    draft.write_text('half')\n"
            "    os.kill(os.getpid(), signal.SIGKILL)\n")
    assert subprocess.run([sys.executable, "-c", code, tmp_path / "a.txt"]).returncode == -signal.SIGKILL
    assert (tmp_path / "a.txt").read_text() == "old"
    assert [path.suffix for path in tmp_path.glob(".a.txt.*")] == [DRAFT]


def test_a_durable_file_is_synced_before_it_is_moved_and_its_folder_afterwards(tmp_path, monkeypatch):
    events = []
    monkeypatch.setattr(os, "fsync", lambda opened: events.append("folder" if S_ISDIR(os.fstat(opened).st_mode)
                                                                  else "file"))
    monkeypatch.setattr(os, "replace", lambda *_: events.append("move"))
    write_whole(tmp_path / "a", "x")
    with whole(tmp_path / "b", durable=False):
        pass
    assert events == ["file", "move", "folder", "move"]
