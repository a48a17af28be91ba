"""Loads, pretrains and kills in a loop for an hour under a memory cap: is anything lost, and does anything grow?

    make soak ARGS="--minutes 60 --gib 4 --log soak.jsonl"

A run is decoded, prepared and pretrained from nothing, killed with SIGKILL at random moments and started again until
it has ended, and then held against an unharmed one, bit for bit; then the next one. Steps, memory and open files of all
its processes are looked at every second. A line of the log is a life of a run, or a verdict. Exit status 1 where one is
at fault: a run that did not end bit-equal, a life that forgot steps, ended by itself with an error, left a process
behind, took more memory than the cap, or grew in memory or open files.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

import numpy as np
from commands import MARK, differences, left_behind, steps_done, write_recipe
from small_sets import write_discs

from medssl.data.source import DataConfig

LIFE = 180.0
"""Seconds, the mean of the lives' lengths; they are drawn from an exponential distribution."""
LONG = 300.0
"""Of a life of so many seconds, the second half is looked at for growth: by then it has drawn pictures a few times, and
has all the room that drawing takes."""
WINDOW = 15.0
"""Seconds of which the lowest counts: a picture takes some 50 MiB for a moment, a leak raises what is left."""
GROWTH = {"mib_a_minute": 2.0, "files_a_minute": 1.0}
"""From which on memory and open files count as growing."""
FORGOTTEN = 1
"""Steps that a kill may cost: a checkpoint is written after each."""
RUN = "noise in the holes of a U-Net, a process that reads ahead, in two parts"


@dataclass
class Watch:
    """Memory of its own (MiB, without mapped files) and open files of a process and its descendants, a row a second:
    (seconds, MiB, files)."""

    process: subprocess.Popen[bytes]
    out: Path
    fewest: int = sys.maxsize
    """Steps done that the run folder tells of."""
    rows: list[tuple[float, float, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        threading.Thread(target=self._look, daemon=True).start()

    def _look(self) -> None:
        begun = time.monotonic()
        while self.process.poll() is None:
            family = list(_family(self.process.pid))
            self.fewest = min(self.fewest, steps_done(self.out))
            self.rows.append((time.monotonic() - begun, sum(map(_memory, family)), sum(map(_files, family))))
            time.sleep(1)

    def told(self) -> dict:
        rows = np.array(self.rows).reshape(-1, 3)
        return {"seconds": round(float(rows[:, 0].max(initial=0))),
                "peak_mib": round(float(rows[:, 1].max(initial=0))), **growth(rows)}


def growth(rows: np.ndarray) -> dict[str, float | None]:
    """Slopes of straight lines through what memory and files sink to in the second half; None for a short life.

    rows: (n, 3), as `Watch.rows`.
    """
    seconds = rows[:, 0].max(initial=0)
    if seconds <= LONG:
        return dict.fromkeys(GROWTH)
    late = rows[rows[:, 0] > seconds / 2]
    windows = late[:, 0] // WINDOW
    floor = np.array([late[windows == window].min(axis=0) for window in np.unique(windows)])
    return {name: round(float(np.polyfit(floor[:, 0] / 60, floor[:, column], 1)[0]), 2)
            for column, name in enumerate(GROWTH, start=1)}


def _family(pid: int) -> Iterator[int]:
    yield pid
    try:
        tasks = [task.read_text() for task in Path(f"/proc/{pid}/task").glob("*/children")]
    except OSError:
        return
    for child in " ".join(tasks).split():
        yield from _family(int(child))


def _memory(pid: int) -> float:
    try:
        rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return 0.0
    own = ("Pss_Anon:", "Pss_Shmem:")
    return sum(int(line.split()[1]) for line in rollup.splitlines() if line.startswith(own)) / 1024


def _files(pid: int) -> int:
    try:
        return len(os.listdir(f"/proc/{pid}/fd"))
    except OSError:
        return 0


def start(recipe: Path, out: Path, gib: float) -> subprocess.Popen[bytes]:
    def capped() -> None:
        resource.setrlimit(resource.RLIMIT_DATA, (int(gib * 2**30),) * 2)

    words = [sys.executable, "-m", "medssl", "pretrain", str(recipe), "--out", str(out),
             f"data.cache={out.with_suffix('.cache')}"]
    with out.with_suffix(".log").open("ab") as log:
        return subprocess.Popen(words, stdout=log, stderr=log, preexec_fn=capped,
                                env=os.environ | {"OMP_NUM_THREADS": "1", MARK: str(out)})


def lives(recipe: Path, out: Path, chance: random.Random, gib: float) -> Iterator[dict]:
    """Until the run has ended, or a life has ended by itself otherwise."""
    while not (out / "model.json").is_file():
        before, process = steps_done(out), start(recipe, out, gib)
        watch, is_killed = Watch(process, out), False
        try:
            process.wait(chance.expovariate(1 / LIFE))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            is_killed = True
        faults = list(_faults(watch, before, gib))
        if has_failed := process.returncode != 0 and not is_killed:
            faults.append(f"ended with {process.returncode}: {out.with_suffix('.log').read_text()[-2000:]}")
        yield {"killed": is_killed, "from_step": before, "at_step": steps_done(out), **watch.told(), "faults": faults}
        if has_failed:
            return


def _faults(watch: Watch, before: int, gib: float) -> Iterator[str]:
    told = watch.told()
    if watch.fewest < before - FORGOTTEN:
        yield f"of {before} steps {watch.fewest} were remembered"
    if left := left_behind(watch.out):
        yield f"left behind: {left}"
    if told["peak_mib"] > gib * 1024:
        yield f"more than {gib} GiB"
    yield from (f"{name} above {most}" for name, most in GROWTH.items() if (told[name] or 0) > most)


def soak(discs: DataConfig, folder: Path, seconds: float, steps: int, gib: float, seed: int) -> Iterator[dict]:
    chance, deadline = random.Random(seed), time.monotonic() + seconds
    recipe, whole = write_recipe(folder, discs, RUN, steps=steps), folder / "whole"
    watch = Watch(start(recipe, whole, gib), whole)
    assert watch.process.wait() == 0, whole.with_suffix(".log").read_text()
    yield {"unharmed": True, **watch.told(), "faults": list(_faults(watch, 0, gib))}
    for number in count(1):
        out = folder / f"run-{number}"
        for life in lives(recipe, out, chance, gib):
            yield {"number": number, **life}
        has_ended = (out / "model.json").is_file()
        yield {"number": number, "faults": differences(whole, out) if has_ended else ["it did not end"]}
        shutil.rmtree(out)
        shutil.rmtree(out.with_suffix(".cache"))
        if time.monotonic() > deadline:
            return


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--steps", type=int, default=9000, help="of each run")
    parser.add_argument("--gib", type=float, default=4, help="that a process may ask for, and all together hold")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--log", type=Path, default=Path("soak.jsonl"))
    given = parser.parse_args()
    is_bad = False
    with tempfile.TemporaryDirectory() as scratch, given.log.open("w") as log:
        folder = Path(scratch)
        discs = write_discs(folder / "discs")
        for line in soak(discs, folder, 60 * given.minutes, given.steps, given.gib, given.seed):
            is_bad |= bool(line["faults"])
            print(json.dumps(line), file=log, flush=True)
            print(line, flush=True)
    sys.exit(1 if is_bad else 0)


if __name__ == "__main__":
    main()
