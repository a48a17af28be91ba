"""What a command shows of its progress: a bar with the time left on a terminal, plain lines anywhere else."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

PLAIN_EVERY = 10.0
"""Seconds between lines when the output is no terminal."""
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
