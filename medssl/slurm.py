"""Batch scripts for SLURM, left in the run folder, to be completed with what the cluster asks for, and submitted."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from medssl.files import write_whole


def write_job(folder: Path, tasks: int, command: Sequence[str]) -> Path:
    """Leaves <first word>.sbatch in the run folder: one training by so many tasks on each node.

    Warned five minutes before its time is up, the run writes a checkpoint and ends with 138 (128 + SIGUSR1), and the
    job goes back into the queue; the same command goes on from there.

    Args:
        command: the words after `medssl`.
    """
    name = command[0]
    return _write(folder, name, [f"--nodes=1 --ntasks-per-node={tasks}", "--signal=USR1@300"], f"""\
# Add what your cluster asks for (--gres=gpu:{tasks}, --cpus-per-task, --time, --partition) here or to sbatch; and more
# machines, if you like: sbatch --nodes=2 {name}.sbatch. Give it more than ten minutes of --time.
""", f"""\
# What the job has been given srun does not ask for by itself.
if [ -n "${{SLURM_CPUS_PER_TASK:-}}" ]; then export SRUN_CPUS_PER_TASK="$SLURM_CPUS_PER_TASK"; fi
status=0
srun --kill-on-bad-exit=1 {_called(command)} || status=$?
[ $status != 138 ] || scontrol requeue "$SLURM_JOB_ID"
exit $status
""")


def write_array(folder: Path, shares: int, command: Sequence[str]) -> Path:
    """Leaves <first word>.sbatch in the run folder: an array of so many tasks, each one share of `command`, which are
    the words after `medssl`. Run by itself, outside an array, the script concludes."""
    name = command[0]
    return _write(folder, name, [f"--array=1-{shares}"], f"""\
# Add what your cluster asks for (--partition, --gres=gpu:1, --cpus-per-task, --time) here or to sbatch. Then
#   job=$(sbatch --parsable {name}.sbatch)
#   sbatch --dependency=afterok:$job --wrap "bash {name}.sbatch"
# A task that was stopped goes on when it is submitted again; give --time for a whole share, since the job that
# concludes starts only when all have ended well.
""", f"""\
command=({_called(command)})
if [ -n "${{SLURM_ARRAY_TASK_ID:-}}" ]; then
  exec "${{command[@]}}" --share "$SLURM_ARRAY_TASK_ID/{shares}"
fi
exec "${{command[@]}}"
""")


def _write(folder: Path, name: str, options: Sequence[str], remarks: str, body: str) -> Path:
    asked = "".join(f"#SBATCH {option}\n" for option in [f"--job-name=medssl-{name}", *options,
                                                         "--requeue --open-mode=append"])
    script = folder / f"{name}.sbatch"
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(script, f"#!/bin/bash\n{asked}{remarks}set -euo pipefail\ncd -- {shlex.quote(str(Path.cwd()))}\n{body}",
                mode=0o600)
    return script


def _called(command: Sequence[str]) -> str:
    """How this very program would be called so."""
    program = Path(sys.argv[0]).resolve()
    own = [sys.executable, "-m", "medssl"] if program.name == "__main__.py" else [str(program)]
    return shlex.join([*own, *command])
