"""A finetuned model as it was saved: its encoder and its task, with nothing of the data that it learnt from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from medssl.errors import RunError
from medssl.models.encoder import Encoder
from medssl.models.weights import PartTensors, encoder_of, load_into, load_parts
from medssl.tasks import TaskConfig, build_task
from medssl.tasks.task import LabelledModel


@dataclass(frozen=True, eq=False)
class SavedModel:
    """A finetuning run's encoder, and what its task is built of."""

    encoder: Encoder
    tensors: PartTensors
    description: dict[str, Any]

    @classmethod
    def open(cls, run: str | Path) -> SavedModel:
        """Of a run folder, or the one file that it was exported to; RunError where it was not finetuned."""
        tensors, description = load_parts(run)
        if "task" not in tensors:
            raise RunError(f"{run} is not a finetuning run: it has no task", expected="what medssl finetune wrote",
                           remedy="finetune first")
        return cls(encoder_of(tensors, description, run), tensors, description)

    def with_task(self, changes: Mapping[str, Any] | None = None,
                  regions: Mapping[str, list[int]] | None = None) -> LabelledModel:
        """The whole model, in eval mode.

        Args:
            changes: settings of the task that have no part in its weights, in place of the run's.
            regions: {region: the mask's values}, in place of the run's.
        """
        config = TypeAdapter(TaskConfig).validate_python(self.description["task"] | dict(changes or {}))
        known = self.description.get("regions", {}) if regions is None else regions
        task = build_task(config, self.encoder, dict(known))
        load_into(task, self.tensors, "task")
        return LabelledModel(self.encoder, task).eval()
