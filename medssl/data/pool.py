"""Worker processes: one that a decoder takes down with it costs one case, and never the program."""

from __future__ import annotations

import faulthandler
import os
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from itertools import islice
from multiprocessing import active_children, connection, get_all_start_methods, get_context, parent_process
from multiprocessing.context import BaseContext
from threading import Thread
from typing import TypeVar

from medssl.errors import RunError

HEAVY = ["monai.inferers", "monai.networks.nets.basic_unet", "monai.networks.nets.resnet", "polars", "torch"]
"""What most workers need and what takes seconds to import."""
AHEAD = 4
"""Jobs handed out for each worker, so that none waits for the next."""
DEADLINE = 900.0
"""Seconds after which a job is taken to hang."""
LOST = f"a decoder crashed on it, or took more than {DEADLINE / 60:.0f} minutes or more memory than there is"
LOST_REMEDY = "export it again uncompressed, or leave it out; if it is large, give it more memory"

Job, Result = TypeVar("Job"), TypeVar("Result")


@contextmanager
def worker_pool(workers: int, initializer: Callable[..., None], *initargs: object) -> Iterator[ProcessPoolExecutor]:
    """A pool of fresh processes, which end with this one, and at once where it is told to stop. RunError where one of
    them was killed: what the others finished is kept."""
    os.umask(umask := os.umask(0o077))  # the server may have been started under another
    start, others = (umask, initializer, *initargs), set(active_children())
    with ProcessPoolExecutor(workers, mp_context=_context(), initializer=_start, initargs=start) as pool:
        try:
            yield pool
        except BrokenProcessPool:
            raise RunError("A worker process was killed, most likely for want of memory",
                           expected=f"room for {workers} processes",
                           remedy="run the same command again, with fewer --workers or a smaller batch; what is done "
                                  "is kept. A script of your own needs `if __name__ == \"__main__\":`") from None
        except Exception:
            pool.shutdown(cancel_futures=True)
            raise
        except BaseException:  # the pool would wait for the jobs at hand, and a finetuning takes minutes
            for worker in set(active_children()) - others:
                worker.terminate()
            raise


def results(
    function: Callable[[Job], Result], jobs: Iterable[Job], workers: int, lost: Callable[[Job], Result]
) -> Iterator[Result]:
    """What `function` gives for each job, as they finish, of worker processes with one thread each.

    A job at which its worker dies (a decoder crashed, or wanted too much memory) or which takes longer than DEADLINE is
    tried once more, alone; if that worker dies too, `lost(job)` stands in for its result.

    Args:
        workers: processes; 0 does all in this one, which a crash then ends.
    """
    if workers == 0:
        yield from map(function, jobs)
        return
    jobs = iter(jobs)
    while suspects := (yield from _until_one_dies(function, jobs, workers, ahead=AHEAD * workers)):
        alone = iter(suspects)
        while guilty := (yield from _until_one_dies(function, alone, workers=1, ahead=1)):
            yield lost(*guilty)


def _until_one_dies(
    function: Callable[[Job], Result], jobs: Iterator[Job], workers: int, ahead: int
) -> Generator[Result, None, list[Job]]:
    """Yields the results of jobs until a worker dies; returns those that were drawn from `jobs` and have none."""
    waiting: dict[Future[Result], Job] = {}
    dead: list[Job] = []
    with worker_pool(workers, _one_thread) as pool:
        pool.submit(_nothing).result()  # where a worker cannot even start, no job is to blame
        while True:
            for job in islice(jobs, 0 if dead else ahead - len(waiting)):
                waiting[_submit(pool, function, job)] = job
            if not waiting:
                return dead
            for future in wait(waiting, return_when=FIRST_COMPLETED).done:
                job = waiting.pop(future)
                if isinstance(future.exception(), BrokenProcessPool):
                    dead.append(job)
                else:
                    yield future.result()


def _submit(pool: ProcessPoolExecutor, function: Callable[[Job], Result], job: Job) -> Future[Result]:
    try:
        return pool.submit(_within_deadline, DEADLINE, function, job)
    except BrokenProcessPool as error:  # a worker died since the last result
        future: Future[Result] = Future()
        future.set_exception(error)
        return future


def _within_deadline(seconds: float, function: Callable[[Job], Result], job: Job) -> Result:
    """Ends this process when the seconds are over, even from within a decoder that never returns to Python."""
    with open(os.devnull, "w") as nowhere:
        faulthandler.dump_traceback_later(seconds, exit=True, file=nowhere)
        try:
            return function(job)
        finally:
            faulthandler.cancel_dump_traceback_later()


def cores() -> int:
    """Cores that this process may use: on a cluster fewer than the machine has."""
    return min(os.cpu_count() or 1, len(os.sched_getaffinity(0)))


def end_with_parent() -> None:
    """Lets this process end when its parent has: it would wait for work, and hold its memory, for ever."""
    Thread(target=_wait_for_parent_s_end, daemon=True).start()


def _wait_for_parent_s_end() -> None:
    connection.wait([parent_process().sentinel])  # at once, if it was killed before this process was up
    os._exit(1)


def _start(umask: int, initializer: Callable[..., None], *initargs: object) -> None:
    os.umask(umask)
    end_with_parent()
    initializer(*initargs)


def _one_thread() -> None:
    import torch

    torch.set_num_threads(1)


def _nothing() -> None:
    pass


def _context() -> BaseContext:
    """Workers are forked from a server that has no threads and imports once for all pools of this process."""
    if "forkserver" not in get_all_start_methods():
        return get_context("spawn")
    context = get_context("forkserver")
    context.set_forkserver_preload(HEAVY)
    return context
