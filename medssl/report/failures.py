"""What went wrong, as a reader meets it: how often models fail, their worst cases, and trainings that diverged."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import polars as pl

from medssl.evaluate.failures import ONE
from medssl.report import words
from medssl.report.cells import Cell, Group, Table
from medssl.report.judged import Failures

COUNTED = {"classify": "cases with a finding that are ranked below half of those without it (too low), and cases "
                       "without it above half of those with it (too high)",
           "segment": "cases of which none of a region was found, or some was drawn where there is none"}
SCORES = {"classify": "log probability of the truth", "segment": "Dice", "regress": "error"}


def failure_tables(found: Failures, task: str, labels: Mapping[str, str]) -> list[Table]:
    """How often, which cases worst, and which learning rates diverged; without those of which there is nothing to say.

    labels: what the arms are called, in the order of the page; "" gives no heading.
    """
    tables = [_counts(found.counts, task, labels), _cases(found.cases, task, labels)]
    if found.diverged is not None:
        tables.append(_diverged(found.diverged, labels))
    return [table for table in tables if table.groups]


def _counts(counts: pl.DataFrame, task: str, labels: Mapping[str, str]) -> Table:
    who = "How often it fails" if ONE in labels else "How often models fail with the most labels, a mean over models"
    caption = f"{who}: {COUNTED.get(task, '')}"
    return Table(caption, ["what", "failure", "cases"], _groups(counts, labels, lambda rows: [
        [Cell(row["name"]), Cell(row["kind"]),
         Cell(words.number(row["failed"], 1), row["failed"], f"of {words.patients(row['cases'])}")]
        for row in rows.iter_rows(named=True)]))


def _cases(cases: pl.DataFrame, task: str, labels: Mapping[str, str]) -> Table:
    cases = cases.with_columns(score=pl.col("score").abs()) if task == "regress" else cases
    digits = words.decimals(cases["score"])
    whose = "" if ONE in labels else " with the most labels, over all models of an arm"
    caption = f"The worst cases{whose}, by the mean {SCORES[task]}"
    return Table(caption, ["case", f"mean {SCORES[task]}", "predicted"], _groups(cases, labels, lambda rows: [
        [Cell(case_id), Cell(words.number(part["score"][0], digits), part["score"][0]), Cell(_told(part, task))]
        for (case_id,), part in rows.group_by("case_id", maintain_order=True)]))


def _told(rows: pl.DataFrame, task: str) -> str:
    """`Edema 0.91, truth 1; Cardiomegaly 0.02, truth 0`; of a segmentation the Dice of each region."""
    digits = 1 if task == "regress" else 2
    truth = "Dice {}" if task == "segment" else "{}, truth {:g}"
    return "; ".join(f"{row['name']} {truth.format(words.number(row['prediction'], digits), row['target'])}"
                     for row in rows.iter_rows(named=True))


def _diverged(diverged: pl.DataFrame, labels: Mapping[str, str]) -> Table:
    caption = "Learning rates that diverged where they were tried, and were not chosen there"
    return Table(caption, ["learning rate", "points"], _groups(diverged, labels, lambda rows: [
        [Cell(f"{row['lr']:g}", row["lr"]), Cell(str(row["points"]), row["points"])]
        for row in rows.iter_rows(named=True)]))


def _groups(table: pl.DataFrame, labels: Mapping[str, str],
            body: Callable[[pl.DataFrame], list[list[Cell]]]) -> list[Group]:
    return [Group(label, body(rows)) for label, rows in _by_arm(table, labels)]


def _by_arm(table: pl.DataFrame, labels: Mapping[str, str]) -> Iterator[tuple[str, pl.DataFrame]]:
    for arm, label in labels.items():
        rows = table.filter(pl.col("arm") == arm)
        if len(rows):
            yield label, rows
