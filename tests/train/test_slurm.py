"""A real SLURM of two nodes on this machine runs the scripts that commands leave: a pretraining by two tasks, one that
is preempted and killed, and a curve's array."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest
from commands import RUNS, differences, start, steps_done, write_recipe
from slurm_cluster import PATIENCE, Cluster, missing
from small_sets import SMALL

from medssl.data.source import DataConfig

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(4 * PATIENCE), pytest.mark.skipif(
    bool(missing()), reason=f"no {', '.join(missing())}: install SLURM and munge (Debian: slurm-wlm, munge)")]
MEDSSL = [sys.executable, "-m", "medssl"]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with tempfile.TemporaryDirectory(prefix="slurm-") as folder, Cluster(Path(folder)) as started:
        yield started


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, discs: DataConfig) -> Path:
    """What two processes that the command itself starts make of the recipe."""
    folder = tmp_path_factory.mktemp("undisturbed")
    process = start(write_recipe(folder, discs, next(iter(RUNS))), folder / "run", "train.devices=2")
    _, told = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, told
    return folder / "run"


def two_tasks(cluster: Cluster, folder: Path, data: DataConfig) -> tuple[Path, str]:
    """The run that two tasks make, on a node each, and its job."""
    command = [*MEDSSL, "pretrain", str(write_recipe(folder, data, next(iter(RUNS)))), "--out", str(folder / "run")]
    subprocess.run([*command, "--slurm", "1"], check=True, env=cluster.env)
    return folder / "run", cluster.submit(folder / "run/pretrain.sbatch", "--nodes=2")


def test_two_tasks_learn_what_two_processes_do(cluster, tmp_path, discs, undisturbed):
    run, job = two_tasks(cluster, tmp_path, discs)
    cluster.wait(job)
    assert not differences(run, undisturbed)
    assert json.loads((run / "provenance.json").read_text())["processes"] == 2


def test_a_job_that_is_preempted_and_then_loses_a_task_ends_bit_equal(cluster, tmp_path, discs, undisturbed):
    run, job = two_tasks(cluster, tmp_path, discs)
    at_step(cluster, run, 8)
    cluster.ask("scancel", "--signal=USR1", job)
    cluster.wait(job, "PENDING")
    stopped = steps_done(run)
    assert stopped < 40, "or nothing was cut off"
    at_step(cluster, run, stopped + 8)
    task = f"^{sys.executable} -m medssl pretrain.*{run}"  # and not srun's own, which has these words too
    subprocess.run(["pkill", "--signal", "KILL", "--oldest", "--full", task], check=True)
    cluster.wait(job, "FAILED")
    assert stopped < steps_done(run) < 40
    cluster.ask("scontrol", "requeue", job)
    cluster.wait(job)
    assert not differences(run, undisturbed)


def at_step(cluster: Cluster, run: Path, step: int) -> None:
    cluster.until(lambda: steps_done(run) >= step, PATIENCE, f"step {step} of {run.name}")


def test_an_array_of_shares_and_the_job_that_waits_for_it_are_one_command(cluster, tmp_path, discs):
    train = {**SMALL["train"], "steps": 20}
    data = discs.model_dump(mode="json")
    ssl = {"step": "pretrain", **SMALL, "data": data, "train": train}
    recipe = {"step": "curve", "data": data, "augment": SMALL["augment"], "train": train, "seeds": 2,
              "task": {"name": "classify", "labels": ["Bright"]}, "fractions": [0.25, 1.0],
              "arms": {"scratch": {"like": "ssl"}, "ssl": {"pretrain": ssl, "baseline": "scratch"},
                       "pixels": {"how": "pixels"}}}
    (tmp_path / "curve.yaml").write_text(json.dumps(recipe))
    command = [*MEDSSL, "curve", str(tmp_path / "curve.yaml"), "--workers", "1", "--out"]
    subprocess.run([*command, str(tmp_path / "whole")], check=True, env=cluster.env)
    subprocess.run([*command, str(tmp_path / "array"), "--slurm", "4"], check=True, env=cluster.env)
    script = tmp_path / "array/curve.sbatch"
    array = cluster.submit(script)
    conclude = tmp_path / "conclude.sh"
    conclude.write_text(f"#!/bin/bash\nbash {shlex.quote(str(script))}\n")
    cluster.wait(cluster.submit(conclude, f"--dependency=afterok:{array}"))
    assert cluster.states(array) == {"COMPLETED"}
    for name in ("predictions", "points", "summary", "comparison"):
        ours, theirs = (pl.read_parquet(tmp_path / folder / f"{name}.parquet").drop("seconds", strict=False)
                        for folder in ("array", "whole"))
        assert ours.equals(theirs), name
