"""What every task is: a head on an encoder's features, a target, a loss, and predictions a case."""

from __future__ import annotations

from collections.abc import Hashable

import numpy as np
import polars as pl
import torch
from torch import Tensor, nn

from medssl.config import Config
from medssl.models.encoder import Encoder
from medssl.types import Features, Prediction, Views, ViewSpec


class Task(nn.Module):
    """Base of all tasks. A task is built from its own Config and the encoder it stands on.

    Attributes:
        names: what is predicted: findings, regions or quantities.
        needs_mask: whether training reads masks.
    """

    config: Config
    names: tuple[str, ...]
    needs_mask: bool = False

    def prepare_targets(self, cases: pl.DataFrame) -> dict[str, np.ndarray] | None:
        """Targets (L,) by case id for the labelled training cases; None for tasks that learn from masks.

        May set buffers that follow from the training labels alone (a mean, an sd).
        """
        return None

    def to_be_taught(self, cases: pl.DataFrame) -> pl.DataFrame:
        """Those of the labelled training cases of which a model is to say something first that is trained without what
        it says; none, for most tasks."""
        return cases.clear()

    def be_taught(self, said: dict[str, np.ndarray]) -> None:
        """Takes that model's outputs (L,) by case id into `prepare_targets`."""
        raise NotImplementedError

    def forward(self, features: Features, views: Views) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss () and named figures to watch."""
        raise NotImplementedError

    def terms(self, target: Tensor) -> int:
        """How many terms the loss of targets (B, L) is the mean of."""
        return int(torch.isfinite(target).sum())

    def outputs(self, features: Features, size: tuple[int, ...]) -> Tensor:
        """Head outputs: (B, L), or (B, R, *S) for dense tasks."""
        raise NotImplementedError

    def judge(self, case: dict, output: np.ndarray, mask: np.ndarray | None) -> list[Prediction]:
        """One row for each name of a case with truth.

        case: a manifest row; output: (L,), or (R, *S) for dense tasks; mask: (*S) for dense tasks.
        """
        raise NotImplementedError

    @classmethod
    def labelled(cls, config: Config, cases: pl.DataFrame) -> pl.DataFrame:
        """The cases that this task can learn from."""
        raise NotImplementedError

    @classmethod
    def judgeable(cls, config: Config, cases: pl.DataFrame) -> pl.DataFrame:
        """Those of the cases with a truth to be judged by; all that are labelled, for most tasks."""
        return cls.labelled(config, cases)

    @classmethod
    def strata(cls, config: Config, cases: pl.DataFrame) -> list[Hashable]:
        """What label fractions are stratified by, a value a case."""
        raise NotImplementedError


class LabelledModel(nn.Module):
    """An encoder and a task, with the face of an objective, so that one loop trains both."""

    def __init__(self, encoder: Encoder, task: Task) -> None:
        super().__init__()
        self.encoder, self.task = encoder, task
        self._lr_shares: dict[str, float] = {}
        self._still: list[nn.Module] = []

    @property
    def view_spec(self) -> ViewSpec:
        return ViewSpec(count=1)

    def forward(self, views: Views) -> tuple[Tensor, dict[str, Tensor]]:
        return self.task(self.encoder(views.images[0]), views)

    def outputs(self, images: Tensor) -> Tensor:
        """The task's, of images (B, C, *S)."""
        return self.task.outputs(self.encoder(images), tuple(images.shape[2:]))

    def tune(self, layer_decay: float = 1.0, thawed: int | None = None) -> None:
        """Says how the encoder is changed in training.

        Args:
            layer_decay: how much of the rate of the layer above it each layer has; what comes after the last layer has
                all of it.
            thawed: how many of its last layers are trained, with what comes after them; 0 for none of the encoder.
        """
        encoder, layers = self.encoder, len(self.encoder.layers)
        still = {None: 0, 0: layers + 1}.get(thawed, layers - (thawed or 0))
        for name, parameter in encoder.named_parameters():
            self._lr_shares[f"encoder.{name}"] = layer_decay ** (layers - encoder.layer_of(name))
            parameter.requires_grad_(encoder.layer_of(name) >= still)
        self._still = [part for name, part in encoder.named_modules() if encoder.layer_of(name) < still]

    def train(self, mode: bool = True) -> LabelledModel:
        """Running statistics of what is not trained stay, too."""
        super().train(mode)
        for part in self._still:
            part.eval()
        return self

    def lr_shares(self) -> dict[str, float]:
        return self._lr_shares

    def parts(self) -> dict[str, nn.Module]:
        """What is saved: the encoder, and the task's decoder and head."""
        return {"encoder": self.encoder, "task": self.task}

    def fixed_lr_parameters(self) -> list[nn.Parameter]:
        return []
