"""Checkpoints: written beside the old one and moved over it, so a kill or a full disk never costs the last good one."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from torch import nn

from medssl.errors import RunError
from medssl.files import whole

NAME = "last.ckpt"


@dataclass
class Progress:
    """How far a run is.

    step: the next one to do; seconds: spent so far; tail: the losses so far of the last tenth of the steps.
    """

    step: int = 0
    seconds: float = 0.0
    tail: list[float] = field(default_factory=list)


def save_checkpoint(folder: Path, module: nn.Module, optimizer: torch.optim.Optimizer, progress: Progress) -> None:
    """Everything that step `progress.step` needs to go on as if nothing had happened."""
    folder.mkdir(parents=True, exist_ok=True)
    state = {"module": module.state_dict(), "optimizer": optimizer.state_dict(), "progress": asdict(progress),
             "rng": torch.get_rng_state(),
             "cuda_rng": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []}
    with whole(folder / NAME) as draft, draft.open("wb") as file:
        torch.save(state, file)


def load_checkpoint(folder: Path, module: nn.Module, optimizer: torch.optim.Optimizer) -> Progress:
    """Puts the last checkpoint in place, module and optimizer being on their device; says how far the run is.

    RunError where the checkpoint is damaged or of another model.
    """
    path = folder / NAME
    if not path.is_file():
        return Progress()
    try:
        state = torch.load(path, weights_only=True, map_location="cpu")
    except Exception:  # where the damage lies decides what a reader stumbles over
        raise RunError(f"The checkpoint {path} cannot be read", expected="a whole file that this program wrote",
                       remedy="delete it to begin again from step 0, or restore it from a copy") from None
    try:
        module.load_state_dict(state["module"])
        optimizer.load_state_dict(state["optimizer"])
        torch.set_rng_state(state["rng"])
        if state["cuda_rng"] and torch.cuda.is_available():
            torch.cuda.set_rng_state_all(state["cuda_rng"])
        return Progress(**state["progress"])
    except (RuntimeError, KeyError, ValueError, TypeError) as error:
        first = str(error).splitlines()[0]
        raise RunError(f"The checkpoint {path} does not fit: {first}", expected="the state of this very recipe",
                       remedy="delete the run folder, or give another --out") from None
