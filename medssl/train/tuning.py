"""How a labelled training changes the encoder that it starts from."""

from __future__ import annotations

from typing import Literal

import numpy as np
import polars as pl
import torch
from pydantic import Field, NonNegativeInt
from torch import Tensor, nn

from medssl.augment.policy import PolicyConfig
from medssl.config import Config
from medssl.data.source import Data
from medssl.errors import ConfigError
from medssl.models.head import LinearHead
from medssl.tasks import LabelledModel
from medssl.train.features import pooled_features, standardisation
from medssl.train.precision import Precision
from medssl.types import Features, Views

PROBE = 0.01
"""Inverse regularisation of the probe that a head starts from, as scikit-learn's C and 1 / alpha."""


class TuningConfig(Config):
    """How a labelled training changes the encoder that it starts from: by default all of it, at one rate."""

    layer_decay: float = Field(1.0, gt=0, le=1)
    """Each layer of the encoder has so much of the learning rate of the layer above it (BEiT, arXiv 2106.08254); MAE
    finetunes a ViT-B by 0.65."""
    thawed: NonNegativeInt | None = None
    """So many of the encoder's last layers (a ViT's blocks, a CNN's stages, each with the stem as a layer more) are
    trained, and the others stay as they are. 0 trains the task alone; null trains all."""
    head: Literal["fresh", "probe"] = "fresh"
    """What the last layer starts from: small random numbers, or a linear probe on the same labels. Features are then
    less distorted by the first steps (Kumar et al., arXiv 2202.10054)."""


AS_A_WHOLE = TuningConfig()


def apply_tuning(
    config: TuningConfig, model: LabelledModel, data: Data, cases: pl.DataFrame, augment: PolicyConfig,
    precision: Precision,
) -> None:
    """Makes `model`, whose task knows its targets, ready to be trained on `cases` in this way.

    ConfigError where the encoder has fewer layers than are to be trained, or the task has no linear last layer.
    """
    layers = len(model.encoder.layers)
    if config.thawed is not None and config.thawed > layers:
        raise ConfigError(f"tuning.thawed is {config.thawed}", expected=f"at most {layers}, the encoder's layers",
                          remedy="leave it out to train all of them")
    model.tune(config.layer_decay, config.thawed)
    if config.head == "probe":
        _start_from_probe(model, pooled_features(model.encoder, data, cases, augment, precision), cases)


def _start_from_probe(model: LabelledModel, features: np.ndarray, cases: pl.DataFrame) -> None:
    """Fits the last layer by the task's own loss on (n, D) features, standardised, with the squared weights penalised
    as PROBE says; and undoes the standardisation in its weights."""
    task, head = model.task, getattr(model.task, "head", None)
    if not isinstance(head, LinearHead):
        raise ConfigError(f"tuning.head=probe, and the task {task.config.name!r} has no linear last layer",
                          expected="task.name=classify or regress", remedy="leave tuning.head out")
    targets = task.prepare_targets(cases)
    views = Views((), target=torch.from_numpy(np.stack([targets[case_id] for case_id in cases["case_id"]])))
    mean, scale = standardisation(features)
    x = Features([], torch.from_numpy((features - mean) / scale).float())
    terms = task.terms(views.target)
    halved = 1 if task.config.name == "regress" else 2  # ridge regression has no half of the squared weights
    task.cpu()
    weight, bias = head.linear.weight, head.linear.bias
    nn.init.zeros_(weight)
    solver = torch.optim.LBFGS([weight, bias], max_iter=300, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        solver.zero_grad()
        found = task(x, views)[0] + weight.square().sum() / (halved * PROBE * terms)
        found.backward()
        return found

    solver.step(loss)
    solver.zero_grad(set_to_none=True)
    with torch.no_grad():
        weight /= torch.from_numpy(scale).float()
        bias -= weight @ torch.from_numpy(mean).float()
