"""What a run shows at work: a bar with the time left or plain lines, its pace, metrics.jsonl, TensorBoard."""

from __future__ import annotations

import json
import logging
import math
import os
import resource
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from medssl.files import append_whole, whole
from medssl.train.events import Events

log = logging.getLogger(__name__)

PLAIN_EVERY = 10.0
"""Seconds between lines when the output is no terminal."""
PACE = ("cases_per_second", "share_loading", "share_augmenting", "share_looking", "share_training", "memory_gib",
        "seconds_left")
"""The figures of a `Pace`."""
SHOWN = {"feature_std": "feature_std {}", "effective_rank": "rank {}", "accuracy": "accuracy {}",
         "contrastive_accuracy": "accuracy {}", "explained_variance": "explained {}", "knn": "knn {}",
         "linear": "linear {}", "cases_per_second": "{} cases/s", "share_training": "{} % training",
         "memory_gib": "{} GiB"}
"""What a live line has room for, and how it is written."""


class Bar:
    """A named piece of work with a known number of parts; a context manager, and callable as `bar(done, total)`.

    The time left is judged by the parts that were seen being done: what a resumed run finds done costs nothing.

    quiet: shows nothing, as in all processes of a run but the first.
    """

    def __init__(self, name: str, total: int | None = None, *, quiet: bool = False) -> None:
        self.name, self.total, self.done, self.note, self.quiet = name, total, 0, "", quiet
        self._console = Console(file=sys.stderr)
        self._live = self._console.is_terminal
        self._started = self._printed = time.monotonic()
        self._first: tuple[int, float] | None = None
        self._rich: Progress | None = None

    def __enter__(self) -> Bar:
        if self._live and not self.quiet:
            self._rich = Progress(
                TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
                TextColumn("left {task.fields[left]}"), TextColumn("{task.fields[note]}"), console=self._console)
            self._rich.start()
            self._task = self._rich.add_task(self.name, total=self.total, left="unknown", note="")
        return self

    def __exit__(self, *exc: object) -> None:
        if self._rich:
            self._rich.stop()
        elif exc[0] is None and not self.quiet and time.monotonic() - self._started > 2:
            print(f"{self.name}: {self.done} done in {spell(time.monotonic() - self._started)}", file=sys.stderr)

    def __call__(self, done: int, total: int | None = None, note: str = "") -> None:
        self.done, self.total, self.note = done, total if total is not None else self.total, note
        if self._first is None:
            self._first = (done, time.monotonic()) if done > 1 else (0, self._started)
        if self._rich:
            self._rich.update(self._task, completed=done, total=self.total, left=self._left(), note=note)
        elif not self.quiet and time.monotonic() - self._printed > PLAIN_EVERY:
            self._printed = time.monotonic()
            print(self._line(), file=sys.stderr, flush=True)

    def _left(self) -> str:
        first, since = self._first
        if not self.total or self.done <= first:
            return "unknown"
        return spell((time.monotonic() - since) / (self.done - first) * (self.total - self.done))

    def _line(self) -> str:
        return f"{self.name}: {self.done}/{self.total or '?'}, {self._left()} left {self.note}".rstrip()


def spell(seconds: float) -> str:
    """95 -> '1 min 35 s': the two greatest units."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    parts = [f"{n} {unit}" for n, unit in ((days, "d"), (hours, "h"), (minutes, "min"), (rest, "s")) if n]
    return " ".join(parts[:2]) or "0 s"


def note_of(loss: float, figures: Mapping[str, float]) -> str:
    """The live line's end, of a loss and any figures: 'loss 0.412 · feature_std 0.83 · rank 41 · 512 cases/s'."""
    shown = [text.format(_brief(figures[name] * (100 if "%" in text else 1)))
             for name, text in SHOWN.items() if name in figures]
    return " · ".join([f"loss {_brief(loss)}", *shown])


def _brief(value: float) -> str:
    """Three digits, thousands written out."""
    return f"{value:.3g}" if not 1000 <= abs(value) < 1e6 else f"{value:.0f}"


class Pace:
    """How fast this process works, and on what its time goes: two readings of a clock for each part of a step.

    A GPU is not waited for: what it augments while the processor is ahead counts as training, where its results are.
    """

    def __init__(self, steps_left: int | None = None) -> None:
        self._steps_left = steps_left
        self._began = self._since = time.perf_counter()
        self._steps = self._cases = 0
        self._spent = dict.fromkeys(("loading", "augmenting", "looking"), 0.0)

    @contextmanager
    def _timed(self, part: str) -> Iterator[None]:
        began = time.perf_counter()
        try:
            yield
        finally:
            self._spent[part] += time.perf_counter() - began

    def loading(self) -> AbstractContextManager[None]:
        """Waiting for the next batch."""
        return self._timed("loading")

    def augmenting(self) -> AbstractContextManager[None]:
        """Making its views."""
        return self._timed("augmenting")

    def looking(self) -> AbstractContextManager[None]:
        """What onlookers ask for."""
        return self._timed("looking")

    def step(self, cases: int) -> None:
        """A step is done, with so many cases on all processes together."""
        self._steps += 1
        self._cases += cases

    def figures(self) -> dict[str, float]:
        """Since the last call: cases a second, and shares of the time, which sum to 1. Since the beginning: the peak of
        memory, the GPU's or else the process's own, and the seconds that the steps left will take."""
        now = time.perf_counter()
        elapsed = max(now - self._since, 1e-9)
        shares = {f"share_{part}": spent / elapsed for part, spent in self._spent.items()}
        found = {"cases_per_second": self._cases / elapsed, **shares, "share_training": 1 - sum(shares.values()),
                 "memory_gib": memory_gib()}
        if self._steps_left is not None and self._steps:
            found["seconds_left"] = (now - self._began) / self._steps * (self._steps_left - self._steps)
        self._since, self._cases, self._spent = now, 0, dict.fromkeys(self._spent, 0.0)
        return found


def memory_gib() -> float:
    """The most that this process ever held: of the GPU's memory where it uses one, else of the machine's."""
    if torch.cuda.is_initialized() and torch.cuda.max_memory_allocated():
        return torch.cuda.max_memory_allocated() / 2**30
    unit = 1 if sys.platform == "darwin" else 2**10  # bytes there, KiB on Linux
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30


class Metrics:
    """A line a call in metrics.jsonl, and the same figures in TensorBoard's event file.

    A disk that is full, or gone, costs lines and never the run: it is told once, no line is left half written, and
    writing goes on where there is room again.
    """

    def __init__(self, folder: Path, first_step: int) -> None:
        self._folder, self._warned = folder, False
        with self._excused():
            folder.mkdir(parents=True, exist_ok=True)
            forget_from(folder / "metrics.jsonl", first_step)
        self._events = Events(folder / f"events.out.tfevents.{time.time():.6f}.{os.getpid()}")
        with self._excused():
            self._events.begin(first_step)

    def write(self, step: int, figures: Mapping[str, float]) -> None:
        line = json.dumps({"step": step} | {k: _rounded(v) for k, v in figures.items()}) + "\n"
        with self._excused():
            append_whole(self._folder / "metrics.jsonl", line.encode())
        with self._excused():
            self._events.scalars(step, figures)

    def show(self, step: int, pictures: Mapping[str, np.ndarray]) -> None:
        """Pictures (H, W, 3) uint8 as <name>.png, over those of an earlier step, and in TensorBoard, where all stay."""
        from PIL import Image

        for name, picture in pictures.items():
            with self._excused(), whole(self._folder / f"{name}.png", durable=False) as draft:
                Image.fromarray(picture).save(draft, "PNG")
            with self._excused():
                self._events.picture(step, name, picture)

    @contextmanager
    def _excused(self) -> Iterator[None]:
        try:
            yield
        except (OSError, MemoryError) as error:
            if not self._warned:
                log.warning("%s cannot be written (%s): the run goes on, and its figures are lost until there is room",
                            getattr(error, "filename", None) or self._folder, getattr(error, "strerror", "no memory"))
            self._warned = True


def forget_from(lines: Path, step: int) -> None:
    """Cuts off what a killed run wrote after its last checkpoint: those steps are about to be done again."""
    if not lines.is_file():
        return
    kept = 0
    for line in lines.read_bytes().splitlines(keepends=True):
        if not _is_before(line, step):
            os.truncate(lines, kept)  # needs no room
            return
        kept += len(line)


def _is_before(line: bytes, step: int) -> bool:
    try:
        return line.endswith(b"\n") and json.loads(line)["step"] < step
    except (ValueError, KeyError, TypeError):
        return False


def _rounded(value: float) -> float | None:
    """None, JSON's null, for what is no finite number: JSON knows no NaN."""
    return float(f"{value:.6g}") if math.isfinite(value) else None
