"""Composes `report.html`: one file that needs no network, no script and no other file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any

import polars as pl
import yaml

from medssl import __version__
from medssl.files import write_whole
from medssl.report import words
from medssl.report.agreement import AgreementPart, agreement_part
from medssl.report.cases import ranked_picture, segmented_picture
from medssl.report.cells import (
    Table,
    cohort_tables,
    comparison_table,
    csv_uri,
    provenance_table,
    score_table,
    subgroup_tables,
)
from medssl.report.checklist import checklist
from medssl.report.failures import failure_tables
from medssl.report.figures import curve_figure, difference_figure, training_picture
from medssl.report.finetuned import finetuned_part
from medssl.report.judged import Finetuned, read_finetuned
from medssl.report.layout import Picture, drawn, environment, stored
from medssl.report.model_card import model_card
from medssl.report.scaling import Scaling, scaling_part
from medssl.report.tables import Curve, Pretrain, read_curve, read_pretrain

_PICTURES = {
    "views": "What the encoder was shown: each case as prepared, then as augmented.",
    "reconstruction": "What the encoder made of hidden blocks: the original, what it saw, what it reconstructed.",
}


_PLACES = ("init", "manifest", "cache")
"""Keys of a recipe that hold a path, which may name people where it is relative, too."""


@dataclass(frozen=True)
class CurvePart:
    """One curve's share of the page."""

    anchor: str
    title: str
    is_stale: bool
    verdict: list[str]
    facts: list[tuple[str, str]]
    picture: Picture
    gain: Picture | None
    scores: Table
    comparisons: Table
    groups: list[Table]
    more: list[Table]
    panels: Picture | None
    scaling: Scaling | None
    agreement: AgreementPart | None
    examples: Picture | None
    failures: list[Table]
    protocol: str
    cohort: list[Table]
    checklist: Table
    model_card: Table
    downloads: list[tuple[str, str]] = field(repr=False)


@dataclass(frozen=True)
class PretrainPart:
    anchor: str
    name: str
    training: Picture
    pictures: list[Picture]


def write_report(out: Path, title: str, curves: Sequence[Path], pretrains: Sequence[Path] = (),
                 finetuned: Sequence[Path] = ()) -> Path:
    """Writes one page about these runs and returns its path.

    Args:
        out: the page itself where it ends in `.html`, otherwise the folder that gets a `report.html`.
        title: the page's heading.
        curves: curve folders, in the order of the page.
        pretrains: finished pretrain run folders.
        finetuned: finished finetuning runs, or folders of judgements beside one-file models.

    Raises:
        RunError: a folder lacks a table the page needs, or the table does not fit.
    """
    read_curves = [read_curve(Path(folder)) for folder in curves]
    read_models = [read_finetuned(Path(folder)) for folder in finetuned]
    read_runs = [read_pretrain(Path(folder)) for folder in pretrains]
    page = environment().get_template("report.html.j2").render(
        title=title,
        version=__version__,
        level=words.LEVEL,
        curves=[_curve_part(curve, f"curve-{index}") for index, curve in enumerate(read_curves, 1)],
        models=[finetuned_part(model, f"model-{index}") for index, model in enumerate(read_models, 1)],
        pretrains=[_pretrain_part(run, f"pretrain-{index}") for index, run in enumerate(read_runs, 1)],
        provenance=_provenance(read_curves, read_models, read_runs),
        recipes=[(name, yaml.safe_dump(_without_folders(recipe), sort_keys=False, allow_unicode=True))
                 for name, recipe in [(curve.head.title, curve.recipe) for curve in read_curves]
                 + [(run.name, run.recipe) for run in [*read_models, *read_runs]] if recipe],
    )
    path = Path(out) if Path(out).suffix == ".html" else Path(out) / "report.html"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, page)
    return path


def _curve_part(curve: Curve, anchor: str) -> CurvePart:
    primary, others = curve.metrics[0], curve.metrics[1:]
    return CurvePart(
        anchor=anchor, title=curve.head.title, is_stale=curve.is_stale, verdict=curve.head.verdict, facts=_facts(curve),
        picture=_curve_picture(curve), gain=_gain_picture(curve),
        scores=score_table(curve, primary), comparisons=comparison_table(curve, primary),
        groups=subgroup_tables(curve, primary),
        more=[table(curve, name) for name in others for table in (comparison_table, score_table)],
        panels=_panels_picture(curve, others), scaling=scaling_part(curve),
        agreement=agreement_part(curve.agreement, curve.labels, curve.head.unit),
        examples=_examples_picture(curve), failures=_failures(curve),
        protocol=curve.head.protocol, cohort=cohort_tables(curve.study) if curve.study else [],
        checklist=checklist(curve), model_card=model_card(curve),
        downloads=_downloads(curve))


def _failures(curve: Curve) -> list[Table]:
    if curve.failures is None:
        return []
    return failure_tables(curve.failures, curve.head.task, curve.labels)


def _downloads(curve: Curve) -> list[tuple[str, str]]:
    tables = {"summary": curve.summary, "comparison": curve.comparison, "scaling": curve.ends}
    return [(f"{name}.csv", csv_uri(table)) for name, table in tables.items() if table is not None]


def _curve_picture(curve: Curve) -> Picture:
    name = words.sentence(curve.metric_name(curve.head.primary))
    return drawn(lambda narrow: curve_figure(curve, narrow=narrow), _curve_alt(curve),
                 f"{name} against the number of labelled patients. {_bars(curve, curve.head.primary)} Arms are set "
                 "slightly side by side so that they can be told apart.")


def _bars(curve: Curve, *metrics: str) -> str:
    return (f"Bars are {words.LEVEL} intervals over patients and seeds." if curve.has_intervals(*metrics) else
            "No interval is given.")


def _gain_picture(curve: Curve) -> Picture | None:
    if curve.head.primary not in curve.comparison["metric"]:
        return None
    return drawn(lambda narrow: difference_figure(curve, narrow), _gain_alt(curve),
                 f"Paired differences on the same test patients. {_bars(curve, curve.head.primary)} Where a bar "
                 "crosses zero, the data do not settle which is better.")


def _panels_picture(curve: Curve, others: list[str]) -> Picture | None:
    if not others:
        return None
    names = ", ".join(map(curve.metric_name, others))
    return drawn(lambda narrow: curve_figure(curve, others, narrow),
                 f"Small panels like the first picture, one each for {names}. Tables below hold the same numbers.",
                 f"The parts behind the headline. {_bars(curve, *others)} Scales differ between panels.")


def _pretrain_part(run: Pretrain, anchor: str) -> PretrainPart:
    training = training_picture(run.log, "The loss and the health figures while pretraining. A feature spread or an "
                                "effective rank that falls towards nothing would mean collapse.")
    known = [stem for stem in _PICTURES if stem in run.pictures]
    shown = known + [stem for stem in run.pictures if stem not in known]
    return PretrainPart(anchor, run.name, training, [
        stored(run.pictures[stem], _PICTURES.get(stem, words.sentence(stem.replace("_", " ")))) for stem in shown])


def _examples_picture(curve: Curve) -> Picture | None:
    """None where no case was kept."""
    segmented, ranked = ({arm: kept[arm] for arm in curve.arms if arm in kept}
                         for kept in (curve.examples, curve.ranked))
    shown = curve.head.shown_fraction
    where = f", with {words.percent(shown)} of the labels" if shown else ""
    if segmented:
        judge = next((arm for arm in segmented if curve.role(arm) == "compared"), next(iter(segmented)))
        return segmented_picture(segmented, curve.labels, judge, where)
    return ranked_picture(ranked, curve.labels, where) if ranked else None


def _facts(curve: Curve) -> list[tuple[str, str]]:
    rows = curve.summary.filter(pl.col("metric") == curve.head.primary)
    names = {"test_patients": "test patients", "test_cases": "test cases", "seeds": "seeds", "folds": "folds",
             "pretrainings": "pretrainings an arm"}
    return [("arms", str(len(curve.arms))),
            *((label, words.span(rows[column])) for column, label in names.items() if column in rows.columns)]


def _curve_alt(curve: Curve) -> str:
    metric = curve.head.primary
    digits = words.decimals(curve.summary.filter(pl.col("metric") == metric)["mean"])
    lines = []
    for arm in curve.arms:
        rows = curve.scores(arm, metric).drop_nulls("mean").rows(named=True)
        told = [f"{words.number(row['mean'], digits)} with {words.patients(row['train_patients'])} patients"
                for row in rows[:1] + rows[1:][-1:]]
        lines.append(f"{curve.label(arm)}: {', '.join(told) or words.MISSING}.")
    return f"Line plot of {curve.metric_name(metric)} against labelled training patients. {' '.join(lines)}"


def _gain_alt(curve: Curve) -> str:
    metric = curve.head.primary
    digits = words.decimals(curve.comparison.filter(pl.col("metric") == metric)["difference"])
    lines = []
    for arm in curve.arms:
        rows = curve.differences(arm, metric).rows(named=True)
        told = [f"{words.number(row['difference'], digits, signed=True)} "
                f"({words.interval(row['low'], row['high'], digits, signed=True)}) at {words.percent(row['fraction'])}"
                for row in rows]
        if told:
            lines.append(f"{curve.label(arm)}: {'; '.join(told)}.")
    return f"Gain over the baseline in {curve.metric_name(metric)} by labelled share. {' '.join(lines)}"


def _without_folders(recipe: Any) -> Any:
    if isinstance(recipe, dict):
        return {key: PurePath(value).name if key in _PLACES and isinstance(value, str) else _without_folders(value)
                for key, value in recipe.items()}
    if isinstance(recipe, list):
        return [_without_folders(value) for value in recipe]
    return words.without_folders(recipe) if isinstance(recipe, str) else recipe


def _provenance(curves: Sequence[Curve], models: Sequence[Finetuned], runs: Sequence[Pretrain]) -> list[Table]:
    tables = [provenance_table("This report", {"medssl": __version__})]
    tables += [provenance_table(f"Curve: {curve.head.title}", curve.provenance) for curve in curves]
    tables += [provenance_table(f"Finetuning: {model.name}", model.provenance) for model in models if model.provenance]
    return tables + [provenance_table(f"Pretraining: {run.name}", run.provenance) for run in runs]
