"""What a run shows at work: a bar with the time left (plain lines off a terminal), metrics.jsonl, TensorBoard."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from medssl.errors import ConfigError
from medssl.files import write_whole

PLAIN_EVERY = 10.0
"""Seconds between lines when the output is no terminal."""


class Bar:
    """A named piece of work with a known number of parts; a context manager, and callable as `bar(done, total)`.

    quiet: shows nothing, as in all processes of a run but the first.
    """

    def __init__(self, name: str, total: int | None = None, *, quiet: bool = False) -> None:
        self.name, self.total, self.done, self.note, self.quiet = name, total, 0, "", quiet
        self._console = Console(file=sys.stderr)
        self._live = self._console.is_terminal
        self._started = self._printed = time.monotonic()
        self._rich: Progress | None = None

    def __enter__(self) -> Bar:
        if self._live and not self.quiet:
            self._rich = Progress(
                TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
                TextColumn("left"), TimeRemainingColumn(), TextColumn("{task.fields[note]}"), console=self._console)
            self._rich.start()
            self._task = self._rich.add_task(self.name, total=self.total, note="")
        return self

    def __exit__(self, *exc: object) -> None:
        if self._rich:
            self._rich.stop()
        elif exc[0] is None and not self.quiet and time.monotonic() - self._started > 2:
            print(f"{self.name}: {self.done} done in {spell(time.monotonic() - self._started)}", file=sys.stderr)

    def __call__(self, done: int, total: int | None = None, note: str = "") -> None:
        self.done, self.total, self.note = done, total if total is not None else self.total, note
        if self._rich:
            self._rich.update(self._task, completed=done, total=self.total, note=note)
        elif not self.quiet and time.monotonic() - self._printed > PLAIN_EVERY:
            self._printed = time.monotonic()
            print(self._line(), file=sys.stderr, flush=True)

    def _line(self) -> str:
        elapsed = time.monotonic() - self._started
        left = spell(elapsed / self.done * (self.total - self.done)) if self.done and self.total else "unknown"
        return f"{self.name}: {self.done}/{self.total or '?'}, {left} left {self.note}".rstrip()


def spell(seconds: float) -> str:
    """95 -> '1 min 35 s'."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    parts = [(hours, "h"), (minutes, "min"), (rest, "s")]
    return " ".join(f"{n} {unit}" for n, unit in parts if n)[:16] or "0 s"


class Metrics:
    """Appends a line a call to metrics.jsonl, and the same figures to TensorBoard's event file."""

    def __init__(self, folder: Path, first_step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._path = folder / "metrics.jsonl"
        self._forget_from(first_step)
        self._writer = SummaryWriter(str(folder), purge_step=first_step)

    def _forget_from(self, step: int) -> None:
        """Drops what a killed run wrote after its last checkpoint: those steps are about to be done again."""
        if not self._path.is_file():
            return
        lines = []
        for line in self._path.read_text().splitlines():
            try:
                if json.loads(line)["step"] < step:
                    lines.append(line)
            except (json.JSONDecodeError, KeyError):
                continue
        write_whole(self._path, "".join(f"{line}\n" for line in lines))

    def write(self, step: int, figures: dict[str, float]) -> None:
        with open(self._path, "a") as file:
            file.write(json.dumps({"step": step} | {k: _rounded(v) for k, v in figures.items()}) + "\n")
        for name, value in figures.items():
            self._writer.add_scalar(name, value, step)

    def __enter__(self) -> Metrics:
        return self

    def __exit__(self, *exc: object) -> None:
        self._writer.close()


def _rounded(value: float) -> float:
    return float(f"{value:.6g}")


@contextmanager
def norms_explained(batch_size: int) -> Iterator[None]:
    """ConfigError where a batch or instance norm meets one value a channel, whose deviation torch refuses to take."""
    try:
        yield
    except ValueError as error:
        refused, _, shape = str(error).partition(" when training, got input size ")
        if not refused.startswith("Expected more than 1 "):
            raise
        larger = "make views larger: augment.size, or data.box.size where that is left out"
        more = "give train.batch_size=2 or more, or " if "value per channel" in refused and batch_size < 2 else ""
        raise ConfigError(f"A norm has one value a channel to normalise, in maps {shape}, with train.batch_size "
                          f"{batch_size}", expected="at least 2", remedy=more + larger) from None
