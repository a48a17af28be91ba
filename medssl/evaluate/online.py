"""A probe while the run goes on: how well labelled training patients are told apart by their neighbours, or a line.

One half of the patients is judged by the labels of the other, and the other way round; nobody else is looked at.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from torch import nn

from medssl.augment.policy import PolicyConfig
from medssl.data.source import Data
from medssl.errors import ConfigError
from medssl.evaluate.probe import Nearest, probe
from medssl.metrics.classify import auroc
from medssl.metrics.regress import r2
from medssl.rng import stream
from medssl.tasks import Classify, Regress
from medssl.tasks.labels import UNCERTAIN, label_table
from medssl.train.features import pooled_features
from medssl.train.onlook import OnlineConfig, Onlooker, Sight
from medssl.train.precision import Precision

log = logging.getLogger(__name__)

FEWEST = 5
"""Cases of each class, and twice as many of a quantity, without which half of the patients is not judged."""


@dataclass(frozen=True)
class Label:
    """A `label.*` column: of 0, 1 and -1 for uncertain, or else a quantity."""

    name: str
    binary: bool

    def truth(self, cases: pl.DataFrame) -> np.ndarray:
        """(cases,), NaN where it is blank or uncertain."""
        (column,) = label_table(cases, (self.name,)).T
        return np.where(column == UNCERTAIN, np.nan, column) if self.binary else column

    def can_be_judged(self, cases: pl.DataFrame) -> bool:
        known = self.truth(cases)
        known = known[np.isfinite(known)]
        if self.binary:
            return min((known == 0).sum(), (known == 1).sum()) >= FEWEST
        return len(known) >= 2 * FEWEST and np.ptp(known) > 0

    def score(self, truth: np.ndarray, predicted: np.ndarray) -> float:
        """AUROC or R²."""
        return float((auroc if self.binary else r2)(truth, predicted))


@dataclass(frozen=True)
class Half:
    """Half of the patients. features: (cases, D)."""

    cases: pl.DataFrame
    features: np.ndarray


def online_probe(
    data: Data, cases: pl.DataFrame, augment: PolicyConfig, precision: Precision, config: OnlineConfig
) -> Onlooker | None:
    """An onlooker with the figures `<how>.<label>`, AUROC for labels of 0 and 1 and R² for quantities, and `<how>`,
    their mean; None where no label of `cases`, those that the run trains on, can be probed.

    ConfigError where `config.labels` names one that cannot.
    """
    if config.how == "off":
        return None
    parts = _halves(cases, config)
    labels = _judged(parts)
    if config.labels is not None:
        labels = _chosen(config.labels, labels)
    if not labels:
        if more := _judged(_halves(cases, config.model_copy(update={"cases": len(cases)}))):
            log.warning(f"no online probe: online.cases={config.cases} are too few to judge {more[0].name} by; "
                        "give more")
        return None
    score = {"knn": neighbours_score, "linear": linear_score}[config.how]

    def look(module: nn.Module, step: int) -> Sight:
        one, other = (Half(part, pooled_features(module.encoder, data, part, augment, precision)) for part in parts)
        scores = {f"{config.how}.{label.name}": (score(label, one, other) + score(label, other, one)) / 2
                  for label in labels}
        return Sight({config.how: sum(scores.values()) / len(scores), **scores})

    return look


def neighbours_score(label: Label, known: Half, judged: Half) -> float:
    """Each case of `judged` is given the weighted mean of the label among its nearest in `known`."""
    truth, judged_truth = label.truth(known.cases), label.truth(judged.cases)
    has, judged_has = np.isfinite(truth), np.isfinite(judged_truth)
    found = Nearest(known.features[has], judged.features[judged_has]).vote(truth[has])
    return label.score(judged_truth[judged_has], found)


def linear_score(label: Label, known: Half, judged: Half) -> float:
    """A linear probe, fitted on `known`."""
    task = Classify.Config(labels=(label.name,)) if label.binary else Regress.Config(label=label.name)
    table = probe(task, known.features, known.cases, judged.features, judged.cases)
    return label.score(table["target"].to_numpy(), table["prediction"].to_numpy())


def _halves(cases: pl.DataFrame, config: OnlineConfig) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Labelled cases of patients drawn until there are enough: every other patient's, and the others'."""
    known = [pl.col(f"label.{label.name}").is_not_null() for label in _labels(cases)
             if config.labels is None or label.name in config.labels]
    cases = cases.filter(pl.any_horizontal(known)) if known else cases.clear()
    patients = stream(config.seed, "online").permutation(cases["patient_id"].unique().sort().to_list()).tolist()
    place = pl.Enum(patients)
    cases = cases.with_columns(turn=pl.col("patient_id").cast(place).to_physical()).sort("turn", "case_id")
    cases = cases.head(config.cases)
    return cases.filter(pl.col("turn") % 2 == 0), cases.filter(pl.col("turn") % 2 == 1)


def _judged(parts: Sequence[pl.DataFrame]) -> list[Label]:
    return [label for label in _labels(pl.concat(parts)) if all(map(label.can_be_judged, parts))]


def _labels(cases: pl.DataFrame) -> list[Label]:
    """Those that are numbers."""
    columns = [cases[name] for name, kind in cases.schema.items() if name.startswith("label.") and kind.is_numeric()]
    return [Label(column.name.removeprefix("label."), column.drop_nulls().is_in([0.0, 1.0, UNCERTAIN]).all())
            for column in columns]


def _chosen(asked: tuple[str, ...], labels: list[Label]) -> list[Label]:
    known = {label.name: label for label in labels}
    if absent := [name for name in asked if name not in known]:
        raise ConfigError(f"online.labels {', '.join(map(repr, absent))} cannot be probed in the training patients",
                          expected=f"numbers that enough of them have: {', '.join(known) or 'there are none'}",
                          remedy="choose among these, leave online.labels out, or set online.how=off")
    return [known[name] for name in asked]
