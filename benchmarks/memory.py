"""Memory over 100,000 cases: of the process that prepares them, and of the one that trains on them."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from harness import Row, Settings, in_a_fresh_process, main
from meter import resident_mib

from medssl.data.build import build
from medssl.data.card import Card
from medssl.data.loader import BoxConfig, Loader
from medssl.data.manifest import Manifest
from medssl.data.prepare import PrepareConfig, prepare
from medssl.data.source import DataConfig, open_data
from medssl.io.write import write_png
from medssl.rng import stream

CASES, TINY_CASES = 100_000, 12
DISTINCT = 100
"""Pictures that differ; the rest are hard links to them, as a file system allows about 65,000 to one file."""
SETTLED = 0.2
"""Share of the cases after which memory should grow no more: by then the 16,384 maps that a reader keeps are open."""
BATCH = 20

Samples = list[tuple[int, float]]
"""(cases so far, resident MiB)"""


def measure(settings: Settings) -> list[Row]:
    cases = TINY_CASES if settings.tiny else CASES
    write_set(settings.scratch, cases)
    curves = {name: in_a_fresh_process(work, settings.scratch)
              for name, work in (("prepare", prepare_set), ("train", _load))}
    _draw(curves, (settings.out or settings.scratch) / "memory.png")
    return [_row(name, samples, cases) for name, samples in curves.items()]


def _row(name: str, samples: Samples, cases: int) -> Row:
    settled = next(mib for count, mib in samples if count >= SETTLED * cases)
    highest = max(mib for count, mib in samples if count >= SETTLED * cases)
    return Row(f"{name}: resident memory over {cases:,} cases, highest", highest, settled,
               f"after the first {SETTLED * cases:,.0f}", settled / highest, unit="MiB", target=0.95)


def write_set(folder: Path, cases: int, side: int = 32) -> None:
    """Pictures of `side`², and their manifest."""
    (folder / "in").mkdir()
    for number in range(min(DISTINCT, cases)):
        picture = stream("memory", number).integers(0, 255, (side, side)).astype(np.uint8)
        write_png(folder / f"in/{number:06d}.png", picture)
    for number in range(DISTINCT, cases):
        os.link(folder / f"in/{number % DISTINCT:06d}.png", folder / f"in/{number:06d}.png")
    card = Card.model_validate({"name": "memory", "about": "benchmark", "layout": "pattern", "kind": "image",
                                "modality": "OT", "files": {"image": "{case}.png"}, "patient": "{case}",
                                "split": {"shares": {"train": 1.0}}})
    build(card, folder / "in", bytes(32)).save(folder / "m.parquet")


def prepare_set(folder: Path) -> Samples:
    """What `write_set` wrote, into a cache."""
    manifest, samples = Manifest.load(folder / "m.parquet"), []

    def progress(done: int, total: int) -> None:
        if done % max(1, total // 100) == 0:
            samples.append((done, resident_mib()))

    prepare(manifest, folder / "cache", data_config(folder).prepare, progress=progress)
    return samples


def _load(folder: Path) -> Samples:
    data = open_data(data_config(folder))
    batch = min(BATCH, len(data.cases))
    loader = Loader(data.cache, data.cases["case_id"].to_list(), BoxConfig(), batch, seed=0)
    steps = len(data.cases) // batch
    samples = []
    for step, _ in enumerate(loader.batches(0, steps), start=1):
        if step % max(1, steps // 100) == 0:
            samples.append((step * batch, resident_mib()))
    return samples


def data_config(folder: Path) -> DataConfig:
    return DataConfig(manifest=folder / "m.parquet", cache=folder / "cache", prepare=PrepareConfig(intensity="range"))


def _draw(curves: dict[str, Samples], path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 3.2), layout="constrained")
    axes = figure.subplots()
    for name, samples in curves.items():
        axes.plot(*zip(*samples, strict=True), label=name)
    axes.set(xlabel="cases so far", ylabel="resident memory, MiB", xlim=0, ylim=0)
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)


if __name__ == "__main__":
    main("memory", __doc__, measure)
