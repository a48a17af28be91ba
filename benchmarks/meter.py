"""How long a piece of work takes, and the most memory that it holds.

Needs nothing but the standard library, for peers' own environments have no more; and torch, for a GPU's memory.
"""

from __future__ import annotations

import ctypes
import gc
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

STATUS, RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def milliseconds(work: Callable[[], Any]) -> float:
    gc.collect()
    gc.disable()
    try:
        began = time.perf_counter()
        result = work()
        ended = time.perf_counter()
    finally:
        gc.enable()
    del result  # giving memory back is not part of the work
    return 1000 * (ended - began)


def peak_mib(work: Callable[[], Any]) -> float | None:
    """MiB of resident memory at `work`'s highest moment, beyond what was resident before; None where the kernel does
    not tell (it does under Linux, to whoever may write /proc/self/clear_refs).

    What the process has freed is given back first, so that memory left over from earlier work does not hide any.
    """
    gc.collect()
    try:
        ctypes.CDLL(None).malloc_trim(0)
        RESET.write_text("5")  # the highest so far becomes what there is now
    except (OSError, AttributeError):
        return None
    before = resident_mib()
    work()
    return highest_mib() - before


def gpu_peak_mib(work: Callable[[], Any]) -> float:
    """The same of the current CUDA device, as torch's allocator counts it."""
    import torch

    gc.collect()
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    work()
    torch.cuda.synchronize()
    return (torch.cuda.max_memory_allocated() - before) / 2**20


def resident_mib() -> float:
    """MiB of this process in memory, what it has mapped of files among it."""
    return _status("VmRSS")


def highest_mib() -> float:
    """The most that it ever was, since the process began or since `peak_mib` last looked."""
    return _status("VmHWM")


def _status(field: str) -> float:
    return int(re.search(rf"{field}:\s+(\d+) kB", STATUS.read_text())[1]) / 1024
