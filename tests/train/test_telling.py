"""medssl.train.bar, pace, metrics: a bar that is not fooled, a pace that adds up, figures that outlast a full disk."""

from __future__ import annotations

import json
import os
import pty
import resource
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from small_disks import ROOM
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from medssl.train import bar as bar_module
from medssl.train import pace as pace_module
from medssl.train.bar import Bar, note_of, spell
from medssl.train.metrics import Metrics
from medssl.train.pace import PACE, Pace, memory_gib


def steps(folder: Path) -> list[int]:
    """Of metrics.jsonl, every line of which must be whole."""
    return [json.loads(line)["step"] for line in (folder / "metrics.jsonl").read_text().splitlines()]


def board(folder: Path) -> EventAccumulator:
    return EventAccumulator(str(folder), size_guidance={"scalars": 0, "images": 0}).Reload()


def picture(value: int = 0) -> np.ndarray:
    return np.full((8, 12, 3), value, dtype=np.uint8)


def test_lines_and_board_hold_the_same_figures(tmp_path):
    metrics = Metrics(tmp_path, 0)
    for step in (0, 20):
        metrics.write(step, {"loss": 1 / (step + 3), "lr": 0.1})
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert lines == [{"step": 0, "loss": 0.333333, "lr": 0.1}, {"step": 20, "loss": 0.0434783, "lr": 0.1}]
    told = board(tmp_path).Scalars("loss")
    assert [event.step for event in told] == [0, 20]
    assert [event.value for event in told] == pytest.approx([1 / 3, 1 / 23])


def test_a_resumed_run_forgets_the_steps_that_it_does_again(tmp_path):
    first = Metrics(tmp_path, 0)
    for step in range(6):
        first.write(step, {"loss": 1.0})
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 6, "lo')
    again = Metrics(tmp_path, 4)
    assert steps(tmp_path) == [0, 1, 2, 3]
    again.write(4, {"loss": 2.0})
    assert steps(tmp_path) == [0, 1, 2, 3, 4]
    assert [(event.step, event.value) for event in board(tmp_path).Scalars("loss")] == [
        (0, 1), (1, 1), (2, 1), (3, 1), (4, 2)]


def test_a_killed_run_s_half_line_is_cut_off_where_nothing_is_done_again(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 0}\n{"step": 1}\n{"st')
    Metrics(tmp_path, 9).write(9, {})
    assert steps(tmp_path) == [0, 1, 9]


def test_pictures_are_files_of_their_last_step_and_all_on_the_board(tmp_path):
    metrics = Metrics(tmp_path, 0)
    for step in (10, 20):
        metrics.show(step, {"reconstructions": picture(step)})
    assert (np.asarray(Image.open(tmp_path / "reconstructions.png")) == 20).all()
    assert [event.step for event in board(tmp_path).Images("reconstructions")] == [10, 20]
    assert {path.suffix for path in tmp_path.iterdir()} == {".png"} | {p.suffix for p in tmp_path.glob("events.*")}


def outlasts(folder: Path, fill, free, caplog: pytest.LogCaptureFixture) -> None:
    """A run whose disk is full for a while loses the steps meanwhile, and nothing else."""
    metrics, step = Metrics(folder, 0), 0
    metrics.write(0, {"loss": 1.0})
    fill()
    while steps(folder)[-1] == step:
        step += 1
        assert step < ROOM, "the disk never was full"
        metrics.write(step, {"loss": 1.0})
        metrics.show(step, {"sample": picture()})
    full = steps(folder)
    for _ in range(50):
        step += 1
        metrics.write(step, {"loss": 1.0})
        metrics.show(step, {"sample": picture()})
    assert steps(folder) == full
    (warning,) = caplog.messages
    assert "the run goes on" in warning
    free()
    metrics.write(step + 1, {"loss": 0.5})
    metrics.show(step + 1, {"sample": picture(7)})
    assert steps(folder) == [*full, step + 1]
    assert board(folder).Scalars("loss")[-1].step == step + 1
    assert (np.asarray(Image.open(folder / "sample.png")) == 7).all()


def test_a_run_outlasts_a_limit_on_files(tmp_path, limited, caplog):
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    outlasts(tmp_path, lambda: (tmp_path / "metrics.jsonl").open("a").write('{"step": 0}\n' * (ROOM // 12 - 20)),
             lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard)), caplog)


def test_a_run_outlasts_a_full_disk(small_disk, caplog):
    ballast = small_disk / "ballast"
    outlasts(small_disk, lambda: ballast.write_bytes(bytes(ROOM - 6 * 4096)), ballast.unlink, caplog)


def test_a_folder_that_is_gone_costs_figures_only(tmp_path, caplog):
    metrics = Metrics(tmp_path / "gone", 0)
    shutil.rmtree(tmp_path / "gone")
    metrics.write(0, {"loss": 1.0})
    metrics.show(0, {"sample": picture()})
    assert len(caplog.messages) == 1
    (tmp_path / "gone").mkdir()
    metrics.write(1, {"loss": 1.0})
    assert steps(tmp_path / "gone") == [1]


def test_the_event_file_names_no_machine(tmp_path):
    Metrics(tmp_path, 0)
    (events,) = tmp_path.glob("events.*")
    assert socket.gethostname() not in events.name
    assert "tfevents" in events.name


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """[the seconds that every clock of the module shows]."""
    now = [1000.0]
    monkeypatch.setattr(bar_module.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(pace_module.time, "perf_counter", lambda: now[0])
    return now


def test_a_resumed_run_s_time_left_counts_what_this_process_did(clock, capsys):
    with Bar("pretrain", 1000) as bar:
        clock[0] += 30.0  # until it is ready
        for done in range(901, 921):
            clock[0] += 1.0
            bar(done, 1000, note="loss 0.5 · rank 41")
    told = capsys.readouterr().err.splitlines()
    assert told[0] == "pretrain: 901/1000, unknown left loss 0.5 · rank 41"
    assert told[-2] == "pretrain: 912/1000, 1 min 28 s left loss 0.5 · rank 41"
    assert told[-1] == "pretrain: 920 done in 50 s"


def test_a_fresh_run_s_time_left_counts_from_its_beginning(clock, capsys):
    with Bar("prepare") as bar:
        clock[0] += 11.0
        bar(1, 3)
    assert capsys.readouterr().err.splitlines()[0] == "prepare: 1/3, 22 s left"


TERMINAL = """
import time
from medssl.train.bar import Bar
with Bar("pretrain", 1000) as bar:
    for done in range(900, 921):
        bar(done, 1000, note="loss 0.5 · 512 cases/s")
        time.sleep(0.05)
"""


def test_a_terminal_shows_the_note_and_the_same_time_left():
    ours, theirs = pty.openpty()
    environment = {**os.environ, "COLUMNS": "120", "TERM": "xterm"}
    child = subprocess.Popen([sys.executable, "-c", TERMINAL], stderr=theirs, env=environment)
    os.close(theirs)
    shown = b""
    while True:
        try:
            piece = os.read(ours, 4096)
        except OSError:  # how a terminal without a process ends on Linux
            break
        if not piece:
            break
        shown += piece
    assert child.wait() == 0
    os.close(ours)
    text = shown.decode()
    assert "512 cases/s" in text
    assert "920/1000" in text
    assert int(text.rsplit("left ", 1)[1].split(" s")[0]) >= 4, "80 parts of 0.05 s or more"


@pytest.mark.parametrize(("seconds", "told"), [(0, "0 s"), (95, "1 min 35 s"), (7200, "2 h"), (1040500, "12 d 1 h")])
def test_spells(seconds, told):
    assert spell(seconds) == told


def test_a_note_tells_what_there_is_and_no_more():
    figures = {"cases_per_second": 5117.3, "effective_rank": 41.2, "feature_std": 0.8291, "share_training": 0.9312,
               "memory_gib": 2.114, "share_loading": 0.05, "knn.Edema": 0.7}
    told = "loss 0.412 · feature_std 0.829 · rank 41.2 · 5117 cases/s · 93.1 % training · 2.11 GiB"
    assert note_of(0.4123, figures) == told
    assert note_of(2.0, {}) == "loss 2"
    assert note_of(1.5e18, {}) == "loss 1.5e+18"


def test_shares_of_the_time_sum_to_one_and_are_of_the_time_since_the_last_call(clock):
    pace = Pace(steps_left=10)
    for _ in range(4):
        with pace.loading():
            clock[0] += 1.0
        with pace.augmenting():
            clock[0] += 2.0
        clock[0] += 1.0
        with pace.looking():
            clock[0] += 1.0
        pace.step(32)
    found = pace.figures()
    assert set(found) == set(PACE)
    assert found["cases_per_second"] == pytest.approx(4 * 32 / 20)
    shares = [found[f"share_{part}"] for part in ("loading", "augmenting", "looking", "training")]
    assert shares == pytest.approx([0.2, 0.4, 0.2, 0.2])
    assert found["seconds_left"] == pytest.approx(6 * 5)
    clock[0] += 5.0
    pace.step(10)
    later = pace.figures()
    assert later["cases_per_second"] == pytest.approx(2)
    assert (later["share_loading"], later["share_training"]) == (0, 1)
    assert later["seconds_left"] == pytest.approx(5 * 5)


def test_time_is_counted_where_a_part_fails(clock):
    pace = Pace()

    def fail() -> None:
        with pace.loading():
            clock[0] += 1.0
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    clock[0] += 1.0
    assert pace.figures()["share_loading"] == pytest.approx(0.5)
    assert "seconds_left" not in pace.figures()


HUNGRY = "import numpy; from medssl.train.pace import memory_gib; numpy.ones(2**26); print(memory_gib())"


def test_memory_is_the_peak_even_when_it_was_given_back():
    told = float(subprocess.run([sys.executable, "-c", HUNGRY], capture_output=True, check=True).stdout)
    assert told > 0.5
    assert memory_gib() > 0.05
