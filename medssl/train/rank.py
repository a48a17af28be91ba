"""Which of a run's processes this is, as whoever started it says, before any of them has joined."""

from __future__ import annotations

import os
import time

GRACE = 30.0
"""Seconds in which the end of the first process ends the others; whoever lives longer has something of its own to
say."""
_PARENT = os.getppid()


def own_rank() -> int:
    """0 of the first process, and of one that is alone."""
    if "TORCHELASTIC_RUN_ID" in os.environ:
        return int(os.environ["RANK"])
    if int(os.environ.get("SLURM_STEP_NUM_TASKS", 1)) > 1:  # of srun: a batch script by itself is one process
        return int(os.environ["SLURM_PROCID"])
    return int(os.environ.get("LOCAL_RANK", 0))  # of train.devices


def has_the_word() -> bool:
    """Whether to tell how this process ends: what all find, the first one tells. The others wait here for the end that
    torchrun or srun make of them then, or for their parent's."""
    patience = time.monotonic() + GRACE
    while own_rank() and time.monotonic() < patience:
        if os.getppid() != _PARENT:
            return False
        time.sleep(0.1)
    return True
