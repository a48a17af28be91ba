"""A run's figures on disk: metrics.jsonl, pictures, and the same for TensorBoard."""

from __future__ import annotations

import json
import logging
import math
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from medssl.files import append_whole, whole
from medssl.train.events import Events

log = logging.getLogger(__name__)


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
