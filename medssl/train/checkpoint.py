"""Checkpoints: written beside the old one and moved over it, so a kill or a full disk never costs the last good one.

The one before stays too, in case the last is damaged. What they hold does not depend on the number of processes.
"""

from __future__ import annotations

import errno
import logging
import os
import time
import zipfile
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)

from medssl.archives import require_no_bomb
from medssl.errors import RunError
from medssl.files import whole
from medssl.train.launch import World
from medssl.train.step import is_out_of_memory
from medssl.train.watch import Watch

log = logging.getLogger(__name__)

NAME, EARLIER = "last.ckpt", "earlier.ckpt"
FORMAT = 2
WHOLE = StateDictOptions(full_state_dict=True, cpu_offload=True)


@dataclass
class Progress:
    """How far a run is.

    step: the next one to do; seconds: spent so far; tail: the losses so far of the last tenth of the steps; halvings:
    how often memory did not suffice for a part of a batch; refused: steps in a row that were not taken, their loss or
    gradient not being finite; watch: what was seen of its health.
    """

    step: int = 0
    seconds: float = 0.0
    tail: list[float] = field(default_factory=list)
    halvings: int = 0
    refused: int = 0
    watch: Watch = field(default_factory=Watch)


class Checkpoints:
    """Those of one run, written now and then; of a run without a folder, none."""

    def __init__(self, folder: Path | None, world: World, module: nn.Module, optimizer: torch.optim.Optimizer,
                 every: float) -> None:
        """every: seconds between them."""
        self._folder = folder / "checkpoints" if folder else None
        self._world, self._module, self._optimizer, self._every = world, module, optimizer, every
        self._written = time.monotonic()

    def load(self) -> Progress | None:
        return load_checkpoint(self._folder, self._world, self._module, self._optimizer) if self._folder else None

    @property
    def is_due(self) -> bool:
        """Of several processes the first one's clock counts."""
        return self._world.is_first and time.monotonic() - self._written > self._every

    def first(self, progress: Progress) -> Progress:
        """Writes the first one, before anything is learnt: OSError where the disk would not take it."""
        if self._folder:
            save_checkpoint(self._folder, self._world, self._module, self._optimizer, progress)
        return progress

    def forget(self) -> None:
        """Removes the first one, of a recipe that cannot take its first step: it may be mended in its folder."""
        if self._folder and self._world.is_first:
            (self._folder / NAME).unlink(missing_ok=True)

    def write(self, progress: Progress) -> bool:
        """Whether it could be written; of several processes all must call it. A disk that is full, or away for a while,
        does not end the run: the next checkpoint is tried in its time."""
        if not self._folder:
            return False
        self._written = time.monotonic()
        try:
            save_checkpoint(self._folder, self._world, self._module, self._optimizer, progress)
            return True
        except OSError as error:
            log.warning(f"no checkpoint of step {progress.step} ({error.strerror}): make room; the one before is kept")
            return False


def save_checkpoint(folder: Path, world: World, module: nn.Module, optimizer: torch.optim.Optimizer,
                    progress: Progress) -> None:
    """Everything that step `progress.step` needs to go on as if nothing had happened; all processes must call it."""
    if world.is_sharded:
        weights, moments = get_model_state_dict(module, options=WHOLE), {}
        if optimizer.state:  # torch would make up those of a step that was never taken
            moments = get_optimizer_state_dict(module, optimizer, options=WHOLE).get("state", {})
    else:
        weights, moments = module.state_dict(), _by_name(module, optimizer)
    if world.is_first:
        _write(folder, {"format": FORMAT, "module": weights, "optimizer": moments, "progress": asdict(progress)})


def load_checkpoint(folder: Path, world: World, module: nn.Module, optimizer: torch.optim.Optimizer) -> Progress | None:
    """Puts the last good checkpoint in place, module and optimizer being on their device; says how far the run is.

    None where there is no checkpoint; RunError where all are damaged, or of another model.
    """
    path, state = _last_good(folder)
    if state is None:
        return None
    if path.name == EARLIER and world.is_first:  # lest the next one be kept beside a damaged file
        (folder / NAME).unlink(missing_ok=True)
    if state.get("format") != FORMAT:
        raise RunError(f"The checkpoint {path} was written by another version of medssl", expected=f"format {FORMAT}",
                       remedy="finish the run with that version, or begin anew with another --out")
    try:
        if world.is_sharded:
            set_model_state_dict(module, state["module"], options=StateDictOptions(full_state_dict=True))
            if state["optimizer"]:
                groups = get_optimizer_state_dict(module, optimizer)["param_groups"]
                set_optimizer_state_dict(module, optimizer, {"state": state["optimizer"], "param_groups": groups},
                                         options=StateDictOptions(full_state_dict=True))
        else:
            module.load_state_dict(state["module"])
            optimizer.load_state_dict(_by_number(module, optimizer, state["optimizer"]))
        progress = Progress(**state["progress"])
        return replace(progress, watch=Watch(**state["progress"]["watch"]))
    except (RuntimeError, KeyError, ValueError, TypeError) as error:
        if is_out_of_memory(error):
            raise
        first = str(error).splitlines()[0]
        raise RunError(f"The checkpoint {path} does not fit: {first}", expected="the state of this very recipe",
                       remedy="delete the run folder, or give another --out") from None


def _write(folder: Path, state: dict[str, Any]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    try:
        _write_beside(folder, state)
    except OSError:  # perhaps for want of the room that the one before takes up
        if not (folder / EARLIER).is_file() or not (folder / NAME).is_file():
            raise
        (folder / EARLIER).unlink()
        _write_beside(folder, state)


def _write_beside(folder: Path, state: dict[str, Any]) -> None:
    with whole(folder / NAME) as draft:
        with draft.open("wb") as file:
            torch.save(state, file)
        if (folder / NAME).is_file():
            os.replace(folder / NAME, folder / EARLIER)


def _last_good(folder: Path) -> tuple[Path, dict[str, Any] | None]:
    damaged = []
    for path in (folder / NAME, folder / EARLIER):
        if not path.is_file():
            continue
        try:
            state = read_state(path)
        except FileNotFoundError:  # another process has found it damaged, and removed it
            continue
        except Exception as error:  # where the damage lies decides what a reader stumbles over
            if is_out_of_memory(error):
                raise
            if isinstance(error, OSError) and error.errno != errno.EINVAL:  # a seek to where a damaged file points
                raise RunError(f"The checkpoint {path} cannot be read now ({error.strerror})",
                               expected="a readable file", remedy="see to its permissions and its disk, and "
                               "give the same command again") from None
            damaged.append(path)
            continue
        if damaged:
            log.warning(f"the checkpoint {damaged[0]} is damaged: the run goes on from the one before it")
        return path, state
    if damaged:
        raise RunError(f"The checkpoint {damaged[0]} cannot be read", expected="a whole file that this program wrote",
                       remedy="delete it to begin again from step 0, or restore it from a copy")
    return folder / NAME, None


def read_state(path: Path) -> dict[str, Any]:
    """What a checkpoint holds, on the CPU; nothing in it is ever run. Some error or other where it is damaged."""
    require_no_bomb(path)
    with zipfile.ZipFile(path) as parts:
        if parts.testzip():  # torch does not look at the checksums that it writes
            raise ValueError("a checksum differs")
    return torch.load(path, weights_only=True, map_location="cpu")


def _by_name(module: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, dict[str, Tensor]]:
    """What an optimiser remembers of each parameter, by the parameter's name."""
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    return {names[id(parameter)]: kept for parameter, kept in optimizer.state.items()}


def _by_number(module: nn.Module, optimizer: torch.optim.Optimizer, kept: dict[str, dict[str, Tensor]]) -> dict:
    """The same as an optimiser wants it: by the parameter's place in its groups."""
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    ordered = [names[id(parameter)] for group in optimizer.param_groups for parameter in group["params"]]
    if unknown := set(kept) - set(ordered):
        raise KeyError(f"no parameter {sorted(unknown)[0]}")
    return {"state": {number: kept[name] for number, name in enumerate(ordered) if name in kept},
            "param_groups": optimizer.state_dict()["param_groups"]}
