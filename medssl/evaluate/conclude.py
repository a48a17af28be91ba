"""From a curve's finished points to its tables and its verdict: everything that the report shows, nothing by hand."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import polars as pl

from medssl.data.fraction import subset_digest
from medssl.errors import RunError
from medssl.evaluate.agreement import agreement
from medssl.evaluate.curve import HOW, Curve, Point
from medssl.evaluate.failures import failed_rates, failures
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
    told, parts = zip(*(_done(curve, point) for point in points), strict=True)
    predictions = pl.concat(parts, how="diagonal_relaxed")
    judged = with_bounds(config.task, predictions)
    for (fold,), part in judged.group_by("fold", maintain_order=True):
        among = f"the judged of fold {fold + 1}" if len(curve.folds) > 1 else "those judged"
        tell_unjudged(config.task.name, part, among, getattr(config.task, "labels", ()))
    experiment = _experiment(curve, told)
    found = analyse(judged, experiment)
    rows = [{**about, "metric": metric, "value": value} for about, part in zip(told, parts, strict=True)
            for metric, value in score_unit(config.task.name, with_bounds(config.task, part),
                                            experiment.specificity).items()]
    compared = {*experiment.baselines, *experiment.baselines.values()}
    arms = [arm for arm in config.arms if arm in compared] or list(config.arms)
    failed = replace(failures(config.task.name, predictions, arms), rates=failed_rates(told))
    axes, ends = _scaling(curve, experiment, found)
    tables = {"predictions": predictions, "points": pl.DataFrame(rows, infer_schema_length=None),
              "summary": found.summary, "comparison": found.comparison, "scaling": ends, **failed.tables}
    if config.task.name == "regress":
        tables["agreement"] = agreement(predictions)
    tables["subgroups"], tables["subgroup_comparison"] = (
        in_subgroups(judged, experiment, f"attr.{config.subgroup}") if config.subgroup else (None, None))
    head = _head(curve, experiment, found.verdict) | {"scaling": axes}
    _replace(out, tables, head)
    return [*found.verdict, *(axis["told"] for axis in axes)]


def _replace(out: Path, tables: Mapping[str, pl.DataFrame | None], head: dict) -> None:
    """Once everything is reckoned, so that no kill leaves new tables beside an old verdict for longer than it takes to
    write them; those that are None go."""
    for name, table in tables.items():
        path = out / f"{name}.parquet"
        if table is None:
            path.unlink(missing_ok=True)
        else:
            write_table(path, table)
    write_whole(out / "curve.json", json.dumps(head, indent=1, ensure_ascii=False))
    write_whole(out / CONCLUDED, (out / RECIPE).read_text(encoding="utf-8"))


def _done(curve: Curve, point: Point) -> tuple[dict, pl.DataFrame]:
    """What a point says of itself, and its predictions. RunError where they are damaged, or where it learnt from others
    than the recipe draws, as one of a version that drew otherwise: arms are compared in pairs."""
    account = curve.out / "points" / f"{point.stem}.json"
    try:
        told = json.loads(account.read_text()) | {"pretraining": point.pretraining}
        part = pl.read_parquet(account.with_suffix(".parquet"))
    except (OSError, ValueError, pl.exceptions.PolarsError) as error:
        raise RunError(f"The point {point.stem} is damaged ({error})", expected="its two files as medssl curve wrote "
                       "them", remedy=f"delete {account} and run the same medssl curve command again, which makes it up"
                       ) from None
    drawn = subset_digest(curve.labelled_cases(point)["patient_id"])
    if told.get("subset") != drawn:
        raise RunError(f"The point {point.stem} learnt from other patients (digest {told.get('subset')})",
                       expected=f"those that this version draws (digest {drawn})",
                       remedy="go on with the version that began the curve, or give another --out")
    return told, part.with_columns(pretraining=pl.lit(point.pretraining, pl.Int32))


def _experiment(curve: Curve, told: Sequence[Mapping]) -> Experiment:
    config, provenance = curve.config, read_provenance(curve.out)
    return Experiment(
        task=config.task.name,
        baselines={name: arm.baseline for name, arm in config.arms.items() if arm.baseline},
        labels={name: arm.label or name for name, arm in config.arms.items()},
        train_patients=train_patients(pl.DataFrame(told, infer_schema_length=None)),
        unit=getattr(config.task, "unit", ""),
        strangers=[arm for arm, origin in provenance.get("starts", {}).items()
                   if origin["patients"] == "unknown" and arm in config.arms],
        fresh=[name for name in config.arms if curve.weights(name, 0) is None],
        specificity=specificity_of(config.task),
    )


def _scaling(curve: Curve, experiment: Experiment, found: Statistics) -> tuple[list[dict], pl.DataFrame | None]:
    """The recipe's axes for the head, each with its sentence, and the table that compares their two ends."""
    axes = axes_of(curve)
    if not axes:
        return [], None
    ends = ends_compared(found.scores, experiment, axes)
    return [{"axis": axis.name, "arms": axis.arms, "sizes": axis.sizes, "budget": axis.budget,
             "told": told_in_words(experiment, found.summary, ends, axis)} for axis in axes], ends


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
        "shown_fraction": curve.shown_fraction,
        "protocol": _protocol(curve),
    }


def _protocol(curve: Curve) -> str:
    config, card = curve.config, curve.data.manifest.card
    arms, folds = config.arms.values(), range(len(curve.folds))
    train, judged = (sum(cases(fold)["patient_id"].n_unique() for fold in folds)
                     for cases in (curve.labelled, curve.judged_cases))
    if config.protocol.name == "holdout":
        split = " and ".join(config.protocol.judge)
        people = f"{train} labelled training patients, judged on {judged} of the {split} split"
    else:
        anew = ", pretraining repeated in every fold" if any(arm.pretrain for arm in arms) else ""
        people = (f"{len(folds)}-fold cross-validation by patient over {judged} labelled training patients{anew}; the "
                  "test split stayed unopened")
    budget = (f"; every finetuned arm {config.train.steps} steps of {config.train.batch_size}"
              if any(arm.how == "finetune" for arm in arms) else "")
    repeated = f"; {config.pretrainings} pretrainings of each arm that pretrains" if config.pretrainings > 1 else ""
    by_study = ""
    if getattr(config.task, "scored_by", "image") == "study":
        by_study = f"; each study a case, judged by the {config.task.pool} of its images' predictions"
    return f"{card.name}: {people}{by_study}; {config.seeds} draws of the labelled patients{repeated}{budget}."
