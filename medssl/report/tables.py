"""Reads what a report shows: curve folders and pretrain run folders. Nothing is computed here but order and names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import polars as pl
from pydantic import BaseModel

from medssl.errors import RunError
from medssl.evaluate.agreement import AGREEMENT
from medssl.evaluate.conclude import CONCLUDED
from medssl.evaluate.failures import Failures
from medssl.evaluate.scoring import SPECIFICITY, higher_is_better
from medssl.report.examples import Examples, Ranked, read_examples
from medssl.report.judged import Agreement, read_failures
from medssl.report.metric_names import metric_name, metric_unit
from medssl.report.reading import (
    read_json,
    read_log,
    read_model,
    read_optional,
    read_png,
    read_recipe,
    read_table,
    require_folder,
)
from medssl.report.study import Study, read_study
from medssl.train.run import RECIPE, changed_keys, is_finished, is_how

REMEDY = "run `medssl curve` on this recipe to its end, then `medssl report` again"
PICTURE_REMEDY = "delete it: the run needs it for nothing else"
SUMMARY_COLUMNS = ("arm", "fraction", "train_patients", "metric", "mean", "low", "high", "seeds", "folds",
                   "test_patients", "test_cases")
COMPARISON_COLUMNS = ("arm", "baseline", "fraction", "metric", "difference", "low", "high", "p", "p_holm",
                      "multiplier", "multiplier_low", "multiplier_high")
Role = Literal["baseline", "compared", "trivial"]


class ScalingAxis(BaseModel):
    """Arms from the smallest size of their pretraining to the largest, what was held equal, and what it showed."""

    axis: Literal["model", "patients", "batch"]
    arms: list[str]
    sizes: list[float]
    budget: str
    told: str


class CurveHead(BaseModel):
    """`curve.json`: what the tables mean. `baselines` names for each compared arm the arm it is compared with."""

    title: str
    task: Literal["classify", "segment", "regress"]
    primary: str
    higher_is_better: bool
    unit: str = ""
    specificity: float = SPECIFICITY
    baselines: dict[str, str]
    labels: dict[str, str]
    verdict: list[str]
    fractions: list[float]
    shown_fraction: float | None = None
    """Of the models whose cases are shown; None where an earlier version concluded."""
    protocol: str = ""
    scaling: list[ScalingAxis] = []


@dataclass(frozen=True, eq=False)
class Curve:
    """A curve folder: its head, its two tables, and whatever else it offers."""

    head: CurveHead
    summary: pl.DataFrame
    comparison: pl.DataFrame
    provenance: dict[str, Any]
    recipe: dict[str, Any] = field(default_factory=dict)
    examples: Mapping[str, Examples] = field(default_factory=dict)
    ranked: Mapping[str, Ranked] = field(default_factory=dict)
    subgroups: pl.DataFrame | None = None
    """The summary inside each group of cases, the group in the first column; None where the recipe asks for none."""
    subgroup_comparison: pl.DataFrame | None = None
    """The comparison, likewise; None also where an earlier version made the curve."""
    ends: pl.DataFrame | None = None
    """The comparison of each scaling axis's largest arm with its smallest; None where the recipe asks for none."""
    agreement: Agreement | None = None
    """Of a regression; None where an earlier version made it."""
    failures: Failures | None = None
    """None where an earlier version made it."""
    study: Study | None = None
    """What it was made on; None where an earlier version made it."""
    is_stale: bool = False
    """Whether the folder's recipe asks for something else by now than the tables are of."""

    @property
    def arms(self) -> list[str]:
        """Baselines first, then the arms compared with them, then trivial ones; each in the order of `labels`."""
        order: tuple[Role, ...] = ("baseline", "compared", "trivial")
        known = list(self.head.labels)
        arms = self.summary["arm"].unique(maintain_order=True).to_list()
        return sorted(arms, key=lambda arm: (order.index(self.role(arm)),
                                             known.index(arm) if arm in known else len(known)))

    @property
    def labels(self) -> dict[str, str]:
        """What each of the arms is called, in their order."""
        return {arm: self.label(arm) for arm in self.arms}

    @property
    def metrics(self) -> list[str]:
        """Every metric of the summary, the primary one first."""
        found = self.summary["metric"].unique(maintain_order=True).to_list()
        return sorted(found, key=lambda metric: metric != self.head.primary)

    def role(self, arm: str) -> Role:
        """Compared where it has a baseline; baseline where it only serves as one; trivial where it does neither."""
        if arm in self.head.baselines:
            return "compared"
        return "baseline" if arm in self.head.baselines.values() else "trivial"

    def label(self, arm: str) -> str:
        return self.head.labels.get(arm, arm)

    def metric_name(self, metric: str) -> str:
        return metric_name(metric, self.metrics, self.head.specificity)

    def higher_is_better(self, metric: str) -> bool:
        return higher_is_better(metric)

    def unit(self, metric: str) -> str:
        return metric_unit(metric, self.head.unit)

    def has_intervals(self, *metrics: str) -> bool:
        return self.summary.filter(pl.col("metric").is_in(metrics))["low"].is_not_null().any()

    def scores(self, arm: str, metric: str) -> pl.DataFrame:
        """Rows of the summary for one line of the picture, few labels to many."""
        return self.summary.filter(pl.col("arm") == arm, pl.col("metric") == metric).sort("fraction")

    def differences(self, arm: str, metric: str, comparison: pl.DataFrame | None = None) -> pl.DataFrame:
        """Rows of the comparison (or of a group's) for one line, few labels to many, with `train_patients` joined from
        the summary."""
        patients = self.scores(arm, metric).select("fraction", "train_patients")
        comparison = self.comparison if comparison is None else comparison
        rows = comparison.filter(pl.col("arm") == arm, pl.col("metric") == metric)
        return rows.join(patients, on="fraction", how="left").sort("fraction")


@dataclass(frozen=True, eq=False)
class Pretrain:
    """A finished pretrain run folder. log: a row a logged step; pictures: file stem -> PNG bytes."""

    name: str
    log: pl.DataFrame
    provenance: dict[str, Any]
    recipe: dict[str, Any] = field(default_factory=dict)
    pictures: Mapping[str, bytes] = field(default_factory=dict)


def read_head(folder: Path) -> CurveHead:
    require_folder(folder, REMEDY)
    return read_model(folder / "curve.json", CurveHead, "the keys `medssl curve` writes", REMEDY)


def read_curve(folder: Path) -> Curve:
    """Reads what `medssl curve` wrote; RunError names the file that is missing or does not fit."""
    head = read_head(folder)
    summary = read_table(folder / "summary.parquet", SUMMARY_COLUMNS, REMEDY)
    if head.primary not in summary["metric"]:
        raise RunError(f"{folder / 'summary.parquet'} has no rows for the metric {head.primary!r}",
                       expected="the primary metric that curve.json names", remedy=REMEDY)
    comparison = read_table(folder / "comparison.parquet", COMPARISON_COLUMNS, REMEDY)
    kept = {path.stem: read_examples(path, REMEDY) for path in sorted((folder / "examples").glob("*.npz"))}
    examples, ranked = ({arm: shown for arm, shown in kept.items() if isinstance(shown, kind)}
                        for kind in (Examples, Ranked))
    ends = read_table(folder / "scaling.parquet", ("axis", *COMPARISON_COLUMNS), REMEDY) if head.scaling else None
    now = read_recipe(folder / RECIPE)
    then = read_recipe(folder / CONCLUDED) or now
    is_stale = bool(now) and any(not is_how(key) for key in changed_keys(then, now))
    return Curve(head, summary, comparison, read_json(folder / "provenance.json", REMEDY), then, examples, ranked,
                 read_optional(folder / "subgroups.parquet", SUMMARY_COLUMNS, REMEDY),
                 read_optional(folder / "subgroup_comparison.parquet", COMPARISON_COLUMNS, REMEDY), ends,
                 _read_agreement(folder), read_failures(folder, REMEDY), read_study(folder), is_stale)


def read_pretrain(folder: Path) -> Pretrain:
    """Reads what `medssl pretrain` wrote; RunError when the run is missing or unfinished."""
    remedy = "let `medssl pretrain` finish (started again, it resumes), then `medssl report` again"
    require_folder(folder, remedy)
    if not is_finished(folder):
        raise RunError(f"No {folder / 'model.json'}: the run has not finished", expected="a finished pretrain run",
                       remedy=remedy)
    pictures = {path.stem: read_png(path, PICTURE_REMEDY) for path in sorted((folder / "pictures").glob("*.png"))}
    return Pretrain(folder.resolve().name, read_log(folder / "metrics.jsonl", remedy),
                    read_json(folder / "provenance.json", remedy), read_recipe(folder / RECIPE), pictures)


def _read_agreement(folder: Path) -> Agreement | None:
    if not (folder / "agreement.parquet").is_file():
        return None
    limits = read_table(folder / "agreement.parquet", tuple(AGREEMENT), REMEDY)
    shown = ["arm", "name", "target", "prediction"]
    every = read_table(folder / "predictions.parquet", ("fraction", "seed", *shown), REMEDY)
    every = every.filter(pl.col("fraction") == pl.col("fraction").max(), pl.col("seed") == pl.col("seed").min())
    cases = every.filter(pl.col("pretraining") == 0) if "pretraining" in every.columns else every
    return Agreement(limits, cases.select(shown))
