"""The learning rate of a point, chosen on labelled patients that are held out from those it may learn from.

Each point has its own labelled patients, and nobody else's label chooses anything for it: the held-out part shrinks
with the labels. With few of them the choice is little better than chance, for every arm alike.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

import polars as pl
from pydantic import Field, PositiveFloat, PositiveInt

from medssl.config import Config
from medssl.errors import TrainingError
from medssl.evaluate.scoring import PRIMARY, higher_is_better, score_unit
from medssl.tasks import TaskConfig
from medssl.train.finetune import label_fractions
from medssl.train.step import OutOfMemory


class ChoiceConfig(Config):
    """Chooses each point's learning rate among some; it is then trained on all of its labelled patients by the best."""

    lrs: Annotated[tuple[PositiveFloat, ...], Field(min_length=2)]
    held_out: float = Field(0.25, gt=0, lt=1)
    """Share of a point's labelled patients that is held out, stratified as label fractions are."""
    repeats: PositiveInt = 1
    """So many parts are held out in turn, drawn anew, and the scores averaged. A point is trained repeats × rates + 1
    times."""


@dataclass(frozen=True)
class Choice:
    """lr: None where nothing could be told apart. scores: mean held-out score by rate, in the primary metric. diverged:
    the rates at which a training did."""

    lr: float | None
    scores: dict[float, float]
    diverged: tuple[float, ...] = ()


Attempt = Callable[[pl.DataFrame, pl.DataFrame, float], pl.DataFrame]
"""Trains on cases, judges others, at a learning rate: the predictions."""


def choose_lr(config: ChoiceConfig, task: TaskConfig, cases: pl.DataFrame, seed: int, attempt: Attempt) -> Choice:
    """The rate whose models, trained on a part of these labelled `cases`, judge the rest best.

    Held-out parts that the metric says nothing of, such as those of one class, count for no rate; and a rate at which
    one training diverged is not chosen.
    """
    diverged: set[float] = set()
    metric = PRIMARY[task.name]
    scores: dict[float, list[float]] = {lr: [] for lr in config.lrs}
    for repeat in range(config.repeats):
        name = f"held out to choose by, {repeat}"
        kept = label_fractions(task, cases, [1 - config.held_out], seed, name)[1 - config.held_out]
        inside = cases["patient_id"].is_in(kept)
        if inside.all():
            break
        for lr in config.lrs:
            try:
                predictions = attempt(cases.filter(inside), cases.filter(~inside), lr)
            except OutOfMemory:
                raise
            except TrainingError:
                diverged.add(lr)
                continue
            if not predictions["prediction"].is_finite().all():
                diverged.add(lr)
            elif len(predictions):
                scores[lr].append(score_unit(task.name, predictions)[metric])
    known = {lr: [score for score in found if math.isfinite(score)] for lr, found in scores.items()}
    means = {lr: sum(found) / len(found) for lr, found in known.items() if found and lr not in diverged}
    best = (max if higher_is_better(metric) else min)(means, key=means.get, default=None)
    return Choice(best, means, tuple(sorted(diverged)))
