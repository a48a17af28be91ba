"""Worker processes, one thread each unless told otherwise; one that is killed ends in a message, not a traceback."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import get_all_start_methods, get_context
from multiprocessing.context import BaseContext

from medssl.errors import RunError

HEAVY = ["monai.inferers", "monai.networks.nets.basic_unet", "monai.networks.nets.resnet", "polars", "torch"]
"""What most workers need and what takes seconds to import."""


@contextmanager
def worker_pool(workers: int, initializer: Callable[..., None], *initargs: object) -> Iterator[ProcessPoolExecutor]:
    """A pool of fresh processes. RunError where one of them was killed: what the others finished is kept."""
    with ProcessPoolExecutor(workers, mp_context=_context(), initializer=initializer, initargs=initargs) as pool:
        try:
            yield pool
        except BrokenProcessPool:
            raise RunError("A worker process was killed, most likely for want of memory",
                           expected=f"room for {workers} processes",
                           remedy="run the same command again, with fewer --workers or a smaller batch; what is done "
                                  "is kept. A script of your own needs `if __name__ == \"__main__\":`") from None


def _context() -> BaseContext:
    """Workers are forked from a server that has no threads and imports once for all pools of this process."""
    if "forkserver" not in get_all_start_methods():
        return get_context("spawn")
    context = get_context("forkserver")
    context.set_forkserver_preload(HEAVY)
    return context
