"""Onlookers: what a run is asked now and then beside its loss, by callbacks that layers above the loop offer."""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from pydantic import PositiveInt, field_validator
from torch import nn

from medssl.config import Config

log = logging.getLogger(__name__)


@dataclass
class Sight:
    """What was seen. figures: by name; pictures: by name, each (H, W, 3) uint8."""

    figures: dict[str, float] = field(default_factory=dict)
    pictures: dict[str, np.ndarray] = field(default_factory=dict)


Onlooker = Callable[[nn.Module, int], Sight]
"""Called with the module in evaluation mode, and the step; it leaves the module as it is."""


class Onlookers:
    """All of a run's. One that fails is told of and asked no more: it is not worth a night's work."""

    def __init__(self, onlookers: Iterable[Onlooker] = ()) -> None:
        self._onlookers = list(onlookers)

    def look(self, module: nn.Module, step: int) -> Sight:
        """What they see together."""
        seen = Sight()
        module.eval()
        for onlooker in tuple(self._onlookers):
            try:
                with torch.no_grad():
                    sight = onlooker(module, step)
                seen.figures |= sight.figures
                seen.pictures |= sight.pictures
            except Exception as error:
                told = str(error).partition("\n")[0]
                log.warning(f"the online probe or the reconstructions failed and are left out from here on ({told})")
                self._onlookers.remove(onlooker)
        module.train()
        gc.collect()  # figures hold themselves in cycles, and a loop makes too little anew for Python to look for any
        return seen


class OnlineConfig(Config):
    """What is looked at while a run goes on: what its features already tell of the labels that some of its training
    patients have, and what it paints."""

    how: Literal["knn", "linear", "off"] = "knn"
    """Nearest neighbours, or a linear probe, which takes longer; `off` looks at no label."""
    labels: tuple[str, ...] | None = None
    """Names as in the manifest's `label.*` columns; null takes all that enough cases have."""
    cases: PositiveInt = 400
    """So many labelled cases are looked at, at most."""
    seed: int = 0
    """Which cases those are, and in which half each patient is."""
    pictures: bool = True
    """Of an objective that paints, keep what it makes of some training cases in the run folder."""

    @field_validator("how", mode="before")
    @classmethod
    def _off_is_a_word(cls, how: object) -> object:
        return "off" if how is False else how  # YAML takes it for a truth value
