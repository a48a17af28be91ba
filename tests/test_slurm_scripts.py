"""The batch scripts that commands leave: what they run, with words that a shell would take amiss."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from medssl.slurm import write_array, write_job

WORDS = ["my recipe.yaml", "data.where={view: [AP]}", "title=$(touch harm)\n#SBATCH --wrap=harm", "--out", "runs/a b"]


@pytest.fixture
def told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a program in medssl's place tells how it was called, a word a line; it ends with $STATUS. So do srun and
    scontrol, in files beside."""
    told = tmp_path / "it's told"
    folder = tmp_path / "bin $HOME"
    folder.mkdir()
    programs = {"medssl": "exit ${STATUS:-0}", "scontrol": "",
                "srun": 'echo "$SRUN_CPUS_PER_TASK" > ../cpus; shift; exec "$@"'}
    for name, then in programs.items():
        into = told if name == "medssl" else told.with_name(name)
        (folder / name).write_text(f'#!/bin/bash\nprintf "%s\\n" "$PWD" "$@" > "{into}"\n{then}\n')
        (folder / name).chmod(0o755)
    monkeypatch.setattr(sys, "argv", [str(folder / "medssl")])
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    (tmp_path / "work here").mkdir()
    monkeypatch.chdir(tmp_path / "work here")
    return told


def options(script: Path) -> list[str]:
    return [line for line in script.read_text().splitlines() if line.startswith("#SBATCH")]


def run(script: Path, **environment: str) -> int:
    return subprocess.run(["bash", script], cwd="/", env=os.environ | environment, check=False).returncode


def test_an_array_s_tasks_do_a_share_each_and_the_script_concludes_outside_of_it(told, tmp_path):
    script = write_array(tmp_path / "run", 16, ["curve", *WORDS])
    assert script.name == "curve.sbatch"
    assert options(script)[1] == "#SBATCH --array=1-16"
    for task, share in (({}, []), ({"SLURM_ARRAY_TASK_ID": "3"}, ["--share", "3/16"])):
        assert run(script, **task) == 0
        assert told.read_text() == "\n".join([str(tmp_path / "work here"), "curve", *WORDS, *share]) + "\n"
    assert not list(tmp_path.rglob("harm"))


@pytest.mark.parametrize(("status", "is_requeued"), [("0", False), ("1", False), ("138", True)])
def test_a_job_goes_back_into_the_queue_where_it_was_warned_and_nowhere_else(told, tmp_path, status, is_requeued):
    script = write_job(tmp_path / "run", 4, ["pretrain", *WORDS])
    assert script.name == "pretrain.sbatch"
    assert options(script)[1] == "#SBATCH --nodes=1 --ntasks-per-node=4"
    assert run(script, STATUS=status, SLURM_JOB_ID="7", SLURM_CPUS_PER_TASK="8") == int(status)
    assert told.read_text() == "\n".join([str(tmp_path / "work here"), "pretrain", *WORDS]) + "\n"
    assert told.with_name("srun").read_text().splitlines()[1] == "--kill-on-bad-exit=1"
    assert (tmp_path / "cpus").read_text() == "8\n"
    asked = told.with_name("scontrol")
    assert (asked.read_text().splitlines()[1:] == ["requeue", "7"] if is_requeued else not asked.exists())
    assert not list(tmp_path.rglob("harm"))
