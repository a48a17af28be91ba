"""Onlookers: what a run is asked now and then beside its loss, by callbacks that layers above the loop offer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from pydantic import PositiveInt, field_validator
from torch import nn

from medssl.config import Config


@dataclass
class Sight:
    """What was seen. figures: by name; pictures: by name, each (H, W, 3) uint8."""

    figures: dict[str, float] = field(default_factory=dict)
    pictures: dict[str, np.ndarray] = field(default_factory=dict)


Onlooker = Callable[[nn.Module, int], Sight]
"""Called with the module in evaluation mode, and the step; it leaves the module as it is."""


class OnlineConfig(Config):
    """While a run goes on, what its features already tell of the labels that some of its training patients have."""

    how: Literal["knn", "linear", "off"] = "knn"
    """Nearest neighbours, or a linear probe, which takes longer; `off` looks at no label."""
    labels: tuple[str, ...] | None = None
    """Names as in the manifest's `label.*` columns; null takes all that enough cases have."""
    cases: PositiveInt = 400
    """So many labelled cases are looked at, at most."""
    seed: int = 0
    """Which cases those are, and in which half each patient is."""

    @field_validator("how", mode="before")
    @classmethod
    def _off_is_a_word(cls, how: object) -> object:
        return "off" if how is False else how  # YAML takes it for a truth value
