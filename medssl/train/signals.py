"""A request to stop, by a person or a cluster, is answered after the step at hand, with a checkpoint."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from multiprocessing import resource_tracker
from types import FrameType
from typing import TypeVar

STOPPING = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)
"""kill and a cluster's preemption; its warning before time runs out (sbatch --signal=USR1@120); Ctrl-C."""

Readers = TypeVar("Readers")


class Signals:
    """While it is open, a first signal is only noted; a second Ctrl-C is what it always was.

    Where it does not `listen`, and elsewhere than in the main thread, signals are none of its business.
    """

    def __init__(self, listen: bool = True) -> None:
        self._listen = listen and threading.current_thread() is threading.main_thread()
        self.received = 0
        """Number of the first signal; 0 while there was none."""
        self._before: dict[int, object] = {}
        self._readers: list[object] = []

    def kept_from(self, start: Callable[[], Readers]) -> Readers:
        """What `start` makes. Processes that it starts hear no signal, which a terminal and a cluster send to all there
        are: they read on until this one, which answers it, ends them."""
        before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)  # they inherit it
        try:
            resource_tracker.ensure_running()  # a child, too; starting it lifts the block
            signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
            self._readers.append(started := start())
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return started

    def __enter__(self) -> Signals:
        if self._listen:
            self._before = {number: signal.signal(number, self._note) for number in STOPPING}
        return self

    def __exit__(self, *exc: object) -> None:
        for reader in self._readers:
            if hasattr(reader, "_shutdown_workers"):  # while an error is told torch leaves it to SIGTERM
                reader._shutdown_workers()
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.received and number == signal.SIGINT:
            signal.signal(number, self._before[number])
            signal.raise_signal(number)
        self.received = self.received or number

