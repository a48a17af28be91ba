"""Started by torchrun, by srun or as a child: environments as they set them, and processes that are lost or stopped."""

from __future__ import annotations

import logging
import os
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch.distributed as dist
from commands import RUNS, start, wait_for_step, write_recipe

from medssl.cli import main
from medssl.errors import ConfigError
from medssl.train import rank
from medssl.train.launch import alone, launch

MAE, *_ = RUNS
PATIENCE = 300
"""Seconds for two processes to start, on a machine that has other things to do."""
BATCH = {"SLURM_JOB_ID": "6", "SLURM_JOB_NAME": "train.sh", "SLURM_NTASKS": "2", "SLURM_NPROCS": "2",
         "SLURM_NNODES": "1", "SLURM_NODELIST": "node[1-2]", "SLURM_PROCID": "0", "SLURM_LOCALID": "0",
         "SLURM_TASKS_PER_NODE": "2"}
"""What SLURM 22.05 sets in a batch script with --ntasks=2 that starts a command without srun."""
STEP = BATCH | {"SLURM_STEP_ID": "2", "SLURM_STEP_NODELIST": "node2", "SLURM_STEP_NUM_NODES": "1",
                "SLURM_STEP_NUM_TASKS": "2", "SLURM_STEP_TASKS_PER_NODE": "2", "SLURM_PROCID": "1",
                "SLURM_LOCALID": "1", "SLURM_NODEID": "0", "SLURM_NTASKS_PER_NODE": "4"}
"""And in the second task of `srun --nodelist=node2 --ntasks=2`, in a job that has node1 too."""


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    """The process's own, given back as it was afterwards."""
    mine = {name: value for name, value in os.environ.items() if not name.startswith("SLURM_")}
    monkeypatch.setattr(os, "environ", mine)
    yield mine
    logging.getLogger("medssl").setLevel(logging.NOTSET)


def test_a_batch_script_without_srun_is_one_process(environment, recwarn):
    environment |= BATCH
    rank.refuse_several("a curve")
    assert launch().size == alone().size == 1
    assert rank.own_rank() == 0
    assert not [warning for warning in recwarn if "srun" in str(warning.message)]


def test_tasks_of_srun_meet_on_the_first_machine_of_their_step(environment, monkeypatch):
    environment |= STEP
    with pytest.raises(ConfigError, match="2 processes were started for a curve"):
        rank.refuse_several("a curve")
    met = {}
    monkeypatch.setattr(dist, "init_process_group", lambda *_, **how: met.update(how))
    monkeypatch.setattr(dist, "new_group", lambda **_: None)
    launch()
    assert (met["rank"], met["world_size"], rank.own_rank()) == (1, 2, 1)
    assert (environment["MASTER_ADDR"], environment["MASTER_PORT"]) == ("node2", "15584")


def test_machines_with_unequal_shares_are_refused(environment):
    environment |= STEP | {"SLURM_STEP_NUM_TASKS": "3", "SLURM_STEP_NUM_NODES": "2",
                           "SLURM_STEP_TASKS_PER_NODE": "2,1"}
    with pytest.raises(ConfigError, match="3 tasks on 2 machines as 2,1.*--ntasks-per-node"):
        launch()


def test_the_first_tells_at_once_and_the_others_what_only_they_know(environment, monkeypatch):
    monkeypatch.setattr(rank, "GRACE", 0.3)
    monkeypatch.setattr(rank, "MOMENT", 0.3)
    monkeypatch.setattr(rank, "_PARENT", os.getppid())
    assert rank.has_the_word(asked=True)
    environment["LOCAL_RANK"] = "1"
    assert rank.has_the_word(asked=False)
    assert not rank.has_the_word(asked=True)
    monkeypatch.setattr(rank, "GRACE", 60)
    threading.Timer(0.2, signal.raise_signal, [signal.SIGTERM]).start()
    assert not rank.has_the_word(asked=False)
    monkeypatch.setattr(rank, "_PARENT", -1)
    assert not rank.has_the_word(asked=False)


def test_once_its_end_is_told_no_signal_changes_the_status(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.argv", ["medssl", "check", str(tmp_path / "none.parquet")])
    with pytest.raises(SystemExit):
        main()
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_IGN


def two(recipe: Path, out: Path, *overrides: str) -> list[subprocess.Popen[str]]:
    """As torchrun starts them, without its eye on them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {"TORCHELASTIC_RUN_ID": "test", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "GROUP_RANK": "0",
              "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    return [start(recipe, out, *overrides, env=shared | {"RANK": number, "LOCAL_RANK": number}) for number in "01"]


def test_a_process_that_is_killed_ends_the_run_in_words(tmp_path, discs):
    first, second = two(write_recipe(tmp_path, discs, MAE), tmp_path / "run")
    assert wait_for_step(first, tmp_path / "run", 3, PATIENCE)
    second.kill()
    _, told = first.communicate(timeout=PATIENCE)
    assert first.returncode == 1
    assert "medssl: Another process of this run ended or cannot be reached" in told
    assert "Traceback" not in told
    assert (tmp_path / "run/checkpoints/last.ckpt").is_file()


def test_what_all_find_is_told_once(tmp_path, discs):
    first, second = two(write_recipe(tmp_path, discs, MAE), tmp_path / "run", "train.stepz=3")
    _, told = first.communicate(timeout=PATIENCE)
    assert first.returncode == 1
    assert told.count("train.stepz: unknown key") == 1
    second.terminate()  # as torchrun and srun do then
    assert second.communicate(timeout=PATIENCE) == ("", "")
