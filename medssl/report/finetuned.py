"""A finetuned model's share of a page: what its judgements found, whom it was judged on, and where it fails."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any

import polars as pl

from medssl.data.groups import FEWEST
from medssl.evaluate.scoring import ONE, SPECIFICITY
from medssl.report import words
from medssl.report.agreement import AgreementPart, agreement_part
from medssl.report.cases import ranked_picture, segmented_picture
from medssl.report.cells import Cell, Group, Table
from medssl.report.examples import Examples, Ranked
from medssl.report.failures import failure_tables
from medssl.report.figures import training_picture
from medssl.report.judged import Account, Finetuned, Judgement, Score
from medssl.report.layout import Picture, stored
from medssl.report.metric_names import metric_name, metric_unit

ALONE = {ONE: ""}
"""What the one model is called."""


@dataclass(frozen=True)
class JudgementPart:
    """One judgement: on which patients, its tables and pictures, single cases, and failures."""

    title: str
    told: str
    tables: list[Table]
    pictures: list[Picture]
    agreement: AgreementPart | None = None
    examples: Picture | None = None
    failures: list[Table] = field(default_factory=list)


@dataclass(frozen=True)
class FinetunedPart:
    """judgements: none where it was not judged yet."""

    anchor: str
    name: str
    facts: list[tuple[str, str]]
    judgements: list[JudgementPart]
    training: Picture | None


def finetuned_part(run: Finetuned, anchor: str) -> FinetunedPart:
    parts = [_judged(judgement, run.task) for judgement in run.judgements]
    if run.robustness:
        account, picture = run.robustness.account, run.robustness.picture
        caption = ("Scores on scans made worse in several ways, each at five severities; a degradation is the share of "
                   "the score on scans as they are that is lost.")
        parts.append(JudgementPart("On worse scans", _told(account, run.task), [_scores(account, caption)],
                                   [stored(picture, caption)] if picture else []))
    for each in run.strange:
        told = (f"Strange are {_people(each.account)}. Known is the split {each.account.split} of the run's own "
                "set.")
        parts.append(JudgementPart(f"Does it notice strange cases: {each.name}", told,
                                   [_scores(each.account, "How well its doubts tell them apart")], []))
    return FinetunedPart(anchor, run.recipe.get("title") or run.name, _facts(run), parts, _training(run))


def _facts(run: Finetuned) -> list[tuple[str, str]]:
    named = run.task.get("labels") or [run.task.get("label", "")]
    start = run.recipe.get("init")
    facts = {"task": run.task.get("name", ""), "of": ", ".join(filter(None, named)),
             "started from": PurePath(start).name if start else "",
             "learnt from": f"{run.learnt_from:,} patients" if run.learnt_from else ""}
    return [(name, value) for name, value in facts.items() if value]


def _judged(judgement: Judgement, task: Mapping[str, Any]) -> JudgementPart:
    title = f"On another set: {judgement.name}" if judgement.name else "On its own set"
    tables = [_scores(judgement.account, f"Scores, with {words.LEVEL} intervals over patients")]
    tables += [_by_group(name, table, judgement.account) for name, table in judgement.groups.items()]
    caption = ("Probabilities against the share of positives, before and after temperature scaling on the validation "
               "split.")
    pictures = [stored(judgement.reliability, caption)] if judgement.reliability else []
    failed = judgement.failures and judgement.account.task
    return JudgementPart(title, _told(judgement.account, task), tables, pictures,
                         agreement_part(judgement.agreement, ALONE, judgement.account.unit),
                         _examples(judgement.examples),
                         failure_tables(judgement.failures, judgement.account.task, ALONE) if failed else [])


def _examples(kept: Examples | Ranked | None) -> Picture | None:
    if kept is None:
        return None
    if isinstance(kept, Ranked):
        return ranked_picture({ONE: kept}, ALONE)
    return segmented_picture({ONE: kept}, ALONE, ONE)


def _told(account: Account, task: Mapping[str, Any]) -> str:
    """Whom it was of, and by which settings other than those that it was trained with."""
    where = f", with {account.where} alone" if account.where else ""
    told = f"{words.sentence(_people(account))}, split {account.split}{where}."
    other = [f"{name} {value}" for name, value in account.settings.items() if task and task.get(name, value) != value]
    return f"{told} Judged with {', '.join(other)}." if other else told


def _people(account: Account) -> str:
    return f"{account.patients:,} patients, {account.cases:,} cases of {account.card} (manifest {account.manifest})"


def _scores(account: Account, caption: str) -> Table:
    metrics = [score.metric for score in account.scores]
    rows = [_row(account, score, metrics) for score in account.scores]
    nothing = [Cell("no metric is defined on these cases: too few, or all of one class"), Cell("")]
    return Table(caption, ["metric", "score"], [Group("", rows or [nothing])])


def _by_group(name: str, table: pl.DataFrame, account: Account) -> Table:
    groups, any_few = [], (table["patients"] < FEWEST).any()  # whose size the others' would tell
    for (group, patients, cases), rows in table.group_by("group", "patients", "cases", maintain_order=True):
        told = rows.drop_nulls("metric")
        metrics = told["metric"].to_list()
        body = [_row(account, Score.model_validate(row), metrics) for row in told.iter_rows(named=True)]
        is_few = patients < FEWEST
        size = (f" (fewer than {FEWEST} patients)" if is_few else
                "" if any_few else f" ({patients} patients, {cases} cases)")
        nothing = [Cell("not judged" if is_few else "no figure is defined"), Cell("")]
        groups.append(Group(f"{name} {group}{size}", body or [nothing]))
    return Table(f"By {name}, each group's interval on its own", ["metric", "score"], groups)


def _row(account: Account, score: Score, metrics: Sequence[str]) -> list[Cell]:
    digits = words.decimals([score.mean])
    name = metric_name(score.metric, metrics, account.settings.get("specificity", SPECIFICITY))
    unit = metric_unit(score.metric, account.unit)
    interval = "no interval: too few" if score.low is None else words.interval(score.low, score.high, digits)
    return [Cell(f"{name}, {unit}" if unit else name), Cell(words.number(score.mean, digits), score.mean, interval)]


def _training(run: Finetuned) -> Picture | None:
    return None if run.log is None else training_picture(run.log, "The loss while it was finetuned.")
