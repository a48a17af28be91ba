"""medssl.data.pool: a decoder that crashes or hangs costs its own case, and neither the program nor a neighbour."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import time
from pathlib import Path

import polars as pl
import pytest
from small_sets import make

import medssl.data.checks.facts
import medssl.data.prepare
from medssl.data import pool
from medssl.data.checks import check, gather
from medssl.data.manifest import Manifest
from medssl.data.pool import LOST, cores, results
from medssl.data.prepare import PrepareConfig, prepare
from medssl.errors import RunError
from medssl.io.write import write_png
from medssl.rng import stream

CRASHES, KILLS, HANGS, FAILS = 3, 11, 12, 4
_prepare_case, _read_case = medssl.data.prepare._prepare_case, medssl.data.checks.facts._read_case


def double(number: int) -> int:
    if number == CRASHES:
        os.abort()
    if number == KILLS:
        os.kill(os.getpid(), 9)
    return 2 * number


def double_or_hang(number: int) -> int:
    if number == HANGS:
        ctypes.PyDLL(None).sleep(600)  # holds the interpreter's lock, as a decoder that loops does
    return 2 * number


def double_or_fail(number: int) -> int:
    if number == FAILS:
        raise ValueError("four")
    return 2 * number


def lost(number: int) -> str:
    return f"lost {number}"


@pytest.mark.parametrize("workers", [1, 2])
def test_a_crash_costs_its_own_job_alone(workers):
    found = list(results(double, range(20), workers, lost))
    assert sorted(map(str, found)) == sorted(
        [str(2 * number) for number in range(20) if number not in (CRASHES, KILLS)] + ["lost 3", "lost 11"])


def test_a_job_that_holds_the_interpreter_ends_at_the_deadline(monkeypatch):
    monkeypatch.setattr(pool, "DEADLINE", 1.0)
    began = time.monotonic()
    found = list(results(double_or_hang, range(HANGS - 2, HANGS + 3), 2, lost))
    assert time.monotonic() - began < 60
    assert sorted(map(str, found)) == sorted(["20", "22", "lost 12", "26", "28"])


def test_the_deadline_is_each_job_s_own(monkeypatch):
    monkeypatch.setattr(pool, "DEADLINE", 2.0)
    assert list(results(time.sleep, [0.5] * 6, 1, lost)) == [None] * 6


def test_an_error_of_a_job_is_raised_as_it_is():
    with pytest.raises(ValueError, match="four"):
        list(results(double_or_fail, range(8), 2, lost))


def test_jobs_are_drawn_a_few_at_a_time():
    drawn = []
    jobs = (drawn.append(number) or number for number in range(100))
    for count, _ in enumerate(results(abs, jobs, 2, lost), start=1):
        assert len(drawn) <= count + 2 * pool.AHEAD
    assert drawn == list(range(100))


def write_after(path: Path) -> None:
    path.with_suffix(".begun").touch()
    time.sleep(5)
    path.touch()


def stop_in_the_middle_of(job: Path) -> None:
    with pool.worker_pool(1, print) as workers:
        workers.submit(write_after, job)
        while not job.with_suffix(".begun").is_file():
            time.sleep(0.05)
        raise KeyboardInterrupt


def test_told_to_stop_it_does_not_wait_for_the_jobs_at_hand(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        stop_in_the_middle_of(tmp_path / "job")
    assert not (tmp_path / "job").is_file()


def test_without_workers_all_is_done_in_this_process():
    assert list(results(lambda number: os.getpid() + number, range(2), 0, lost)) == [os.getpid(), os.getpid() + 1]


UNGUARDED = """
from medssl.data import pool
pool.HEAVY = []
print(list(pool.results(abs, range(3), 2, abs)))
"""


def test_workers_that_cannot_start_are_no_job_s_fault(tmp_path):
    (tmp_path / "unguarded.py").write_text(UNGUARDED)
    told = subprocess.run([sys.executable, tmp_path / "unguarded.py"], capture_output=True, text=True, timeout=120)
    assert told.returncode == 1
    assert f"{RunError.__module__}.{RunError.__name__}: A worker process was killed" in told.stderr
    assert "__main__" in told.stderr.splitlines()[-1]
    assert "[" not in told.stdout


def test_cores_are_those_that_the_scheduler_gives(monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3, 5, 8})
    assert cores() == 3


# ------------------------------------------------------------------------------------------------------------ its users

@pytest.fixture
def pictures(tmp_path: Path) -> Manifest:
    for number in range(3):
        pixels = stream("pool", number).integers(1, 255, size=(6, 7)).astype("uint8")
        write_png(tmp_path / f"in/case{number}.png", pixels)
    return make(tmp_path / "in", kind="image", files={"image": "{case}.png"})


def crash_on_case1(job):
    if job.files.all()[0].name == "case1.png":
        os.abort()
    return _prepare_case(job)


def crash_reading_case1(job):
    if job[1].all()[0].name == "case1.png":
        os.abort()
    return _read_case(job)


def test_prepare_skips_the_case_by_name_and_keeps_the_others(tmp_path, pictures, monkeypatch):
    monkeypatch.setattr(medssl.data.prepare, "_prepare_case", crash_on_case1)
    cache, report = prepare(pictures, tmp_path / "cache", PrepareConfig(intensity="range"), workers=2)
    assert len(cache.case_ids) == report.prepared == 2
    assert report.skipped["reason"].to_list() == [LOST]
    assert report.skipped["case_id"][0] not in cache.case_ids
    monkeypatch.undo()
    cache, report = prepare(pictures, tmp_path / "cache", PrepareConfig(intensity="range"), workers=2)
    assert (report.prepared, report.reused) == (1, 2)  # a skip is asked again: more memory may have helped


def test_check_names_the_case(pictures, monkeypatch):
    monkeypatch.setattr(medssl.data.checks.facts, "_read_case", crash_reading_case1)
    facts = gather(pictures, workers=2)
    assert facts["case_id"].to_list() == pictures.cases["case_id"].to_list()
    assert facts.filter(pl.col("what").is_not_null())["what"].to_list() == [LOST]
    assert [one for one in check(pictures, facts) if one.level == "error" and LOST in one.what]
