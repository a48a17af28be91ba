"""What a curve's predictions prove: the summary with intervals, the paired comparison with baselines, the verdict."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import polars as pl

from medssl.data.groups import FEWEST, grouped
from medssl.errors import RunError
from medssl.evaluate.multiplier import joint_draws, label_multiplier
from medssl.evaluate.resample import Scores, resample
from medssl.evaluate.scoring import RANGES, SPECIFICITY, TaskKind, family, higher_is_better, tell_unjudged
from medssl.evaluate.verdict import verdict
from medssl.metrics.intervals import Interval, over_patients_and_seeds
from medssl.rng import stream

log = logging.getLogger(__name__)

SUMMARY = {"arm": pl.String, "fraction": pl.Float64, "train_patients": pl.Int64, "metric": pl.String,
           "mean": pl.Float64, "low": pl.Float64, "high": pl.Float64, "seeds": pl.Int64, "folds": pl.Int64,
           "test_patients": pl.Int64, "test_cases": pl.Int64, "pretrainings": pl.Int64}
COMPARISON = {"arm": pl.String, "baseline": pl.String, "fraction": pl.Float64, "metric": pl.String,
              "difference": pl.Float64, "low": pl.Float64, "high": pl.Float64, "p": pl.Float64, "p_holm": pl.Float64,
              "multiplier": pl.Float64, "multiplier_low": pl.Float64, "multiplier_high": pl.Float64}


@dataclass(frozen=True)
class Experiment:
    """What a curve set out to show.

    baselines: each arm that is to be tested, with the arm it is tested against (the same network from scratch). An arm
        that is neither is a trivial one, told for scale.
    labels: names of arms for people, as they stand in the middle of a sentence ("the same network from scratch").
    train_patients: labelled patients at each fraction (mean over seeds and folds), where known.
    unit: of the target, for regress.
    strangers: arms of whose weights nobody knows whom they saw before.
    fresh: arms that begin with random weights, or have none.
    specificity: at which a classification's sensitivity is told.
    seed: names the bootstrap draws.
    """

    task: TaskKind
    baselines: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    train_patients: Mapping[float, int] = field(default_factory=dict)
    unit: str = ""
    strangers: Sequence[str] = ()
    fresh: Sequence[str] = ()
    specificity: float = SPECIFICITY
    seed: int = 0

    def label(self, arm: str) -> str:
        return self.labels.get(arm, arm)


def train_patients(points: pl.DataFrame) -> dict[float, int]:
    """Labelled patients at each fraction, from the points table: the mean over units, rounded."""
    table = points.group_by("fraction").agg(pl.col("train_patients").mean().round().cast(pl.Int64)).sort("fraction")
    return dict(table.iter_rows())


def resampled(predictions: pl.DataFrame, experiment: Experiment) -> Scores:
    """`resample` for this experiment; RunError also where an arm or baseline to be compared has no predictions."""
    scores = resample(predictions, experiment.task, experiment.seed, specificity=experiment.specificity)
    unknown = sorted({*experiment.baselines, *experiment.baselines.values()} - set(scores.arms))
    if unknown:
        raise RunError(f"No predictions of {', '.join(map(repr, unknown))}", expected=f"arms {', '.join(scores.arms)}",
                       remedy="run that arm, or take it out of the baselines")
    return scores


def summary(scores: Scores, experiment: Experiment) -> pl.DataFrame:
    """A row an arm, fraction and metric; columns as in SUMMARY.

    The mean over seeds, pretrainings and folds with its 95 % interval for new patients, new label seeds and, where
    there are several, new pretrainings (`metrics.intervals.over_patients_and_seeds`), clipped to the metric's range.
    Null where a metric is undefined (a class is absent in every fold); low and high are null too where no interval
    would be honest: with one seed, and where a fold has fewer than FEWEST_FOR_INTERVAL patients, or so few of a
    class.
    """
    rows = []
    for metric, point in scores.point.items():
        for a, arm in enumerate(scores.arms):
            for f, fraction in enumerate(scores.fractions):
                found = _interval(scores, metric, point[a, f], scores.bootstrap[metric][:, a, f],
                                  RANGES[family(metric)])
                rows.append((arm, fraction, experiment.train_patients.get(fraction), metric, *_shown(found),
                             len(scores.seeds), scores.folds, scores.patients, scores.cases, scores.pretrainings[arm]))
    return pl.DataFrame(rows, schema=SUMMARY, orient="row")


def comparison(scores: Scores, experiment: Experiment) -> pl.DataFrame:
    """A row an arm with a baseline, fraction and metric; columns as in COMPARISON.

    difference: arm minus baseline, paired by label seed and test patient, positive = better also where lower is better;
        with its 95 % interval, uncorrected.
    p, p_holm: of the t test that it is 0, alone and corrected by Holm's method over the fractions of one arm and metric
        (Scandinavian Journal of Statistics 6, 1979). Several arms or metrics are not corrected for each other.
    multiplier: see `multiplier.label_multiplier`, where inf and the lowest fraction are explained; its interval is the
        2.5 and 97.5 percentiles of `multiplier.joint_draws`, null where no interval is given.
    Metrics that are undefined are left out.
    """
    defined = [metric for metric, point in scores.point.items() if not np.isnan(point).any()]
    rows = [row for metric in defined for arm, baseline in experiment.baselines.items()
            for row in _compared(scores, metric, arm, baseline, stream(experiment.seed, "bootstrap", "seeds"))]
    return pl.DataFrame(rows, schema=COMPARISON, orient="row")


def in_subgroups(
    predictions: pl.DataFrame, experiment: Experiment, by: str
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """`summary` and `comparison` inside each group of cases (`data.groups`), whose name comes first, in column `by`,
    e.g. "attr.view".

    Groups are resampled on their own: their intervals say how sure each is, not whether two groups differ. Those of
    fewer than FEWEST patients have a row of the summary without a figure: it might tell who they are.
    """
    if by not in predictions.columns:
        known = [name for name in predictions.columns if name.startswith("attr.")]
        raise RunError(f"The predictions have no column {by!r}", expected=f"one of {', '.join(known) or 'attr.*'}")
    found = [], []
    groups = grouped(predictions, by)
    for group in groups.unique().sort():
        part = predictions.filter(groups == group)
        if part["patient_id"].n_unique() < FEWEST:
            name = by.removeprefix("attr.")
            log.warning(f"no figures by {name} of {group}: fewer than {FEWEST} patients were judged")
            found[0].append(pl.DataFrame([{by: group}], schema={by: pl.String} | SUMMARY))
            continue
        tell_unjudged(experiment.task, part, f"the judged of {group}")
        scores = resampled(part, experiment)
        for tables, table in zip(found, (summary(scores, experiment), comparison(scores, experiment)), strict=True):
            tables.append(table.select(pl.lit(group).alias(by), pl.all()))
    return tuple(pl.concat([pl.DataFrame(schema={by: pl.String} | schema), *tables])
                 for tables, schema in zip(found, (SUMMARY, COMPARISON), strict=True))


@dataclass(frozen=True, eq=False)
class Statistics:
    """The tables and sentences of one curve, and the scores that they are made from."""

    scores: Scores
    summary: pl.DataFrame
    comparison: pl.DataFrame
    verdict: list[str]


def analyse(predictions: pl.DataFrame, experiment: Experiment) -> Statistics:
    """All that a curve's predictions prove. RunError where units are missing or the primary metric is undefined."""
    scores = resampled(predictions, experiment)
    if np.isnan(scores.point[scores.primary]).any():
        raise RunError(f"{scores.primary} is undefined: no finding has both a positive and a negative test case",
                       expected="both classes among the test cases of a fold", remedy="test more patients")
    means, differences = summary(scores, experiment), comparison(scores, experiment)
    return Statistics(scores, means, differences, verdict(experiment, means, differences))


def _compared(scores: Scores, metric: str, arm: str, baseline: str, rng: np.random.Generator) -> list[tuple]:
    """Rows of `comparison`, a fraction each."""
    sign = 1 if higher_is_better(metric) else -1
    (ours, our_draws), (theirs, their_draws) = (scores.at(metric, name) for name in (arm, baseline))
    found = [_interval(scores, metric, sign * (ours[f] - theirs[f]), sign * (our_draws[:, f] - their_draws[:, f]))
             for f in range(len(scores.fractions))]
    p = np.array([interval.p_value() for interval in found])
    times = label_multiplier(scores.fractions, sign * ours.mean(axis=(-2, -1)), sign * theirs.mean(axis=(-2, -1)))
    low = high = [None] * len(times)
    if all(interval.dof for interval in found):
        draws = joint_draws(sign * np.stack([our_draws, their_draws], axis=1), rng)
        drawn = label_multiplier(scores.fractions, draws[:, 0], draws[:, 1])
        low, high = np.quantile(drawn, [0.025, 0.975], axis=0, method="inverted_cdf")
    return [(arm, baseline, fraction, metric, *_shown(interval), *each)
            for fraction, interval, *each in zip(scores.fractions, found, p, holm(p), times, low, high, strict=True)]


def holm(p: np.ndarray) -> np.ndarray:
    """p values (F,) corrected for their number, step down."""
    order = np.argsort(p)
    stepped = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    corrected = np.empty_like(p)
    corrected[order] = np.minimum(stepped, 1)
    return corrected


def _interval(scores: Scores, metric: str, point: np.ndarray, bootstrap: np.ndarray,
              clip: tuple[float, float] | None = None) -> Interval | None:
    if np.isnan(point).any():
        return None
    if metric in scores.without_interval:
        return Interval.unknown(float(point.mean()))
    return over_patients_and_seeds(point, bootstrap, patients=scores.patients, strata=scores.folds, clip=clip)


def _shown(interval: Interval | None) -> tuple[float | None, float | None, float | None]:
    """mean, low, high for a table: null rather than an interval that says nothing."""
    if interval is None:
        return None, None, None
    return (interval.mean, interval.low, interval.high) if interval.dof else (interval.mean, None, None)
