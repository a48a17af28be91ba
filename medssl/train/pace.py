"""How fast a run goes, and on what its time and memory go."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

import torch

PACE = ("cases_per_second", "share_loading", "share_augmenting", "share_looking", "share_training", "memory_gib",
        "seconds_left")
"""The figures of a `Pace`."""


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
