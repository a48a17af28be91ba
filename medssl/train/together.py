"""What the processes of one run do in turn: the first prepares, writes and tells, and the others wait for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from torch import nn

from medssl.data.source import Data, DataConfig, open_data
from medssl.models.weights import save_model
from medssl.train import run
from medssl.train.launch import World
from medssl.train.loop import Fitted


def open_together(world: World, config: DataConfig, progress: Callable[[int, int], None] | None = None) -> Data:
    """The data, prepared by the first process; the others find it done."""
    data = world.first(lambda: open_data(config, progress))
    return data or open_data(config)


def is_finished(world: World, folder: Path) -> bool:
    """Whether the first process finds the run's model there."""
    (found,) = world.mean(world.is_first and run.is_finished(folder))
    return found > 0


def held_by_first(world: World, folder: Path) -> AbstractContextManager[None]:
    """The folder is this run's alone while it is open; RunError where it is another's."""
    return run.held(folder) if world.is_first else nullcontext()


def finish(folder: Path, fitted: Fitted, parts: Mapping[str, nn.Module], description: Mapping[str, Any]) -> None:
    """Leaves the model, and its results in the provenance."""
    run.finish_run(folder, seconds=round(fitted.seconds, 1), loss=fitted.loss)
    save_model(folder, parts, description)
