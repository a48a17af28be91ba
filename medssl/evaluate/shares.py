"""A curve's points dealt out to many machines: who does which, and the script that starts them on a cluster."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from medssl.errors import ConfigError
from medssl.files import write_whole

Each = TypeVar("Each")


@dataclass(frozen=True)
class Share:
    """The `number`-th of `count`, from 1 on."""

    number: int
    count: int

    @classmethod
    def read(cls, text: str) -> Share:
        """Of '3/16'."""
        found = re.fullmatch(r"(\d+)/(\d+)", text)
        if not found or not 1 <= int(found[1]) <= int(found[2]):
            raise ConfigError(f"--share {text}", expected="a number of a count, such as 3/16",
                              remedy="write 1/16 to 16/16")
        return cls(int(found[1]), int(found[2]))

    def of(self, everything: Sequence[Each]) -> list[Each]:
        """What is dealt to this share, in turns: the same whatever others have done by then."""
        return list(everything[self.number - 1 :: self.count])

    def turned(self, everything: Sequence[Each]) -> list[Each]:
        """All of it, from a place of this share's own on, so that shares do not begin with the same."""
        first = (self.number - 1) * len(everything) // self.count
        return [*everything[first:], *everything[:first]]


def write_sbatch(folder: Path, shares: int, command: Sequence[str]) -> Path:
    """Leaves curve.sbatch in the run folder: an array of so many tasks of SLURM, each one share of `command`, which are
    the words after `medssl`. Run by itself, outside an array, the script concludes."""
    program = Path(sys.argv[0]).resolve()
    called = [sys.executable, "-m", "medssl"] if program.name == "__main__.py" else [str(program)]
    words = shlex.join([*called, *command])
    script = folder / "curve.sbatch"
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(script, f"""#!/bin/bash
#SBATCH --job-name=medssl-curve
#SBATCH --array=1-{shares}
#SBATCH --requeue --open-mode=append
# Add what your cluster asks for (--partition, --gres=gpu:1, --cpus-per-task, --time) here or to sbatch. Then
#   job=$(sbatch --parsable curve.sbatch)
#   sbatch --dependency=afterok:$job --wrap "bash curve.sbatch"
# A task that was stopped goes on when it is submitted again.
set -euo pipefail
cd -- {shlex.quote(str(Path.cwd()))}
command=({words})
if [ -n "${{SLURM_ARRAY_TASK_ID:-}}" ]; then
  exec "${{command[@]}}" --share "$SLURM_ARRAY_TASK_ID/{shares}"
fi
exec "${{command[@]}}"
""")
    return script
