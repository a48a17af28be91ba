"""A manifest of CheXpert's size: 225,000 rows built from its tables and checked, in under a minute on two cores."""

from __future__ import annotations

import csv
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
    taken = [{name: _milliseconds(command) for name, command in commands.items()} for _ in range(repeats)]
    told = [(name, statistics.median(one[name] for one in taken)) for name in commands]
    told.append(("built and checked", statistics.median(sum(one.values()) for one in taken)))
    return [Row(f"{rows:,} rows {name}", value, LIMIT, "the limit of one minute", LIMIT / value, repeats=repeats,
                target=1.0 if name == "built and checked" else None) for name, value in told]


def _milliseconds(command: list[str | Path]) -> float:
    """Of a whole `medssl` process, from start to end; `check` may find something and then ends with 1."""
    began = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", "from medssl.cli import main; main()", *map(str, command)],
                          capture_output=True, text=True)
    if done.returncode not in ((0, 1) if command[0] == "check" else (0,)):
        raise SystemExit(done.stderr)
    return 1000 * (time.perf_counter() - began)


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
