"""Worker processes, one thread each unless told otherwise; one that is killed ends in a message, not a traceback."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import get_context

from medssl.errors import RunError


@contextmanager
def worker_pool(workers: int, initializer: Callable[..., None], *initargs: object) -> Iterator[ProcessPoolExecutor]:
    """A pool of spawned processes. RunError where one of them was killed: what the others finished is kept."""
    context = get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=initializer, initargs=initargs) as pool:
        try:
            yield pool
        except BrokenProcessPool:
            raise RunError("A worker process was killed, most likely for want of memory",
                           expected=f"room for {workers} processes",
                           remedy="run the same command again, with fewer --workers or a smaller batch; what is done "
                                  "is kept. A script of your own needs `if __name__ == \"__main__\":`") from None
