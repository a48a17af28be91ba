"""Kills runs with SIGKILL at random moments until they have ended, and compares them bit for bit with unharmed ones.

    make kills ARGS="--kills 100 --log kills.jsonl"

A line of the log is a life of a run: which run, how it ended, at which step, and what the kill left half done; or a
verdict. Exit status 1 where a run did not end bit-equal.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path

from commands import RUNS, differences, start, steps_done, wait_for_step, write_recipe
from small_sets import write_discs

from medssl.data.source import DataConfig

ANY_MOMENT = 0.2
"""Share of kills at any moment of a life, its beginning included; the others come when it has done a step."""
LIFE, MOMENT = 8.0, 0.5
"""Seconds within which they come."""


def killed_till_it_ends(recipe: Path, out: Path, chance: random.Random, most: int | None = None) -> Iterator[dict]:
    """A line for each life of a run; the last one ends by itself, at the latest when there were the `most` kills."""
    for number in count():
        before, process = steps_done(out), start(recipe, out)
        if number == most:
            process.wait()
        elif chance.random() < ANY_MOMENT:
            time.sleep(chance.uniform(0, LIFE))
        elif wait_for_step(process, out, before + 1):
            time.sleep(chance.uniform(0, MOMENT))
        killed = process.poll() is None
        if killed:
            process.send_signal(signal.SIGKILL)
        _, told = process.communicate()
        if not killed and process.returncode:
            raise RuntimeError(told)
        drafts = [path.name.split(".")[1] for path in out.rglob(".*.part")] if out.is_dir() else []
        yield {"killed": killed, "from_step": before, "at_step": steps_done(out), "half_written": drafts}
        if (out / "model.json").is_file():
            return


def torture(discs: DataConfig, folder: Path, kills: int, seed: int) -> Iterator[dict]:
    """Lives and verdicts, run after run, until there were so many kills."""
    chance, done, number = random.Random(seed), 0, 0
    recipes = {run: write_recipe(folder / str(place), discs, run) for place, run in enumerate(RUNS)}
    for recipe in recipes.values():
        _, told = (process := start(recipe, recipe.parent / "whole")).communicate()
        assert process.returncode == 0, told
    while done < kills:
        run = list(RUNS)[number % len(RUNS)]
        recipe, number = recipes[run], number + 1
        out = recipe.parent / f"killed-{number}"
        for life in killed_till_it_ends(recipe, out, chance):
            done += life["killed"]
            yield {"run": run, "number": number, **life}
        yield {"run": run, "number": number, "differences": differences(recipe.parent / "whole", out)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--log", type=Path, default=Path("kills.jsonl"))
    given = parser.parse_args()
    bad = kills = 0
    with tempfile.TemporaryDirectory() as scratch, given.log.open("w") as log:
        folder = Path(scratch)
        for line in torture(write_discs(folder / "discs"), folder, given.kills, given.seed):
            kills, bad = kills + line.get("killed", False), bad + bool(line.get("differences"))
            print(json.dumps(line), file=log, flush=True)
            print(f"{kills} kills: {line}", flush=True)
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
