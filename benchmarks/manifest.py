"""A manifest of CheXpert's size: 225,000 rows built from its tables and checked, in under a minute on two cores."""

from __future__ import annotations

import csv
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

from harness import Row, Settings, main

from medssl.phantom.xray import COLUMNS
from medssl.rng import stream

ROWS, TINY_ROWS = 225_000, 120
LIMIT = 60_000.0
"""ms"""
PROGRAM = """
import atexit, sys
from meter import highest_mib
from medssl.cli import main
atexit.register(lambda: print(highest_mib(), file=sys.stderr))
main()
"""


def measure(settings: Settings) -> list[Row]:
    rows = TINY_ROWS if settings.tiny else ROWS
    write_set(settings.scratch / "CheXpert", rows)
    key = settings.scratch / "key"
    key.write_bytes(bytes(range(32)))
    key.chmod(0o600)
    card, table = "data_manifests/chexpert.yaml", settings.scratch / "chexpert.parquet"
    commands = {
        "built": ["manifest", card, settings.scratch / "CheXpert", "--out", table, "--key", key],
        "checked": ["check", table],
    }
    repeats = 1 if settings.tiny else settings.repeats
    taken = [{name: _whole_process(command) for name, command in commands.items()} for _ in range(repeats)]
    both = "built and checked"
    told = {name: [one[name] for one in taken] for name in commands}
    told[both] = [(sum(ms for ms, _ in one.values()), max(mib for _, mib in one.values())) for one in taken]
    return [_row(f"{rows:,} rows {name}", measured, 1.0 if name == both else None) for name, measured in told.items()]


def _row(name: str, measured: list[tuple[float, float]], target: float | None) -> Row:
    milliseconds, mib = (statistics.median(column) for column in zip(*measured, strict=True))
    return Row(name, milliseconds, LIMIT, "the limit of one minute", LIMIT / milliseconds, repeats=len(measured),
               target=target, ours_mib=mib)


def _whole_process(command: list[str | Path]) -> tuple[float, float]:
    """Milliseconds from start to end of a `medssl` process, and the MiB that all of it had in memory at most; `check`
    may find something and then ends with 1."""
    paths = [str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    began = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", PROGRAM, *map(str, command)], capture_output=True, text=True,
                          env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)})
    taken = 1000 * (time.perf_counter() - began)
    if done.returncode not in ((0, 1) if command[0] == "check" else (0,)):
        raise SystemExit(done.stderr)
    return taken, float(done.stderr.splitlines()[-1])


def write_set(folder: Path, rows: int) -> None:
    """CheXpert's layout, with 3.4 images a patient, real shares of blanks, and one empty file an image: pixels are read
    by `prepare`, not here."""
    rng = stream("manifest")
    tables = {"train": rows - min(234, rows // 10), "valid": min(234, rows // 10)}
    patient = 0
    for split, count in tables.items():
        (folder / split).mkdir(parents=True)
        with open(folder / f"{split}.csv", "w", newline="") as file:
            table = csv.writer(file, lineterminator="\n")
            table.writerow(COLUMNS)
            while count > 0:
                patient += 1
                count -= _write_patient(folder, split, patient, min(count, 1 + int(rng.poisson(2.4))), rng, table)


def _write_patient(folder: Path, split: str, patient: int, images: int, rng, table) -> int:
    sex, age = ("Male", "Female")[int(rng.integers(2))], int(rng.integers(18, 90))
    for study in range(1, images + 1):
        path = Path(split, f"patient{patient:05d}", f"study{study}", "view1_frontal.jpg")
        (folder / path.parent).mkdir(parents=True)
        (folder / path).touch()
        findings = [("", "1.0", "0.0", "-1.0")[n] for n in rng.choice(4, size=14, p=[0.7, 0.2, 0.06, 0.04])]
        view = ("AP", "PA")[int(rng.integers(2))]
        table.writerow([f"CheXpert-v1.0-small/{path}", sex, age, "Frontal", view, *findings])
    return images


if __name__ == "__main__":
    main("manifest", __doc__, measure, repeats=3)
