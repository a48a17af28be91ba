"""From predictions to metrics: what each kind of task is scored by, for many models and many patient draws at once.

classify  auroc (mean over the names with both classes present), auroc/<name>; auprc, sensitivity (at the task's
          specificity) and, of probabilities, ece and brier (the same mean)
segment   dice (mean over a case's regions, then over cases), dice/<region>; a prediction is a region's Dice. Where each
          judged case says its spacing, hd95 and assd, mm, likewise, from rows named hd95/<region> and assd/<region>
regress   mae, rmse, r2 (mean over names), and mae/<name>, ... where there are several names; auroc/<name> < <bound> of
          the bounds that the task asks for
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
import polars as pl

from medssl.metrics import classify, regress, weighted
from medssl.metrics.intervals import patient_weights, percentiles
from medssl.metrics.segment import SurfaceDistances
from medssl.rng import stream
from medssl.tasks import TaskConfig

log = logging.getLogger(__name__)

TaskKind = Literal["classify", "segment", "regress"]

PRIMARY: dict[TaskKind, str] = {"classify": "auroc", "segment": "dice", "regress": "mae"}
RANGES = {"auroc": (0, 1), "auprc": (0, 1), "sensitivity": (0, 1), "ece": (0, 1), "brier": (0, 1),
          "dice": (0, 1), "hd95": (0, math.inf), "assd": (0, math.inf),
          "mae": (0, math.inf), "rmse": (0, math.inf), "r2": (-math.inf, 1)}
SPECIFICITY = 0.9
"""Where a task says no other."""
RANKING = ("auroc", "auprc", "sensitivity")
LOWER_IS_BETTER = frozenset({"ece", "brier", "mae", "rmse", "hd95", "assd"})
DRAWS = 1000
"""Of test patients, for the interval of one model."""
FEWEST_FOR_INTERVAL = 5
"""Patients, and of those with a finding or without it, below which no interval is given: draws of so few are too much
alike."""
ONE = ""
"""In the place of a curve's arm, a model of its own."""
BELOW = " < "
"""Between a quantity's name and a bound, in the names of what is judged."""
DISTANCES = SurfaceDistances._fields
_DISTANCE = tuple(f"{name}/" for name in DISTANCES)
MEASURE = pl.col("name").str.extract(f"^({'|'.join(DISTANCES)})/").fill_null("dice")
"""What a row of a segmentation's predictions measured."""


def family(metric: str) -> str:
    """`auroc` of `auroc/Edema`."""
    return metric.partition("/")[0]


def higher_is_better(metric: str) -> bool:
    return family(metric) not in LOWER_IS_BETTER


@dataclass(frozen=True, eq=False)
class Rows:
    """What is to be predicted, R rows in one order for all models: a row a case and name; cases may lack names.

    case, patient: (R,) codes from 0; name: (R,) text; target: (R,) float.
    """

    case: np.ndarray
    patient: np.ndarray
    name: np.ndarray
    target: np.ndarray

    @classmethod
    def of(cls, table: pl.DataFrame) -> Rows:
        """From a table with case_id, patient_id, name, target. Codes follow the sorted ids."""
        case, patient = (np.unique(table[key].to_numpy(), return_inverse=True)[1] for key in ("case_id", "patient_id"))
        return cls(case, patient, table["name"].to_numpy(), table["target"].cast(pl.Float64).to_numpy())

    def only(self, chosen: np.ndarray) -> Rows:
        """Those of them, (R,) bool."""
        return Rows(self.case[chosen], self.patient[chosen], self.name[chosen], self.target[chosen])


def with_bounds(task: TaskConfig, predictions: pl.DataFrame) -> pl.DataFrame:
    """The predictions, and for each bound that the task asks for rows that say whether a quantity lies below it, the
    lower the prediction the more suspicious."""
    bounds = task.below if task.name == "regress" else ()
    rows = [predictions.with_columns(name=pl.col("name") + f"{BELOW}{bound:g}", prediction=-pl.col("prediction"),
                                     target=(pl.col("target") < bound).cast(pl.Float64)) for bound in bounds]
    return pl.concat([predictions, *rows])


def tell_unjudged(task: TaskKind, predictions: pl.DataFrame, among: str, names: Iterable[str] = ()) -> None:
    """Warns of what is left out: those of `names` that nobody was judged on, findings and bounds (`with_bounds`) of
    which no AUROC is defined, or no interval of it, and distances that some cases lack (`comparable`)."""
    if absent := [name for name in names if name not in predictions["name"]]:
        log.warning(f"nobody is judged on {', '.join(absent)}: {among} have no certain label of it")
    predictions = predictions.unique(["case_id", "name"], maintain_order=True)
    if 0 < (patients := predictions["patient_id"].n_unique()) < FEWEST_FOR_INTERVAL:
        log.warning(f"no interval: {among} are {patients} patient(s), fewer than {FEWEST_FOR_INTERVAL}")
    if task == "segment":
        for distance in _partial(predictions):
            has = predictions.filter(MEASURE.eq(distance))["case_id"]
            bare = predictions.filter(~pl.col("case_id").is_in(has.implode()))["case_id"].unique().sort()
            if 0 < len(bare) < predictions["case_id"].n_unique():
                log.warning(f"no {distance} at all: {len(bare)} case(s) of {among} have none, {bare[0]} first, since "
                            "their files do not say their spacing; leave them out to have it of the others")
        return
    counts = _rarer_class(task, Rows.of(predictions))
    if lacking := [name for name, count in counts.items() if count == 0]:
        log.warning(f"no AUROC of {', '.join(lacking)}: {among} are all on one side")
    if rare := [name for name, count in counts.items() if 0 < count < FEWEST_FOR_INTERVAL]:
        log.warning(f"no interval of the AUROC of {', '.join(rare)}, nor of a mean with it: fewer than "
                    f"{FEWEST_FOR_INTERVAL} patients of {among} are on one side")


def without_interval(task: TaskKind, rows: Rows, metrics: Iterable[str]) -> set[str]:
    """All metrics of too few patients; otherwise those that tell two classes apart of which one has too few, alone or
    in a mean."""
    if len(set(rows.patient)) < FEWEST_FOR_INTERVAL:
        return set(metrics)
    if task == "segment":
        return set()
    rare = {f"auroc/{name}" for name, count in _rarer_class(task, rows).items() if 0 < count < FEWEST_FOR_INTERVAL}
    return rare | set(RANKING) if rare and task == "classify" else rare


def _rarer_class(task: TaskKind, rows: Rows) -> dict[str, int]:
    names = [name for name in sorted(set(rows.name)) if task == "classify" or BELOW in name]
    return {name: min(len(set(rows.patient[(rows.name == name) & (rows.target == side)])) for side in (0, 1))
            for name in names}


def comparable(task: TaskKind, predictions: pl.DataFrame) -> pl.DataFrame:
    """Without the distances that not every region of every case has in every model, whose means would leave some out.

    A case's file may not say its spacing, and models that were judged by an older version have none.
    """
    if task != "segment":
        return predictions
    return predictions.filter(~MEASURE.is_in(_partial(predictions)))


def _partial(predictions: pl.DataFrame) -> list[str]:
    counts = dict(predictions.group_by(MEASURE.alias("measure")).len().iter_rows())
    return [distance for distance in DISTANCES if counts.get(distance) != counts.get("dice")]


def with_intervals(task: TaskKind, predictions: pl.DataFrame, specificity: float = SPECIFICITY) -> list[dict]:
    """Each metric with the percentile interval of a bootstrap over patients: one model has no label seeds to cover.
    Metrics that are undefined, as where a class is absent, are left out. Fewer than FEWEST_FOR_INTERVAL patients tell
    little of others, nor do so few of a class: low and high are None. Redrawn patients are fewer different ones, by
    which an ECE grows: an interval is widened to hold its own point."""
    predictions = comparable(task, predictions)
    judged = Rows.of(predictions)
    values = predictions["prediction"].cast(pl.Float64).to_numpy()[None]
    patients = np.arange(judged.patient.max() + 1)
    counts = patient_weights(patients, stream("bootstrap"), DRAWS).T
    point, drawn = (score(task, judged, values, each, specificity) for each in (None, counts))
    untold = without_interval(task, judged, point)
    rows = []
    for metric, draws in drawn.items():
        mean = float(point[metric][0, 0])
        if np.isfinite(mean):
            low, high = (None, None) if metric in untold else percentiles(draws[:, 0])
            rows.append({"metric": metric, "mean": mean, "low": low if low is None else min(low, mean),
                         "high": high if high is None else max(high, mean)})
    return rows


def scores_of_one(task: TaskConfig, predictions: pl.DataFrame, among: str = "those judged") -> list[dict]:
    """`with_intervals` for what one model predicted, bounds included; names that cannot be judged are told."""
    bounded = with_bounds(task, predictions)
    tell_unjudged(task.name, bounded, among, getattr(task, "labels", ()))
    return with_intervals(task.name, bounded, specificity_of(task))


def specificity_of(task: TaskConfig) -> float:
    return getattr(task, "specificity", SPECIFICITY)


def score_unit(task: TaskKind, predictions: pl.DataFrame, specificity: float = SPECIFICITY) -> dict[str, float]:
    """Metrics of one model, from its rows (case_id, patient_id, name, target, prediction); NaN where undefined."""
    predictions = comparable(task, predictions)
    judged = predictions["prediction"].cast(pl.Float64).to_numpy()[None]
    values = score(task, Rows.of(predictions), judged, specificity=specificity)
    return {metric: float(value[0, 0]) for metric, value in values.items()}


def case_scores(task: TaskKind, predictions: pl.DataFrame) -> pl.DataFrame:
    """case_id and score, the higher the better, the mean over a case's names: of Dice, of the error's size with a minus
    sign, or of the logarithm of the probability that was given to the truth."""
    predicted, target = pl.col("prediction"), pl.col("target")
    right = pl.when(target == 1).then(predicted).otherwise(1 - predicted)
    score = {"segment": predicted, "regress": -(predicted - target).abs(), "classify": right.clip(1e-9).log()}[task]
    if task == "segment":
        predictions = predictions.filter(MEASURE == "dice")
    return predictions.group_by("case_id").agg(score.mean().alias("score"))


def score(task: TaskKind, rows: Rows, predictions: np.ndarray, counts: np.ndarray | None = None,
          specificity: float = SPECIFICITY) -> dict[str, np.ndarray]:
    """Metrics of U models under B draws of patients.

    Args:
        task: how to score.
        rows: the R rows that every model judged.
        predictions: (U, R).
        counts: (P, B), how often a draw holds each patient; None scores the patients as they are, B = 1.
        specificity: at which a classification's sensitivity is told.

    Returns:
        (B, U) a metric; all NaN where the rows do not define it (a class is absent). A draw that happens not to define
        a metric takes the value of one that does, the same for all models: the patients were drawn until it did.
    """
    scorers = {"classify": partial(_classify, specificity=specificity), "segment": _segment, "regress": _regress}
    return scorers[task](rows, predictions, counts)


def primary_score(task: TaskKind, rows: Rows, predictions: np.ndarray, counts: np.ndarray | None = None) -> np.ndarray:
    """(B, U): the primary metric alone, as `score` has it, of rows that are cases' own names (no bounds, no
    distances)."""
    if task == "segment":
        return _segment(rows, predictions, counts)[PRIMARY[task]]
    metric = {"classify": classify.auroc, "regress": regress.mae}[task]
    return _macro(values for _, values in _by_name(metric, rows, predictions, counts))


def _classify(rows: Rows, predictions: np.ndarray, counts: np.ndarray | None,
              specificity: float) -> dict[str, np.ndarray]:
    by_name = {f"auroc/{name}": values for name, values in _by_name(classify.auroc, rows, predictions, counts)}
    others = {"auprc": classify.auprc, "sensitivity": partial(classify.sensitivity_at, specificity=specificity)}
    if predictions.min() >= 0 and predictions.max() <= 1:
        others |= {"ece": _of_both(classify.ece), "brier": _of_both(classify.brier)}
    means = {name: _macro(values for _, values in _by_name(metric, rows, predictions, counts))
             for name, metric in others.items()}
    return {"auroc": _macro(by_name.values()), **by_name, **means}


def _of_both(metric: Callable) -> Callable:
    """The metric, NaN where a class is absent: all metrics are then means over the same names."""
    def of_both(target: np.ndarray, prediction: np.ndarray, weights: np.ndarray | None) -> np.ndarray:
        both = np.minimum(weighted.mean(target, weights), weighted.mean(1 - target, weights)) > 0
        return np.where(both, metric(target, prediction, weights), np.nan)

    return of_both


def _segment(rows: Rows, predictions: np.ndarray, counts: np.ndarray | None) -> dict[str, np.ndarray]:
    families = np.array([name.partition("/")[0] if name.startswith(_DISTANCE) else "dice" for name in rows.name])
    result: dict[str, np.ndarray] = {}
    for each in dict.fromkeys(("dice", *families)):
        chosen = np.flatnonzero(families == each)
        region = np.array([name.removeprefix(f"{each}/") for name in rows.name[chosen]])
        part = Rows(rows.case[chosen], rows.patient[chosen], region, rows.target[chosen])
        result |= _over_regions(each, part, predictions[:, chosen], counts)
    return result


def _over_regions(metric: str, rows: Rows, predictions: np.ndarray,
                  counts: np.ndarray | None) -> dict[str, np.ndarray]:
    """The mean of what was measured, over each case's regions and then over cases, and for each region alone."""
    regions = np.bincount(rows.case)
    of_case = np.stack([np.bincount(rows.case, weights=model) / regions for model in predictions])
    patient = np.zeros(len(regions), dtype=int)
    patient[rows.case] = rows.patient
    return {metric: _each(_mean_prediction, of_case, of_case, patient, counts),
            **{f"{metric}/{name}": values for name, values in _by_name(_mean_prediction, rows, predictions, counts)}}


def _regress(rows: Rows, predictions: np.ndarray, counts: np.ndarray | None) -> dict[str, np.ndarray]:
    bounded = np.array([BELOW in name for name in rows.name])
    below = {f"auroc/{name}": values for name, values
             in _by_name(classify.auroc, rows.only(bounded), predictions[:, bounded], counts)}
    rows, predictions, result = rows.only(~bounded), predictions[:, ~bounded], {}
    for metric in (regress.mae, regress.rmse, regress.r2):
        by_name = dict(_by_name(metric, rows, predictions, counts))
        result[metric.__name__] = _macro(by_name.values())
        if len(by_name) > 1:
            result |= {f"{metric.__name__}/{name}": values for name, values in by_name.items()}
    return result | below


def _mean_prediction(_: np.ndarray, prediction: np.ndarray, weights: np.ndarray | None) -> float | np.ndarray:
    return weighted.mean(prediction, weights)


def _by_name(metric: Callable, rows: Rows, predictions: np.ndarray,
             counts: np.ndarray | None) -> Iterable[tuple[str, np.ndarray]]:
    for name in sorted(set(rows.name)):
        chosen = np.flatnonzero(rows.name == name)
        yield name, _each(metric, rows.target[chosen], predictions[:, chosen], rows.patient[chosen], counts)


def _each(metric: Callable, target: np.ndarray, predictions: np.ndarray, patient: np.ndarray,
          counts: np.ndarray | None) -> np.ndarray:
    """`metric` of each model, (B, U)."""
    weights = None if counts is None else counts[patient].T
    values = np.stack([np.atleast_1d(metric(target, prediction, weights)) for prediction in predictions], axis=1)
    undefined = np.isnan(values).any(axis=1)
    defined = np.flatnonzero(~undefined)
    if len(defined):
        values[undefined] = values[defined[np.arange(undefined.sum()) % len(defined)]]
    return values


def _macro(by_name: Iterable[np.ndarray]) -> np.ndarray:
    """Mean over the names that are defined; NaN where none is."""
    values = list(by_name)
    defined = [each for each in values if not np.isnan(each).any()]
    return np.mean(defined or values[:1], axis=0)
