"""Tasks: head + target + loss + predictions for one kind of label. A new one is a file and a line in this table."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from medssl.models.encoder import Encoder
from medssl.tasks.classify import Classify
from medssl.tasks.regress import Regress
from medssl.tasks.segment import Segment
from medssl.tasks.task import LabelledModel, Task

TASKS: dict[str, type[Task]] = {
    "classify": Classify,
    "segment": Segment,
    "regress": Regress,
}

TaskConfig = Annotated[Classify.Config | Segment.Config | Regress.Config, Field(discriminator="name")]

__all__ = ["TASKS", "LabelledModel", "Task", "TaskConfig", "build_task"]


def build_task(config: TaskConfig, encoder: Encoder, regions: dict[str, list[int]]) -> Task:
    """The task that a recipe names, on this encoder; `regions` are the card's."""
    return TASKS[config.name](config, encoder, regions)
