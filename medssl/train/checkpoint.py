"""Checkpoints: written beside the old one and moved over it, so that a kill or a full disk never costs the last good one."""

from __future__ import annotations

import os
from pathlib import Path

import torch
from torch import nn

from medssl.errors import RunError

NAME = "last.ckpt"


def save_checkpoint(folder: Path, module: nn.Module, optimizer: torch.optim.Optimizer, step: int) -> None:
    """Everything that step `step` needs to go on as if nothing had happened."""
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / f".{NAME}"
    state = {"module": module.state_dict(), "optimizer": optimizer.state_dict(), "step": step,
             "rng": torch.get_rng_state()}
    with open(temporary, "wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, folder / NAME)


def load_checkpoint(folder: Path, module: nn.Module, optimizer: torch.optim.Optimizer) -> int:
    """Puts the last checkpoint in place and returns the step to go on with; 0 where there is none."""
    path = folder / NAME
    if not path.is_file():
        return 0
    try:
        state = torch.load(path, weights_only=True, map_location="cpu")
        module.load_state_dict(state["module"])
        optimizer.load_state_dict(state["optimizer"])
    except (RuntimeError, KeyError, ValueError, EOFError) as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise RunError(f"The checkpoint {path} does not fit: {first}", expected="the state of this very recipe",
                       remedy="delete the run folder, or give another --out") from None
    torch.set_rng_state(state["rng"])
    return state["step"]
