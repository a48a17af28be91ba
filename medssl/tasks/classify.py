"""Multi-label classification with CheXpert's uncertain labels.

Irvin et al., CheXpert, AAAI 2019 (arXiv 1901.07031), section 4: −1 is ignored (U-Ignore), or read as 0 (U-Zeros) or
1 (U-Ones), for each label by itself. Judged only where the truth is certain.
"""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
import polars as pl
import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor

from medssl.config import Config as StrictConfig
from medssl.errors import ManifestError
from medssl.models.encoder import Encoder
from medssl.models.head import LinearHead
from medssl.tasks.task import Task
from medssl.types import Features, Prediction, Views

Policy = Literal["ignore", "zeros", "ones"]
UNCERTAIN = -1.0


class Classify(Task):
    """Labels of 0 and 1; a sigmoid and a cross-entropy for each."""

    class Config(StrictConfig):
        name: Literal["classify"] = "classify"
        labels: Annotated[tuple[str, ...], Field(min_length=1)]
        """Names as in the manifest's `label.*` columns."""
        uncertain: Policy = "ignore"
        """What −1 is read as in training."""
        uncertain_by_label: dict[str, Policy] = {}
        """The same for one label, e.g. {Edema: ones}."""

        @model_validator(mode="after")
        def _labels_exist(self) -> Classify.Config:
            unknown = [name for name in self.uncertain_by_label if name not in self.labels]
            if unknown or len(set(self.labels)) < len(self.labels):
                raise ValueError(f"labels are named once each; uncertain_by_label names some of them, not {unknown}")
            return self

    def __init__(self, config: Classify.Config, encoder: Encoder, regions: dict[str, list[int]]) -> None:
        super().__init__()
        self.config, self.names = config, config.labels
        self.head = LinearHead(encoder.width, len(config.labels))

    def prepare_targets(self, cases: pl.DataFrame) -> dict[str, np.ndarray]:
        """(L,) of 0, 1 and NaN, where NaN is ignored by the loss."""
        table = label_table(cases, self.names).astype(np.float32)
        for column, name in enumerate(self.names):
            policy = self.config.uncertain_by_label.get(name, self.config.uncertain)
            meaning = {"ignore": np.nan, "zeros": 0.0, "ones": 1.0}[policy]
            table[table[:, column] == UNCERTAIN, column] = meaning
        return dict(zip(cases["case_id"], table, strict=True))

    def forward(self, features: Features, views: Views) -> tuple[Tensor, dict[str, Tensor]]:
        logits = self.head(features.pooled).float()
        known = ~torch.isnan(views.target)
        losses = F.binary_cross_entropy_with_logits(logits, torch.nan_to_num(views.target), reduction="none")
        return (losses * known).sum() / known.sum().clamp(min=1), {}

    def outputs(self, features: Features, size: tuple[int, ...]) -> Tensor:
        return torch.sigmoid(self.head(features.pooled).float())

    def judge(self, case: dict, output: np.ndarray, mask: np.ndarray | None) -> list[Prediction]:
        truths = [(name, case[f"label.{name}"], p) for name, p in zip(self.names, output, strict=True)]
        return [Prediction(case["case_id"], case["patient_id"], name, float(truth), float(p))
                for name, truth, p in truths if truth in (0.0, 1.0)]

    @classmethod
    def labelled(cls, config: Config, cases: pl.DataFrame) -> pl.DataFrame:
        known = np.isfinite(label_table(cases, config.labels)).any(axis=1)
        return cases.filter(pl.Series(known, dtype=pl.Boolean))

    @classmethod
    def strata(cls, config: Config, cases: pl.DataFrame) -> list[str]:
        """Which labels are positive: so that a small fraction holds the same mix."""
        positive = label_table(cases, config.labels) == 1.0
        return ["".join("1" if p else "0" for p in row) for row in positive]


def label_table(cases: pl.DataFrame, names: tuple[str, ...]) -> np.ndarray:
    """(cases, L) float64 of the manifest's raw labels, NaN where blank; ManifestError for a label that is not there."""
    known = [column.removeprefix("label.") for column in cases.columns if column.startswith("label.")]
    absent = [name for name in names if name not in known]
    if absent:
        raise ManifestError(f"The manifest has no label {', '.join(map(repr, absent))}",
                            expected=f"some of {', '.join(known) or 'none (this card has no labels)'}",
                            remedy="choose task.labels from these, or add the column to the card")
    columns = [cases[f"label.{name}"].cast(pl.Float64).to_numpy().astype(np.float64) for name in names]
    return np.stack(columns, axis=1) if columns else np.zeros((len(cases), 0))
