"""Never lost: real processes are killed, stopped, starved of memory and of disk, and end as if nothing had happened."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import (
    RUNS,
    VIT,
    differences,
    left_behind,
    processes_of,
    start,
    steps_done,
    wait_for_step,
    write_recipe,
)
from kills import killed_till_it_ends
from safetensors.torch import load_file
from small_disks import disk
from soak import GROWTH, growth

from medssl.recipe import load_recipe
from medssl.train.pretrain import pretrain
from medssl.train.run import held

MAE, SIMSIAM, *_ = RUNS


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, discs) -> Path:
    """A run that nobody harmed."""
    folder = tmp_path_factory.mktemp("whole")
    process = start(write_recipe(folder, discs, MAE), folder / "run")
    _, told = process.communicate(timeout=120)
    assert process.returncode == 0, told
    return folder / "run"


def test_a_run_that_is_killed_again_and_again_ends_bit_equal(tmp_path, discs, whole):
    recipe = write_recipe(tmp_path, discs, MAE)
    lives = list(killed_till_it_ends(recipe, tmp_path / "run", random.Random(1), most=3))
    assert sum(life["killed"] for life in lives) >= 1
    assert differences(whole, tmp_path / "run") == []
    assert not list((tmp_path / "run").rglob(".*.part"))


@pytest.mark.skipif(not Path("/proc/self/environ").is_file(), reason="no /proc to find processes by")
def test_killed_before_what_reads_ahead_is_up_it_leaves_no_process_behind(tmp_path, discs):
    (reads_ahead,) = (name for name, recipe in RUNS.items() if recipe.get("train", {}).get("workers"))
    process = start(write_recipe(tmp_path, discs, reads_ahead), tmp_path / "run")
    while not list(processes_of(tmp_path / "run", "spawn_main")):
        assert process.poll() is None
        time.sleep(0.01)
    process.kill()
    process.wait()
    assert not left_behind(tmp_path / "run", patience=90)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT])
def test_asked_to_stop_it_writes_a_checkpoint_first(tmp_path, discs, whole, number):
    recipe = write_recipe(tmp_path, discs, MAE, workers=1)
    process = start(recipe, tmp_path / "run", "train.checkpoint_seconds=9999")
    assert wait_for_step(process, tmp_path / "run", 3)
    os.killpg(process.pid, number)  # the whole group's, as a terminal and a cluster do it
    _, told = process.communicate(timeout=120)
    done = steps_done(tmp_path / "run")
    assert process.returncode == 128 + number, told
    assert f"Stopped by {number.name} after step {done}, with a checkpoint" in told
    assert (tmp_path / "run/checkpoints/last.ckpt").is_file()
    process = start(recipe, tmp_path / "run")
    _, told = process.communicate(timeout=120)
    assert process.returncode == 0, told
    assert differences(whole, tmp_path / "run") == []


def test_a_folder_is_one_process_s_at_a_time(tmp_path, discs):
    recipe = write_recipe(tmp_path, discs, MAE)
    with held(tmp_path / "run"):
        process = start(recipe, tmp_path / "run")
        _, told = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "Another process works in" in told
    assert not (tmp_path / "run/recipe.yaml").exists()


SCARCE = """
import resource, sys
from pathlib import Path
import torch
from medssl.errors import MedsslError
from medssl.recipe import load_recipe
from medssl.train import loop
from medssl.train.pretrain import pretrain

torch.set_num_threads(1)
ready = loop._made_ready

def with_little_memory(*given):
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + int(sys.argv[3]) * 2**20,) * 2)
    return ready(*given)

loop._made_ready = with_little_memory
try:
    pretrain(load_recipe(sys.argv[1], "pretrain"), Path(sys.argv[2]))
except MedsslError as error:
    sys.exit(f"medssl: {error}")
"""
"""A run whose process may have so many MiB more than it has when the first step begins."""


def starved(folder: Path, discs, run: str, mib: int, batch_size: int) -> subprocess.CompletedProcess[str]:
    recipe = write_recipe(folder, discs, run, batch_size=batch_size, steps=2)
    written = json.loads(recipe.read_text()) | {"encoder": VIT}  # oneDNN's convolutions may crash without memory
    recipe.write_text(json.dumps(written))
    returns_at_once = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_ARENA_MAX": "1"}  # what is freed can be had again
    return subprocess.run([sys.executable, "-c", SCARCE, recipe, folder / "run", str(mib)], capture_output=True,
                          text=True, timeout=300, env=os.environ | returns_at_once)


def test_out_of_memory_a_loss_per_sample_goes_on_in_parts(tmp_path, discs):
    done = starved(tmp_path, discs, MAE, mib=400, batch_size=8192)
    assert done.returncode == 0, done.stderr
    assert "out of memory: from here on each step takes its 8192 cases in" in done.stderr
    parts = [json.loads(line)["parts"] for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert parts[-1] > 1


def test_out_of_memory_another_loss_stops_and_names_a_batch_that_fits(tmp_path, discs):
    done = starved(tmp_path / "all", discs, SIMSIAM, mib=200, batch_size=2048)
    assert done.returncode == 1, done.stderr
    found = re.search(r"with a batch of 2048.* a batch of (\d+) fitted when it was tried just now", done.stderr)
    assert found, done.stderr
    assert (tmp_path / "all/run/checkpoints/last.ckpt").is_file()
    done = starved(tmp_path / "fewer", discs, SIMSIAM, mib=200, batch_size=int(found[1]))
    assert done.returncode == 0, done.stderr


def test_a_full_disk_costs_checkpoints_and_not_the_run(tmp_path, discs, whole, caplog):
    config = load_recipe(write_recipe(tmp_path, discs, MAE), "pretrain")
    (tmp_path / "small").mkdir()
    with disk(tmp_path / "small", 2 * 2**20) as place:

        def fill_and_empty(done: int, total: int, note: str) -> None:
            if 5 <= done < 20:  # not even the room of the checkpoint before the last is left
                (place / "run/checkpoints/earlier.ckpt").unlink(missing_ok=True)
                with suppress(OSError), (place / "filling").open("ab", 0) as filling:
                    while filling.write(bytes(4096)):
                        pass
            if done == 20:
                (place / "filling").unlink()

        pretrain(config, place / "run", progress=fill_and_empty)
        assert "(No space left on device): make room; the one before is kept" in caplog.text
        ours, theirs = (load_file(run / "model.safetensors") for run in (whole, place / "run"))
        assert all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())


@pytest.mark.parametrize("leak", [0, 3])
def test_the_soak_sees_a_leak_and_not_the_pictures_that_are_drawn(leak):
    seconds = np.arange(340)
    drawing = 50 * (seconds % 60 < 5) + 80 * (seconds > 333)
    rows = np.stack([seconds, 560 + drawing + leak * seconds / 60, np.full(340, 40)], axis=1)
    assert growth(rows) == pytest.approx({"mib_a_minute": leak, "files_a_minute": 0}, abs=0.1)
    assert growth(rows[:200]) == dict.fromkeys(GROWTH)
