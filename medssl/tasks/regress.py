"""Regression of one quantity a case, such as the ejection fraction of an echo clip.

The loss is the mean squared error in units of the training labels' standard deviation; the head starts at their mean,
as EchoNet-Dynamic does (Ouyang et al., Nature 580:252, 2020).
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import polars as pl
import torch
import torch.nn.functional as F
from pydantic import model_validator
from torch import Tensor

from medssl.config import Config as StrictConfig
from medssl.models.encoder import Encoder
from medssl.models.head import LinearHead
from medssl.tasks.labels import label_table
from medssl.tasks.task import Task
from medssl.types import Features, Prediction, Views


class Regress(Task):
    """One number a case, in the label's own unit."""

    class Config(StrictConfig):
        name: Literal["regress"] = "regress"
        label: str
        """Name as in the manifest's `label.*` columns."""
        unit: str = ""
        """Printed beside the figures."""
        below: tuple[float, ...] = ()
        """Bounds in the label's unit: judged is then also how well predictions tell the cases below each from the
        others (AUROC). EchoNet-Dynamic has 35, 40 and 50 % of ejection fraction."""

        @model_validator(mode="after")
        def _bounds_are_distinct(self) -> Regress.Config:
            if len({f"{bound:g}" for bound in self.below}) < len(self.below):  # as in the names of what is judged
                raise ValueError(f"below {self.below} names one twice")
            return self

    def __init__(self, config: Regress.Config, encoder: Encoder, regions: dict[str, list[int]]) -> None:
        super().__init__()
        self.config, self.names = config, (config.label,)
        self.head = LinearHead(encoder.width, 1)
        self.register_buffer("mean", torch.zeros(()))
        self.register_buffer("sd", torch.ones(()))

    def prepare_targets(self, cases: pl.DataFrame) -> dict[str, np.ndarray]:
        values = label_table(cases, self.names)
        self.mean.fill_(float(values.mean()))
        self.sd.fill_(max(float(values.std()), 1e-6))
        return dict(zip(cases["case_id"], values.astype(np.float32), strict=True))

    def forward(self, features: Features, views: Views) -> tuple[Tensor, dict[str, Tensor]]:
        predicted = self.head(features.pooled).float()
        loss = F.mse_loss(predicted, (views.target - self.mean) / self.sd)
        return loss, {"rmse": loss.detach().sqrt() * self.sd}

    def outputs(self, features: Features, size: tuple[int, ...]) -> Tensor:
        return self.head(features.pooled).float() * self.sd + self.mean

    def judge(self, case: dict, output: np.ndarray, mask: np.ndarray | None) -> list[Prediction]:
        truth = case[f"label.{self.config.label}"]
        return [Prediction(case["case_id"], case["patient_id"], self.config.label, float(truth), float(output[0]))]

    @classmethod
    def labelled(cls, config: Config, cases: pl.DataFrame) -> pl.DataFrame:
        known = np.isfinite(label_table(cases, (config.label,)))[:, 0]
        return cases.filter(pl.Series(known, dtype=pl.Boolean))

    @classmethod
    def strata(cls, config: Config, cases: pl.DataFrame) -> list[int]:
        """Quarters of the label's distribution."""
        values = label_table(cases, (config.label,))[:, 0]
        if not len(values):
            return []
        return np.searchsorted(np.quantile(values, [0.25, 0.5, 0.75]), values).tolist()
