"""medssl.data.prepare under kills, full disks and neighbours: nothing is lost, done twice, or taken for another."""

from __future__ import annotations

import ctypes
import errno
import logging
import mmap
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event

import numpy as np
import polars as pl
import pytest
from small_sets import make

from medssl.data import index
from medssl.data.cache import memory_map, prefetch
from medssl.data.manifest import Manifest
from medssl.data.prepare import Cache, PrepareConfig, prepare
from medssl.data.source import DataConfig, open_data
from medssl.errors import RunError
from medssl.files import DRAFT
from medssl.io.write import write_png
from medssl.rng import stream

IMAGES = {"kind": "image", "files": {"image": "{case}.png"}}
CONFIG = PrepareConfig(intensity="range")
FOLDER = CONFIG.digest()


def pictures(folder: Path, count: int = 3, side: int = 4) -> Manifest:
    for number in range(count):
        image = stream("resume", str(folder), number).integers(1, 255, size=(side, side)).astype(np.uint8)
        write_png(folder / f"case{number}.png", image)
    return make(folder, **IMAGES)


def values(cache: Cache) -> dict[str, np.ndarray]:
    return {case_id: cache.array(case_id).copy() for case_id in cache.case_ids}


def assert_same(found: Cache, expected: Cache) -> None:
    assert found.case_ids == expected.case_ids
    for case_id, array in values(expected).items():
        np.testing.assert_array_equal(found.array(case_id), array)


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The case ids that are decoded in this process, as they are."""
    from medssl.data import prepare as module

    seen, real = [], module.decode
    monkeypatch.setattr(module, "decode", lambda case_id, *rest: seen.append(case_id) or real(case_id, *rest))
    return seen


# ------------------------------------------------------------------------------------------------------------ kills

KILLED = """
import os, signal, sys
from pathlib import Path
from medssl.data import pool
from medssl.data.manifest import Manifest
from medssl.data.prepare import PrepareConfig, prepare

def progress(done, total):
    if done == 5:
        os.kill(os.getpid(), signal.SIGKILL)

pool.HEAVY = ["medssl.data.prepare"]  # MONAI, which is not needed here, would take seconds to import

if __name__ == "__main__":
    folder, workers = Path(sys.argv[1]), int(sys.argv[2])
    prepare(Manifest.load(folder / "m.parquet"), folder / "cache", PrepareConfig(intensity="range"), workers, progress)
"""


@pytest.mark.parametrize("workers", [0, 2])
def test_a_killed_process_goes_on_where_it_was(tmp_path, decoded, workers):
    manifest = pictures(tmp_path / "in", 24, side=32)
    manifest.save(tmp_path / "m.parquet")
    (tmp_path / "killed.py").write_text(KILLED)
    killed = subprocess.run([sys.executable, tmp_path / "killed.py", tmp_path, str(workers)], capture_output=True,
                            timeout=120)  # returns once the workers, which hold its pipes too, have ended
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    folder = tmp_path / "cache" / FOLDER
    done = index.read(folder)["case_id"].to_list()
    assert 5 <= len(done) < 24
    (folder / f".left.npy.0{DRAFT}").write_bytes(b"half")
    cache, report = prepare(manifest, tmp_path / "cache", CONFIG, workers=0)
    assert sorted(decoded) == sorted(set(cache.case_ids) - set(done))
    assert (report.prepared, report.reused) == (24 - len(done), len(done))
    assert_same(cache, prepare(manifest, tmp_path / "other", CONFIG, workers=0)[0])
    assert not list(folder.glob(f"*{DRAFT}"))
    assert len(list(folder.glob("*.npy"))) == 24


def test_arrays_that_a_power_cut_emptied_are_made_again(tmp_path, decoded):
    manifest = pictures(tmp_path / "in")
    cache, _ = prepare(manifest, tmp_path / "cache", CONFIG, workers=0)
    expected = values(cache)
    next((tmp_path / "cache" / FOLDER).glob("*.npy")).write_bytes(b"")
    again, report = prepare(manifest, tmp_path / "cache", CONFIG, workers=0)
    assert (report.prepared, report.reused) == (1, 2)
    assert len(decoded) == 4
    for case_id in again.case_ids:
        array = np.load(tmp_path / "cache" / FOLDER / f"{address_of(again, case_id)}.npy")
        np.testing.assert_array_equal(array, expected[case_id])


def address_of(cache: Cache, case_id: str) -> str:
    rows = index.read(cache.folder)
    return rows.filter(pl.col("case_id") == case_id)["address"][0]


# -------------------------------------------------------------------------------------------------------- full disks

@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 KiB, where this user may mount one."""
    place = tmp_path / "disk"
    place.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", place], capture_output=True).returncode:
        pytest.skip("this user may not mount a small disk")
    yield place
    subprocess.run(["umount", place], check=True)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_full_disk_is_one_clear_message_and_what_is_prepared_stays(tmp_path, small_disk, decoded, workers):
    manifest = pictures(tmp_path / "in", 20, side=128)  # 32 KiB each when prepared
    with pytest.raises(RunError, match="cache cannot be written: No space left on device.*Remedy: free space"):
        prepare(manifest, small_disk / "cache", CONFIG, workers=workers)
    folder = small_disk / "cache" / FOLDER
    done = index.read(folder).filter(pl.col("address").is_not_null())
    assert 1 <= len(done) < 20
    assert len(list(folder.glob("*.npy"))) < 20
    assert all(np.load(folder / f"{address}.npy").shape == (1, 128, 128) for address in done["address"])
    subprocess.run(["mount", "-o", "remount,size=4m", small_disk], check=True)
    decoded.clear()
    cache, report = prepare(manifest, small_disk / "cache", CONFIG, workers=0)
    assert len(cache) == 20
    assert (report.reused, len(decoded)) == (len(done), 20 - len(done))
    assert len(report.skipped) == 0


def test_what_is_prepared_is_read_from_a_disk_that_nobody_may_write_to(tmp_path, small_disk):
    manifest = pictures(tmp_path / "in", 2)
    prepare(manifest, small_disk / "cache", CONFIG, workers=0)
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    assert prepare(manifest, small_disk / "cache", CONFIG, workers=0)[1].reused == 2
    with pytest.raises(RunError, match="cache cannot be written: Read-only file system"):
        prepare(pictures(tmp_path / "new", 2), small_disk / "cache", CONFIG, workers=0)


def test_a_limit_on_files_is_no_reason_to_skip_a_case(tmp_path):
    manifest = pictures(tmp_path / "in", 2, side=512)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, hard))
    try:
        with pytest.raises(RunError, match="cannot be written: " + os.strerror(errno.EFBIG)):
            prepare(manifest, tmp_path / "cache", CONFIG, workers=0)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert prepare(manifest, tmp_path / "cache", CONFIG, workers=0)[1].prepared == 2


def test_a_line_cut_short_costs_that_line_alone(tmp_path):
    rows = [dict.fromkeys(index.COLUMNS) | {"case_id": f"c{number}", "stamp": "s"} for number in range(3)]
    for row in rows[:2]:
        index.append(tmp_path, row)
    journal = tmp_path / "journal.jsonl"
    journal.write_bytes(journal.read_bytes()[:-20])
    index.append(tmp_path, rows[2])
    assert index.read(tmp_path)["case_id"].to_list() == ["c0", "c2"]


# -------------------------------------------------------------------------------------------------------- neighbours

def wait_until(holds: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "still waiting"
        time.sleep(0.05)


def test_two_at_once_take_turns_and_lose_nothing(tmp_path, caplog):
    ours, theirs = pictures(tmp_path / "a", 4), pictures(tmp_path / "b", 5)
    begun, may_go_on = Event(), Event()

    def stop(done: int, total: int) -> None:
        begun.set()
        assert may_go_on.wait(30)

    with ThreadPoolExecutor(2) as pool, caplog.at_level(logging.WARNING):
        first = pool.submit(prepare, ours, tmp_path / "cache", CONFIG, 0, stop)
        assert begun.wait(30)
        second = pool.submit(prepare, theirs, tmp_path / "cache", CONFIG, 0)
        wait_until(lambda: "another process prepares" in caplog.text)
        assert len(index.read(tmp_path / "cache" / FOLDER)) == 1
        may_go_on.set()
        reports = [job.result()[1] for job in (first, second)]
    assert [(report.prepared, report.reused) for report in reports] == [(4, 0), (5, 0)]
    assert len(index.read(tmp_path / "cache" / FOLDER)) == 9
    for manifest in (ours, theirs):
        assert prepare(manifest, tmp_path / "cache", CONFIG, workers=0)[1].prepared == 0


def test_who_waited_for_the_same_cases_does_none_of_them_again(tmp_path, decoded):
    manifest = pictures(tmp_path / "in", 4)
    begun, may_go_on = Event(), Event()
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(prepare, manifest, tmp_path / "cache", CONFIG, 0,
                            lambda *_: begun.set() or may_go_on.wait(30))
        assert begun.wait(30)
        second = pool.submit(prepare, manifest, tmp_path / "cache", CONFIG, 0)
        may_go_on.set()
        assert first.result()[1].prepared == 4
        assert second.result()[1].prepared == 0
    assert len(decoded) == 4


def test_without_locks_two_at_once_lose_nothing_either(tmp_path, monkeypatch):
    import fcntl

    def no_locks(*_) -> None:
        raise OSError(errno.ENOTSUP, "not supported")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    ours, theirs = pictures(tmp_path / "a", 3), pictures(tmp_path / "b", 3)
    prepare(ours, tmp_path / "cache", CONFIG, 0,
            lambda done, _: done == 1 and prepare(theirs, tmp_path / "cache", CONFIG, workers=0))
    for manifest in (ours, theirs):
        assert prepare(manifest, tmp_path / "cache", CONFIG, workers=0)[1].prepared == 0


def test_two_copies_of_a_folder_share_a_cache_and_neither_is_decoded_again(tmp_path, decoded):
    ours = pictures(tmp_path / "a")
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    for path in (tmp_path / "b").iterdir():
        os.utime(path, ns=(1, 1))
    theirs = make(tmp_path / "b", **IMAGES)
    assert theirs.cases.equals(ours.cases)
    cache, _ = prepare(ours, tmp_path / "cache", CONFIG, workers=0)
    for manifest in (theirs, ours, theirs):
        found, report = prepare(manifest, tmp_path / "cache", CONFIG, workers=0)
        assert_same(found, cache)
    assert len(decoded) == 3
    assert report.prepared == 0


def test_two_folders_with_the_same_names_share_a_cache_and_keep_their_own_pixels(tmp_path, decoded):
    manifests = [pictures(tmp_path / name) for name in "ab"]
    expected = [prepare(each, tmp_path / f"alone{number}", CONFIG, workers=0)[0]
                for number, each in enumerate(manifests)]
    decoded.clear()
    for number in (0, 1, 0, 1):
        assert_same(prepare(manifests[number], tmp_path / "cache", CONFIG, workers=0)[0], expected[number])
    assert len(decoded) == 6


# ------------------------------------------------------------------------------------------------------ skips and all

def test_files_that_change_while_they_are_read_are_not_taken(tmp_path, monkeypatch):
    from medssl.data import prepare as module

    manifest, real = pictures(tmp_path / "in", 2), module.decode
    touched = manifest.cases["case_id"][0]

    def decode(case_id, files, config):
        if case_id == touched:
            os.utime(files.all()[0], ns=(1, 1))
        return real(case_id, files, config)

    monkeypatch.setattr(module, "decode", decode)
    report = prepare(manifest, tmp_path / "cache", CONFIG, workers=0)[1]
    assert report.skipped["case_id"].to_list() == [touched]
    assert "changed while they were read" in report.skipped["reason"][0]
    monkeypatch.undo()
    assert prepare(manifest, tmp_path / "cache", CONFIG, workers=0)[1].prepared == 1


def test_every_skip_stands_in_a_table_whose_place_is_told(tmp_path, caplog):
    pictures(tmp_path / "in", 15)
    for number in range(12):
        (tmp_path / f"in/case{number}.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing more")
    manifest = make(tmp_path / "in", **IMAGES)
    manifest.save(tmp_path / "m.parquet")
    config = DataConfig(manifest=tmp_path / "m.parquet", cache=tmp_path / "cache", prepare=CONFIG)
    data = open_data(config)
    [table] = (tmp_path / "cache" / FOLDER).glob("skipped.*.csv")
    assert str(table) in caplog.text
    assert "and 2 more" in caplog.text
    told = pl.read_csv(table)
    assert told.columns == ["case_id", "reason", "remedy"]
    assert sorted(told["case_id"]) == sorted(data.skipped["case_id"])
    assert len(told) == 12
    assert told.null_count().sum_horizontal()[0] == 0
    assert "case1" not in table.read_text()
    assert str(tmp_path) not in table.read_text()
    caplog.clear()
    pictures(tmp_path / "in", 15)
    open_data(config)
    assert not table.exists()
    assert caplog.text == ""


def test_a_case_costs_a_reader_little_memory(tmp_path):
    rows = pl.DataFrame([{"case_id": f"c{number:016x}", "stamp": "0" * 16, "address": f"{number:032x}",
                          "shape": [1, 320, 320], "spacing": [0.1, 0.1], "has_mask": False, "reason": None,
                          "remedy": None} for number in range(2000)], schema=index.COLUMNS)
    cache = Cache(tmp_path, rows.sample(fraction=1, shuffle=True, seed=1))
    held = sum(part.nbytes for part in vars(cache).values() if isinstance(part, np.ndarray))
    assert held < 120 * 2000
    assert all(not isinstance(part, (dict, list, pl.DataFrame)) for part in vars(cache).values())
    assert cache.case_ids == rows["case_id"].to_list()
    assert cache.shape("c000000000000002a") == (1, 320, 320)
    assert "c000000000000002a" in cache
    assert "c000000000000002ab" not in cache
    with pytest.raises(KeyError):
        cache.shape("nobody")


# --------------------------------------------------------------------------------------------------------- memory maps

def test_more_cases_are_mapped_than_files_may_be_open(tmp_path):
    for number in range(80):
        np.save(tmp_path / f"{number}.npy", np.full((1, 2, 3), number, np.float16))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + 40, hard))
    try:
        maps = [memory_map(str(tmp_path / f"{number}.npy")) for number in range(80)]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert [found.tolist() for found in maps] == [np.full((1, 2, 3), number).tolist() for number in range(80)]
    with pytest.raises(ValueError, match="read-only"):
        maps[0][0] = 1


def test_a_map_of_a_file_cut_short_is_refused(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((2, 3), np.uint8))
    (tmp_path / "a.npy").write_bytes((tmp_path / "a.npy").read_bytes()[:-1])
    with pytest.raises(RunError, match=r"cut short.*\(2, 3\).*prepare again"):
        memory_map(str(tmp_path / "a.npy"))


def test_a_box_is_asked_for_before_it_is_read(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((2, 6, 300, 301), np.float16))
    memory_map.cache_clear()
    with open(tmp_path / "a.npy", "rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    array = memory_map(str(tmp_path / "a.npy"))
    if is_kept(array, 1, 2, 100):
        pytest.skip("this file system cannot forget a file")
    prefetch(array[1:, 2:6:3, 100:130, 50:90])
    wait_until(lambda: all(is_kept(array, 1, k, j) for k in (2, 5) for j in (100, 129)), 10)
    assert not is_kept(array, 1, 1, 100)


def is_kept(array: np.ndarray, *place: int) -> bool:
    """Whether the kernel has the page of a memory map's element in memory."""
    address, found = array[place].__array_interface__["data"][0], ctypes.c_ubyte()
    start = ctypes.c_void_p(address & -mmap.PAGESIZE)
    assert ctypes.CDLL(None).mincore(start, ctypes.c_size_t(1), ctypes.byref(found)) == 0
    return bool(found.value & 1)
