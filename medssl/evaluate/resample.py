"""From a curve's predictions to scores under patient draws, after a check that nothing is missing or doubled."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl

from medssl.errors import LeakageError, RunError
from medssl.evaluate.scoring import PRIMARY, SPECIFICITY, Rows, TaskKind, comparable, score, without_interval
from medssl.metrics.intervals import patient_weights
from medssl.rng import stream

COLUMNS = ("arm", "fraction", "seed", "fold", "case_id", "patient_id", "name", "target", "prediction")
UNIT = ["arm", "fraction", "seed", "pretraining"]
DRAWS = 1000


@dataclass(frozen=True, eq=False)
class Scores:
    """What A arms scored at F label fractions under S label seeds and R pretrainings, the mean over folds.

    point: a metric (A, F, S, R); NaN where no fold defines it. An arm that is not pretrained R times scores the same
        under each.
    bootstrap: a metric (B, A, F, S, R), under B draws of test patients that all arms, fractions, seeds and pretrainings
        share, so that any difference between them is paired.
    pretrainings: how many stand behind each arm, 1 where there is nothing to repeat.
    without_interval: metrics of which a fold has too few patients, or too few of a class (`scoring.without_interval`).
    """

    task: TaskKind
    arms: list[str]
    fractions: list[float]
    seeds: list[int]
    pretrainings: dict[str, int]
    point: dict[str, np.ndarray]
    bootstrap: dict[str, np.ndarray]
    folds: int
    patients: int
    cases: int
    without_interval: set[str]

    @property
    def primary(self) -> str:
        return PRIMARY[self.task]

    def at(self, metric: str, arm: str) -> tuple[np.ndarray, np.ndarray]:
        """Point (F, S, R) and bootstrap (B, F, S, R) of one arm."""
        index = self.arms.index(arm)
        return self.point[metric][index], self.bootstrap[metric][:, index]


def resample(predictions: pl.DataFrame, task: TaskKind, seed: int = 0, draws: int = DRAWS,
             specificity: float = SPECIFICITY) -> Scores:
    """Scores every unit (arm, fraction, seed, pretraining) inside each fold, on its patients and on draws of them.

    Args:
        predictions: a row a unit, fold, case and name; see COLUMNS. Without `pretraining`, each arm has one. Other
            columns are ignored.
        task: what is scored.
        seed: names the draws; rows in another order give the same ones.
        draws: B.
        specificity: as `scoring.score` has it.

    Raises:
        RunError: a unit is missing or unfinished, or judged other cases or targets than the rest.
        LeakageError: a patient is tested in two folds, whose draws would not be independent.
    """
    _check(predictions)
    predictions = comparable(task, predictions)
    if "pretraining" not in predictions.columns:
        predictions = predictions.with_columns(pretraining=pl.lit(0, pl.Int64))
    arms = predictions["arm"].unique(maintain_order=True).to_list()
    fractions, seeds = (sorted(predictions[key].unique().to_list()) for key in ("fraction", "seed"))
    pretrainings = _pretrainings(predictions, arms)
    units = _units(pretrainings, fractions, seeds)
    places = _places(units, pretrainings, (len(fractions), len(seeds)))
    folds = sorted(predictions["fold"].unique().to_list())
    point, bootstrap = _MeanOverFolds(), _MeanOverFolds()
    untold: set[str] = set()
    for fold in folds:
        rows, judged = _matrix(predictions.filter(pl.col("fold") == fold), units, fold)
        counts = patient_weights(np.unique(rows.patient), stream(seed, "bootstrap", "patients", fold), draws).T
        scored = score(task, rows, judged, specificity=specificity)
        point.add(scored)
        bootstrap.add(score(task, rows, judged, counts, specificity))
        untold |= without_interval(task, rows, scored)
    return Scores(task, arms, fractions, seeds, pretrainings,
                  {metric: values[0, places] for metric, values in point.means().items()},
                  {metric: values[:, places] for metric, values in bootstrap.means().items()},
                  len(folds), predictions["patient_id"].n_unique(), predictions["case_id"].n_unique(), untold)


def _pretrainings(predictions: pl.DataFrame, arms: list[str]) -> dict[str, int]:
    """How often each arm was pretrained: once, or as often as any."""
    found = dict(predictions.group_by("arm").agg(pl.col("pretraining").max() + 1).iter_rows())
    most = max(found.values())
    odd = [arm for arm in arms if found[arm] not in (1, most)]
    if odd:
        raise RunError(f"Arm {odd[0]!r} has {found[odd[0]]} pretrainings, and another arm {most}",
                       expected="one, or as many as every other pretrained arm", remedy="run the curve again, which "
                       "makes up what is missing")
    return {arm: found[arm] for arm in arms}


def _units(pretrainings: dict[str, int], fractions: list[float], seeds: list[int]) -> pl.DataFrame:
    rows = [(arm, fraction, seed, pretraining) for arm, count in pretrainings.items()
            for fraction in fractions for seed in seeds for pretraining in range(count)]
    schema = {"arm": pl.String, "fraction": pl.Float64, "seed": pl.Int64, "pretraining": pl.Int64}
    return pl.DataFrame(rows, schema=schema, orient="row").with_row_index("unit")


def _places(units: pl.DataFrame, pretrainings: dict[str, int], shape: tuple[int, int]) -> np.ndarray:
    """(A, F, S, R): which unit is whose; that of an arm with one pretraining stands for all R."""
    most = max(pretrainings.values())
    of_arm = [units.filter(pl.col("arm") == arm)["unit"].to_numpy().reshape(*shape, count)
              for arm, count in pretrainings.items()]
    return np.stack([np.broadcast_to(places, (*shape, most)) for places in of_arm])


class _MeanOverFolds:
    """Running mean over the folds that define a metric; NaN where none does."""

    def __init__(self) -> None:
        self._sums: dict[str, np.ndarray] = {}
        self._folds: dict[str, int] = {}

    def add(self, values: dict[str, np.ndarray]) -> None:
        for metric, value in values.items():
            defined = not np.isnan(value).any()
            self._sums[metric] = self._sums.get(metric, 0) + (value if defined else np.zeros_like(value))
            self._folds[metric] = self._folds.get(metric, 0) + defined

    def means(self) -> dict[str, np.ndarray]:
        return {metric: total / self._folds[metric] if self._folds[metric] else np.full_like(total, np.nan)
                for metric, total in self._sums.items()}


def _check(predictions: pl.DataFrame) -> None:
    missing = [name for name in COLUMNS if name not in predictions.columns]
    if missing:
        raise RunError(f"The predictions lack {', '.join(missing)}", expected=f"the columns {', '.join(COLUMNS)}")
    if predictions.is_empty():
        raise RunError("The predictions hold no row", expected="a row a case and name", remedy="run the curve first")
    broken = predictions.filter(~(pl.col("prediction").is_finite() & pl.col("target").is_finite()).fill_null(False))
    if not broken.is_empty():
        raise RunError(f"{_named(broken.row(0, named=True))}: a prediction or target is NaN, infinite or missing",
                       expected="a number in each row", remedy="remove that point's .json from the curve's points/ and "
                       "run the curve again; it may have diverged")
    folds = predictions.group_by("patient_id").agg(pl.col("fold").n_unique())["fold"]
    if folds.max() > 1:
        raise LeakageError(f"{(folds > 1).sum()} patients are tested in more than one fold",
                           expected="folds that share no patient", remedy="split by patient")


def _matrix(fold_rows: pl.DataFrame, units: pl.DataFrame, fold: int) -> tuple[Rows, np.ndarray]:
    """The fold's R rows, and what each of the U units predicted for them, (U, R)."""
    layout = (fold_rows.group_by("case_id", "name")
              .agg(pl.col("patient_id").first(), pl.col("target").first(),
                   truths=pl.struct("patient_id", "target").n_unique())
              .sort("case_id", "name").with_row_index("row"))
    disputed = layout.filter(pl.col("truths") > 1)
    if not disputed.is_empty():
        raise RunError(f"{len(disputed)} targets of fold {fold} differ between arms, fractions or seeds, the first in "
                       f"{disputed['name'][0]!r}", expected="one truth a case and name",
                       remedy="judge all units on the same manifest")
    placed = (fold_rows.select(*UNIT, "case_id", "name", "prediction")
              .join(units, on=UNIT).join(layout.select("case_id", "name", "row"), on=["case_id", "name"]))
    _check_complete(placed, units, len(layout), fold)
    judged = np.empty((len(units), len(layout)))
    judged[placed["unit"].to_numpy(), placed["row"].to_numpy()] = placed["prediction"].to_numpy()
    return Rows.of(layout), judged


def _check_complete(placed: pl.DataFrame, units: pl.DataFrame, expected: int, fold: int) -> None:
    """Every unit judged every row once; the error names the first unit that did not."""
    done = units.join(placed.group_by("unit").agg(rows=pl.len(), kinds=pl.col("row").n_unique()), on="unit", how="left")
    odd = (done.with_columns(pl.col("rows", "kinds").fill_null(0)).sort("rows", "unit")
           .filter((pl.col("rows") != expected) | (pl.col("kinds") != expected)))
    if odd.is_empty():
        return
    first = odd.row(0, named=True)
    what = "is missing" if first["rows"] == 0 else f"has {first['rows']} predictions, {first['kinds']} of them distinct"
    more = f" (and {len(odd) - 1} other units)" if len(odd) > 1 else ""
    raise RunError(f"{_named(first | {'fold': fold})} {what}{more}",
                   expected=f"every arm at every fraction and seed, each with the same {expected} predictions",
                   remedy="run the curve again, which makes up what is missing, or leave that arm out")


def _named(unit: dict) -> str:
    share = f"{100 * unit['fraction']:.3g} % of the labels"
    again = f", pretraining {unit['pretraining']}" if unit.get("pretraining") else ""
    return f"Arm {unit['arm']!r} at {share}, seed {unit['seed']}{again}, fold {unit['fold']}"
