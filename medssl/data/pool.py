"""Worker processes, one thread each unless told otherwise; one that is killed ends in a message, not a traceback."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from itertools import islice
from multiprocessing import connection, get_all_start_methods, get_context, parent_process
from multiprocessing.context import BaseContext
from threading import Thread
from typing import TypeVar

from medssl.errors import RunError

HEAVY = ["monai.inferers", "monai.networks.nets.basic_unet", "monai.networks.nets.resnet", "polars", "torch"]
"""What most workers need and what takes seconds to import."""

Job, Result = TypeVar("Job"), TypeVar("Result")


@contextmanager
def worker_pool(workers: int, initializer: Callable[..., None], *initargs: object) -> Iterator[ProcessPoolExecutor]:
    """A pool of fresh processes, which end with this one. RunError where one of them was killed: what the others
    finished is kept."""
    start = (initializer, *initargs)
    with ProcessPoolExecutor(workers, mp_context=_context(), initializer=_start, initargs=start) as pool:
        try:
            yield pool
        except BrokenProcessPool:
            raise RunError("A worker process was killed, most likely for want of memory",
                           expected=f"room for {workers} processes",
                           remedy="run the same command again, with fewer --workers or a smaller batch; what is done "
                                  "is kept. A script of your own needs `if __name__ == \"__main__\":`") from None


def results(
    pool: ProcessPoolExecutor, function: Callable[[Job], Result], jobs: Iterable[Job], ahead: int
) -> Iterator[Result]:
    """What `function` gives for each job, as they finish; at most `ahead` jobs are drawn before their turn."""
    jobs, waiting = iter(jobs), set()
    try:
        while True:
            waiting |= {pool.submit(function, job) for job in islice(jobs, ahead - len(waiting))}
            if not waiting:
                return
            done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
            for future in done:
                yield future.result()
    finally:
        for future in waiting:
            future.cancel()


def cores() -> int:
    """Cores that this process may use: on a cluster fewer than the machine has."""
    return min(os.cpu_count() or 1, len(os.sched_getaffinity(0)))


def _start(initializer: Callable[..., None], *initargs: object) -> None:
    Thread(target=_end_with_parent, daemon=True).start()
    initializer(*initargs)


def _end_with_parent() -> None:
    """A worker whose parent was killed would wait for work, and hold its memory, for ever."""
    connection.wait([parent_process().sentinel])
    os._exit(1)


def _context() -> BaseContext:
    """Workers are forked from a server that has no threads and imports once for all pools of this process."""
    if "forkserver" not in get_all_start_methods():
        return get_context("spawn")
    context = get_context("forkserver")
    context.set_forkserver_preload(HEAVY)
    return context
