"""Classification: findings that occur together, or classes that exclude each other.

CheXpert's uncertain labels are read as Irvin et al. do (AAAI 2019, arXiv 1901.07031, section 4), each label by a policy
of its own: U-Ignore, U-Zeros, U-Ones, U-MultiClass, U-SelfTrained. Judged only where the truth is certain.
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
from medssl.models.encoder import Encoder
from medssl.models.head import LinearHead
from medssl.tasks.labels import UNCERTAIN, certain, label_table, one_class, require_answers, require_one_class
from medssl.tasks.task import Task
from medssl.types import Features, Prediction, Views

Policy = Literal["ignore", "zeros", "ones", "multi_class", "self_trained"]
HEAVIEST = 100.0
"""Greatest weight that `balance` gives, and the inverse of the least."""


class Classify(Task):
    """Labels of 0 and 1: a sigmoid and a cross-entropy for each, or a softmax and a cross-entropy over all."""

    class Config(StrictConfig):
        name: Literal["classify"] = "classify"
        labels: Annotated[tuple[str, ...], Field(min_length=1)]
        """Names as in the manifest's `label.*` columns."""
        kind: Literal["multi_label", "single_label"] = "multi_label"
        """multi_label: each is present or not, whatever the others are. single_label: they are classes, of which each
        case has exactly one; cases whose class is blank or uncertain are left out."""
        uncertain: Policy = "ignore"
        """What −1 is read as in training. ignore: nothing; zeros: absent; ones: present. multi_class: a third answer by
        a softmax; predicted is the probability of present against absent. self_trained: what a model gives that is
        trained first and ignores it, which takes twice the time. In place of the last two a linear probe ignores it: no
        features would be learnt for a third answer, and a probe's own predictions teach it nothing."""
        uncertain_by_label: dict[str, Policy] = {}
        """The same for one label, e.g. {Edema: ones}."""
        scored_by: Literal["image", "study"] = "image"
        """study: the predictions for a study's images (by the card's `study`) are pooled, and it is judged once. It is
        not judged on a label on which its certain images disagree."""
        pool: Literal["mean", "max"] = "mean"
        """How a study's views are pooled; CheXpert's authors take the largest probability."""
        balance: bool = False
        """Weigh positives by negatives / positives of the labelled training cases (of single_label, each class by the
        inverse of its share), at most 100-fold. Probabilities have the weights taken out again, so that they are still
        those of the cases as they are. Linear probes are not weighed."""
        specificity: Annotated[float, Field(gt=0, lt=1)] = 0.9
        """At which the sensitivity is told."""

        @model_validator(mode="after")
        def _labels_exist(self) -> Classify.Config:
            unknown = [name for name in self.uncertain_by_label if name not in self.labels]
            if unknown or len(set(self.labels)) < len(self.labels):
                raise ValueError(f"labels are named once each; uncertain_by_label names some of them, not {unknown}")
            return self

        @model_validator(mode="after")
        def _classes_exclude_each_other(self) -> Classify.Config:
            if self.kind == "single_label":
                if len(self.labels) < 2:
                    raise ValueError("kind single_label chooses among two labels or more")
                if self.uncertain != "ignore" or self.uncertain_by_label:
                    raise ValueError("kind single_label leaves uncertain cases out; leave uncertain and "
                                     "uncertain_by_label out, too")
                if self.pool == "max":
                    raise ValueError("pool max is for multi_label: a study's largest probabilities do not sum "
                                     "to 1; use pool mean")
            return self

        def policy(self, label: str) -> Policy:
            return self.uncertain_by_label.get(label, self.uncertain)

    def __init__(self, config: Classify.Config, encoder: Encoder, regions: dict[str, list[int]]) -> None:
        super().__init__()
        self.config, self.names = config, config.labels
        self.is_single = config.kind == "single_label"
        self.three_way = self._columns("multi_class")
        self.head = LinearHead(encoder.width, len(config.labels) + len(self.three_way))
        self._taught: dict[str, np.ndarray] = {}
        self._known = 1.0
        """The share of all labels of the training cases that something is learnt from."""
        self.register_buffer("weight", torch.ones(len(config.labels)) if config.balance else None)

    def prepare_targets(self, cases: pl.DataFrame) -> dict[str, np.ndarray]:
        """(L,) from 0 to 1, UNCERTAIN where that is an answer, and NaN, which is ignored by the loss."""
        table = label_table(cases, self.names)
        targets = (one_class(table) if self.is_single else self._read(cases, table)).astype(np.float32)
        self._known = float(np.isfinite(targets).mean()) or 1.0
        if self.weight is not None:
            weigh = class_weights if self.is_single else positive_weights
            self.weight.copy_(torch.from_numpy(weigh(targets)))
        return dict(zip(cases["case_id"], targets, strict=True))

    def _read(self, cases: pl.DataFrame, table: np.ndarray) -> np.ndarray:
        """(cases, L) of what is learnt: as `read_uncertain`, with UNCERTAIN as an answer and what a teacher said."""
        read = read_uncertain(self.config, table)
        for column in self.three_way:
            read[table[:, column] == UNCERTAIN, column] = UNCERTAIN
        for row, case_id in enumerate(cases["case_id"] if self._taught else ()):
            for column in self._columns("self_trained"):
                if table[row, column] == UNCERTAIN and case_id in self._taught:
                    read[row, column] = self._taught[case_id][column]
        return read

    def to_be_taught(self, cases: pl.DataFrame) -> pl.DataFrame:
        unsure = (label_table(cases, self.names)[:, self._columns("self_trained")] == UNCERTAIN).any(axis=1)
        return cases.filter(pl.Series(unsure, dtype=pl.Boolean))

    def be_taught(self, said: dict[str, np.ndarray]) -> None:
        self._taught = said

    def _columns(self, policy: Policy) -> list[int]:
        return [column for column, name in enumerate(self.names) if self.config.policy(name) == policy]

    def forward(self, features: Features, views: Views) -> tuple[Tensor, dict[str, Tensor]]:
        logits = self.head(features.pooled).float()
        if self.is_single:
            return F.cross_entropy(logits, views.target, self.weight), {}
        known, target = ~torch.isnan(views.target), torch.nan_to_num(views.target)
        losses = F.binary_cross_entropy_with_logits(logits[:, : len(self.names)], target, pos_weight=self.weight,
                                                    reduction="none")
        if self.three_way:
            losses[:, self.three_way] = self._three_way_losses(logits, target)
        # Over the known labels that a batch has on average, not those that this one has: so that each sample counts
        # alike, however a batch is cut or shared out.
        return (losses * known).mean() / self._known, {}

    def _three_way_losses(self, logits: Tensor, target: Tensor) -> Tensor:
        """(B, M) cross-entropies of softmaxes over absent, present and uncertain, absent having the logit 0."""
        present, uncertain = logits[:, self.three_way], logits[:, len(self.names) :]
        answer = target[:, self.three_way]
        three = torch.stack([torch.zeros_like(present), present, uncertain], dim=1)
        losses = F.cross_entropy(three, torch.where(answer == UNCERTAIN, 2, answer).long(), reduction="none")
        return losses if self.weight is None else losses * torch.where(answer == 1, self.weight[self.three_way], 1)

    def terms(self, target: Tensor) -> int:
        return len(target) if self.is_single else super().terms(target)

    def logits(self, features: Features) -> Tensor:
        """(B, L), with the weights of `balance` taken out again; of a three-way answer, present against absent."""
        logits = self.head(features.pooled).float()[:, : len(self.names)]
        return logits if self.weight is None else logits - self.weight.log()

    def outputs(self, features: Features, size: tuple[int, ...]) -> Tensor:
        logits = self.logits(features)
        return logits.softmax(dim=1) if self.is_single else torch.sigmoid(logits)

    def judge(self, case: dict, output: np.ndarray, mask: np.ndarray | None) -> list[Prediction]:
        table = np.array([[case[f"label.{name}"] for name in self.names]], dtype=np.float64)
        (truths,) = certain_truths(self.config, table)
        return [Prediction(case["case_id"], case["patient_id"], name, float(truth), float(p))
                for name, truth, p in zip(self.names, truths, output, strict=True) if np.isfinite(truth)]

    @classmethod
    def labelled(cls, config: Config, cases: pl.DataFrame) -> pl.DataFrame:
        require_answers(cases, config.labels)
        table = label_table(cases, config.labels)
        if config.kind == "single_label":
            require_one_class(cases, config.labels)
            table = one_class(table)
        return cases.filter(pl.Series(np.isfinite(table).any(axis=1), dtype=pl.Boolean))

    @classmethod
    def judgeable(cls, config: Config, cases: pl.DataFrame) -> pl.DataFrame:
        """Not those that are uncertain alone."""
        labelled = cls.labelled(config, cases)
        known = np.isfinite(certain_truths(config, label_table(labelled, config.labels))).any(axis=1)
        return labelled.filter(pl.Series(known, dtype=pl.Boolean))

    @classmethod
    def strata(cls, config: Config, cases: pl.DataFrame) -> list[str]:
        """Which labels are positive: so that a small fraction holds the same mix."""
        positive = label_table(cases, config.labels) == 1.0
        return ["".join("1" if p else "0" for p in row) for row in positive]


def one_sided(config: Classify.Config, cases: pl.DataFrame) -> list[str]:
    """Labels of which these cases are all present or all absent, as they are learnt from, or nothing is known."""
    truths = learnt_truths(config, label_table(cases, config.labels))
    return [name for name, column in zip(config.labels, truths.T, strict=True)
            if len(np.unique(column[np.isfinite(column)])) < 2]


def certain_truths(config: Classify.Config, table: np.ndarray) -> np.ndarray:
    """What raw labels (cases, L) are judged by: 0 and 1, and NaN where the truth is not certain."""
    return one_class(table) if config.kind == "single_label" else certain(table)


def learnt_truths(config: Classify.Config, table: np.ndarray) -> np.ndarray:
    """What a probe learns from raw labels (cases, L): 0 and 1, and NaN where it learns nothing."""
    return one_class(table) if config.kind == "single_label" else certain(read_uncertain(config, table))


def read_uncertain(config: Classify.Config, table: np.ndarray) -> np.ndarray:
    """Raw labels (cases, L) with −1 read as 0 or 1 where a policy says so, and otherwise as NaN."""
    meanings = [{"zeros": 0.0, "ones": 1.0}.get(config.policy(name), np.nan) for name in config.labels]
    return np.where(table == UNCERTAIN, meanings, table)


def positive_weights(targets: np.ndarray) -> np.ndarray:
    """(L,) of negatives / positives of targets (cases, L); 1 for a label that lacks either."""
    known = targets >= 0
    positives, negatives = (np.where(known, share, 0).sum(axis=0) for share in (targets, 1 - targets))
    return _within(negatives, positives)


def class_weights(targets: np.ndarray) -> np.ndarray:
    """(L,) of the mean number of cases of a class / those of each, of targets (cases, L); 1 for a class without any."""
    counts = np.nansum(targets, axis=0)
    return _within(np.full(len(counts), counts.sum() / max(1, (counts > 0).sum())), counts)


def _within(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    both = (numerator > 0) & (denominator > 0)
    ratio = np.where(both, numerator, 1) / np.where(both, denominator, 1)
    return np.clip(ratio, 1 / HEAVIEST, HEAVIEST).astype(np.float32)
