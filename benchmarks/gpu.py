"""A step of MAE with ViT-B/16 on a GPU in bf16: how much of the card's matrix rate it reaches, and if data keep up.

Pictures of 224², a decoder of 8 blocks, 512 wide, 75 % hidden, as large a batch as fits; forward, backward and AdamW.
Says so and ends where there is no card.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Iterator
from dataclasses import replace

import torch
from harness import Row, Settings, Work, main, quartiles
from mae import TINY, ours
from memory import data_config, prepare_set, write_set
from meter import gpu_peak_mib, peak_mib
from step import step
from torch.utils.flop_counter import FlopCounterMode

from medssl.augment import PolicyConfig, ViewPolicy
from medssl.data.loader import BoxConfig, Loader
from medssl.data.source import open_data
from medssl.objectives.mae import MAE
from medssl.train.loop import TrainConfig, fit
from medssl.types import Batch

BASE = {"side": 224, "width": 768, "depth": 12, "heads": 12, "decoder_width": 512, "decoder_depth": 8,
        "decoder_heads": 16}
BATCHES = (1024, 512, 256, 128, 64)
MATRIX, TINY_MATRIX = 8192, 64
"""Rows and columns of the product that tells the card's rate."""
STEPS, TINY_STEPS = 20, 2
"""Steps between two looks at the clock."""
WORKERS = 12
CASES, TINY_CASES = 4096, 12
MARGIN = 1.15
"""A prepared picture's side, of a view's: crops are drawn within it."""

CARD = torch.device("cuda" if torch.cuda.is_available() else "cpu")
peak = gpu_peak_mib if CARD.type == "cuda" else peak_mib


def measure(settings: Settings) -> list[Row]:
    shape, batches = (TINY, (2,)) if settings.tiny else (BASE, BATCHES)
    torch.manual_seed(0)
    mae = ours(shape).to(CARD)
    batch = fitting(mae, batches, shape["side"])
    name = f"MAE step, ViT {shape['width']} wide, {len(batch.image)} pictures of {shape['side']}², bf16"
    floor = matrix_seconds(mae, batch, TINY_MATRIX if settings.tiny else MATRIX)
    steps = TINY_STEPS if settings.tiny else STEPS
    rows = [utilisation(f"{name}, eager", training(mae, mae, batch), floor, settings.repeats, steps)]
    if not settings.tiny:
        rows.append(utilisation(f"{name}, compiled", training(mae, torch.compile(mae), batch), floor, settings.repeats,
                                steps))
    rows.append(feeding(f"{name}, through medssl.train.fit", mae, batch, settings))
    card = torch.cuda.get_device_name() if CARD.type == "cuda" else ""
    return [replace(row, machine=card, name=f"{row.name}: {1000 * len(batch.image) / row.ours:,.0f} pictures a second")
            for row in rows]


# ------------------------------------------------------------------------------------------------------ the card's rate

def utilisation(name: str, work: Work, floor: float, repeats: int, steps: int) -> Row:
    """ratio: the share of the card's matrix rate that the step's operations were done at (MFU)."""
    work()
    times = [1000 * seconds(work, steps) for _ in range(repeats)]
    taken, least = statistics.median(times), 1000 * floor
    low, high = quartiles([least / one for one in times])
    return Row(name, taken, least, "its operations at the card's measured matrix rate", least / taken, repeats=repeats,
               low=low, high=high, target=0.5, ours_mib=peak(work))


def matrix_seconds(mae: MAE, batch: Batch, side: int) -> float:
    """How long the step's operations, counted, would take at the rate of one large bf16 product, measured."""
    work = training(mae, mae, batch)
    with FlopCounterMode(display=False) as counter:
        work()
    a, b = torch.randn(2, side, side, dtype=torch.bfloat16, device=CARD)
    seconds(lambda: a @ b, STEPS)
    rate = 2 * side**3 / min(seconds(lambda: a @ b, STEPS) for _ in range(5))
    return counter.get_total_flops() / rate


def seconds(work: Work, times: int) -> float:
    """Of one of `times` in a row, the last of which is waited for."""
    wait()
    began = time.perf_counter()
    for _ in range(times):
        work()
    wait()
    return (time.perf_counter() - began) / times


def wait() -> None:
    if CARD.type == "cuda":
        torch.cuda.synchronize()


# ------------------------------------------------------------------------------------------------------------- the step

def training(mae: MAE, forward: torch.nn.Module, batch: Batch) -> Work:
    """On one and the same batch, with one and the same mask."""
    views = ViewPolicy(PolicyConfig(), mae.view_spec, seed=0)(batch)
    return step(mae, lambda: forward(views)[0], "bf16", torch.optim.AdamW(mae.parameters(), fused=True))


def fitting(mae: MAE, batches: tuple[int, ...], side: int) -> Batch:
    """The largest that a step has memory for."""
    for size in batches:
        batch = Batch([f"case{n}" for n in range(size)], torch.rand(size, 1, side, side, device=CARD))
        try:
            training(mae, mae, batch)()
            return batch
        except torch.OutOfMemoryError:
            pass
        mae.zero_grad()  # not sooner: the error holds what the step held
        torch.cuda.empty_cache()
    raise SystemExit(f"The card has no memory for a batch of {batches[-1]}")


# ------------------------------------------------------------------------------------------------------------ the data

class Ready:
    """A loader whose batch is on the card before it is asked for."""

    seed = 0

    def __init__(self, batch: Batch) -> None:
        self.batch = batch

    def batches(self, start: int, stop: int, *how: int) -> Iterator[Batch]:
        for number in range(start, stop):
            yield replace(self.batch, epochs=[number] * len(self.batch.case_ids))


def feeding(name: str, mae: MAE, batch: Batch, settings: Settings) -> Row:
    """ratio: the share of a ready batch's speed that is left where pictures are read from a prepared cache by worker
    processes, cropped, and sent to the card."""
    size, side = batch.image.shape[0], batch.image.shape[-1]
    write_set(settings.scratch, TINY_CASES if settings.tiny else CASES, round(MARGIN * side))
    prepare_set(settings.scratch)
    data = open_data(data_config(settings.scratch))
    real = Loader(data.cache, data.cases["case_id"].to_list(), BoxConfig(size=(side, side)), size, seed=0)
    config = TrainConfig(steps=3 * (TINY_STEPS if settings.tiny else STEPS), batch_size=size, precision="bf16",
                         workers=0 if settings.tiny else WORKERS)
    (read, mib), (ready, ready_mib) = (fitted(mae, loader, config) for loader in (real, Ready(batch)))
    return Row(name, read, ready, "a batch that is ready on the card", ready / read, target=0.95, ours_mib=mib,
               peer_mib=ready_mib)


def fitted(mae: MAE, loader: Loader | Ready, config: TrainConfig) -> tuple[float, float | None]:
    """Milliseconds of a step of `fit`, and its peak of memory.

    The mean of the last two thirds of the steps: workers start and buffers fill in the first.
    """
    ends, policy = [], ViewPolicy(PolicyConfig(), mae.view_spec, seed=0)
    mib = peak(lambda: fit(mae, loader, policy, config, progress=lambda *_, **__: ends.append(time.perf_counter())))
    settled = ends[config.steps // 3:]
    return 1000 * (settled[-1] - settled[0]) / (len(settled) - 1), mib


if __name__ == "__main__":
    if CARD.type == "cuda" or "--tiny" in sys.argv:
        main("gpu", __doc__, measure, repeats=5)
    else:
        print("benchmarks/gpu.py: no GPU here, so nothing was measured; --tiny tries it on the CPU")
