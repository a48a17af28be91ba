"""From a curve's finished points to its tables and its verdict: everything that the report shows, nothing by hand."""

from __future__ import annotations

import json
from dataclasses import replace

import polars as pl

from medssl.data.fraction import subset_digest
from medssl.errors import RunError
from medssl.evaluate.agreement import agreement
from medssl.evaluate.curve import HOW, Curve, Point
from medssl.evaluate.failures import failed_rates, failures, leave_failures
from medssl.evaluate.scaling import axes_of, ends_compared, told_in_words
from medssl.evaluate.scoring import PRIMARY, higher_is_better, score_unit, specificity_of, tell_unjudged, with_bounds
from medssl.evaluate.statistics import Experiment, Statistics, analyse, in_subgroups, train_patients
from medssl.files import write_table, write_whole
from medssl.train.run import RECIPE, read_provenance

CONCLUDED = "concluded.yaml"
"""The recipe that the tables are of."""


def conclude(curve: Curve) -> list[str]:
    """Writes predictions, points, summary, comparison (and what else was asked for) as Parquet, and curve.json.

    Returns the verdict, and after it what scaling shows. RunError names the first point that is not done.
    """
    config, out = curve.config, curve.out
    points = curve.points(*HOW)
    missing = [point.stem for point in points if not curve.is_done(point)]
    if missing:
        raise RunError(f"{len(missing)} of {len(points)} points are not done, {missing[0]} first",
                       expected="all of them", remedy="run the same medssl curve command again")
    told = [_told(curve, point) for point in points]
    tables = [pl.read_parquet(out / "points" / f"{point.stem}.parquet").with_columns(
        pretraining=pl.lit(point.pretraining, pl.Int32)) for point in points]
    predictions = pl.concat(tables, how="diagonal_relaxed")
    judged = with_bounds(config.task, predictions)
    for (fold,), part in judged.group_by("fold", maintain_order=True):
        among = f"the judged of fold {fold + 1}" if len(curve.folds) > 1 else "those judged"
        tell_unjudged(config.task.name, part, among)
    specificity = specificity_of(config.task)
    rows = [{**about, "metric": metric, "value": value} for about, table in zip(told, tables, strict=True)
            for metric, value in score_unit(config.task.name, with_bounds(config.task, table), specificity).items()]
    scored = pl.DataFrame(rows, infer_schema_length=None)
    experiment = _experiment(curve, scored, specificity)
    found = analyse(judged, experiment)
    write_table(out / "predictions.parquet", predictions)
    write_table(out / "points.parquet", scored)
    write_table(out / "summary.parquet", found.summary)
    write_table(out / "comparison.parquet", found.comparison)
    compared = {*experiment.baselines, *experiment.baselines.values()}
    arms = [arm for arm in config.arms if arm in compared] or list(config.arms)
    failed = failures(config.task.name, predictions, arms)
    leave_failures(out, replace(failed, rates=failed_rates(told)))
    if config.task.name == "regress":
        write_table(out / "agreement.parquet", agreement(predictions))
    for name in ("subgroups", "subgroup_comparison"):  # of an earlier recipe
        (out / f"{name}.parquet").unlink(missing_ok=True)
    if config.subgroup:
        scores, differences = in_subgroups(judged, experiment, f"attr.{config.subgroup}")
        write_table(out / "subgroups.parquet", scores)
        write_table(out / "subgroup_comparison.parquet", differences)
    head = _head(curve, experiment, found.verdict) | {"scaling": _scaling(curve, experiment, found)}
    write_whole(out / "curve.json", json.dumps(head, indent=1, ensure_ascii=False))
    write_whole(out / CONCLUDED, (out / RECIPE).read_text(encoding="utf-8"))
    return [*found.verdict, *(axis["told"] for axis in head["scaling"])]


def _told(curve: Curve, point: Point) -> dict:
    """What a point says of itself. RunError where it learnt from others than the recipe draws, as one of a version that
    drew otherwise: arms are compared in pairs."""
    told = json.loads((curve.out / "points" / f"{point.stem}.json").read_text()) | {"pretraining": point.pretraining}
    drawn = subset_digest(curve.labelled_cases(point)["patient_id"])
    if told["subset"] != drawn:
        raise RunError(f"The point {point.stem} learnt from other patients (digest {told['subset']})",
                       expected=f"those that this version draws (digest {drawn})",
                       remedy="go on with the version that began the curve, or give another --out")
    return told


def _experiment(curve: Curve, scored: pl.DataFrame, specificity: float) -> Experiment:
    config, provenance = curve.config, read_provenance(curve.out)
    return Experiment(
        task=config.task.name,
        baselines={name: arm.baseline for name, arm in config.arms.items() if arm.baseline},
        labels={name: arm.label or name for name, arm in config.arms.items()},
        train_patients=train_patients(scored),
        unit=getattr(config.task, "unit", ""),
        strangers=[arm for arm, origin in provenance.get("starts", {}).items()
                   if origin["patients"] == "unknown" and arm in config.arms],
        specificity=specificity,
    )


def _scaling(curve: Curve, experiment: Experiment, found: Statistics) -> list[dict]:
    """The recipe's axes for the head, each with its sentence; their two ends are compared in scaling.parquet."""
    axes = axes_of(curve)
    if not axes:
        return []
    ends = ends_compared(found.scores, experiment, axes)
    write_table(curve.out / "scaling.parquet", ends)
    return [{"axis": axis.name, "arms": axis.arms, "sizes": axis.sizes, "budget": axis.budget,
             "told": told_in_words(experiment, found.summary, ends, axis)} for axis in axes]


def _head(curve: Curve, experiment: Experiment, verdict: list[str]) -> dict:
    primary = PRIMARY[experiment.task]
    return {
        "title": curve.config.title or curve.out.name,
        "task": experiment.task,
        "primary": primary,
        "higher_is_better": higher_is_better(primary),
        "unit": experiment.unit,
        "specificity": experiment.specificity,
        "baselines": dict(experiment.baselines),
        "labels": dict(experiment.labels),
        "verdict": verdict,
        "fractions": curve.fractions,
        "protocol": _protocol(curve),
    }


def _protocol(curve: Curve) -> str:
    config, card = curve.config, curve.data.manifest.card
    train, judged = (sum(len(getattr(fold, side)) for fold in curve.folds) for side in ("train", "judged"))
    if config.protocol.name == "holdout":
        people = f"{train} training patients, judged on {judged} of the {' and '.join(config.protocol.judge)} split"
    else:
        people = (f"{len(curve.folds)}-fold cross-validation by patient over {judged} training patients, pretraining "
                  "repeated in every fold; the test split stayed unopened")
    budget = f"every finetuned arm {config.train.steps} steps of {config.train.batch_size}"
    repeated = f"; {config.pretrainings} pretrainings of each arm that pretrains" if config.pretrainings > 1 else ""
    by_study = ""
    if getattr(config.task, "scored_by", "image") == "study":
        by_study = f"; each study a case, judged by the {config.task.pool} of its images' predictions"
    return f"{card.name}: {people}{by_study}; {config.seeds} draws of the labelled patients{repeated}; {budget}."
