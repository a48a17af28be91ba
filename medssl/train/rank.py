"""How many processes a run has and which of them this is, as whoever started them says, before any has joined."""

from __future__ import annotations

import os
import signal
import time

from medssl.errors import ConfigError
from medssl.train.signals import STOPPING

MOMENT, GRACE = 2.0, 30.0
"""Seconds that the first process has for its end, which ends the others: asked to stop, and otherwise. Whoever lives
longer then has something of its own to say."""
_PARENT = os.getppid()


def started_by_torchrun() -> bool:
    return "TORCHELASTIC_RUN_ID" in os.environ


def srun_tasks() -> int:
    """How many processes srun started: of a batch script by itself, which is one process, 1."""
    return int(os.environ.get("SLURM_STEP_NUM_TASKS", 1))


def own_rank() -> int:
    """0 of the first process, and of one that is alone."""
    if started_by_torchrun():
        return int(os.environ["RANK"])
    if srun_tasks() > 1:
        return int(os.environ["SLURM_PROCID"])
    return int(os.environ.get("LOCAL_RANK", 0))  # of train.devices


def refuse_several(what: str) -> None:
    """ConfigError where torchrun or srun started several processes for something that one does."""
    processes = int(os.environ["WORLD_SIZE"]) if started_by_torchrun() else srun_tasks()
    if processes > 1:
        raise ConfigError(f"{processes} processes were started for {what}", expected="one", remedy="start it without "
                          "torchrun and with one task; medssl pretrain and finetune take several")


def has_the_word(asked: bool) -> bool:
    """Whether to tell how this process ends: what all find, such as that they were `asked` to stop, the first one
    tells. The others wait here to be ended by torchrun or srun, or by the death of their parent."""
    if own_rank() == 0:
        return True
    ended: list[int] = []
    for number in STOPPING:
        signal.signal(number, lambda number, _: ended.append(number))
    patience = time.monotonic() + (MOMENT if asked else GRACE)
    while time.monotonic() < patience:
        if ended or os.getppid() != _PARENT:
            return False
        time.sleep(0.1)
    return not asked
