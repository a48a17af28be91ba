"""What went wrong, as a reader meets it: how often models fail, their worst cases, and trainings that diverged."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

import polars as pl

from medssl.data.groups import FEWEST
from medssl.evaluate.failures import Failures
from medssl.evaluate.scoring import ONE
from medssl.report import words
from medssl.report.cells import Cell, Group, Table

COUNTED = {"classify": "cases with a finding that are ranked below more than half of those without it (too low), and "
                       "cases without it above more than half of those with it (too high)",
           "segment": "cases of which none of a region was found, or some was drawn where there is none"}
SCORES = {"classify": "log probability of the truth", "segment": "Dice", "regress": "absolute error"}


def failure_tables(found: Failures, task: str, labels: Mapping[str, str]) -> list[Table]:
    """How often, on which cases worst, and learning rates that diverged or could not be chosen; without those of which
    there is nothing to say.

    labels: what the arms are called, in the order of the page; "" gives no heading.
    """
    few, counted = _few(found.counts, task), found.counts.filter(pl.col("cases") > 0)
    tables = [_counts(counted, task, labels, few), _cases(found.cases, task, labels, few)]
    if found.rates is not None:
        tables.append(_rates(found.rates, labels))
    return [table for table in tables if table.groups]


def _few(counts: pl.DataFrame, task: str) -> set[str]:
    """Labels that so few patients have, or lack, that nothing is told of them."""
    return set(counts.filter(pl.col("patients") < FEWEST)["name"]) if task == "classify" else set()


def _counts(counts: pl.DataFrame, task: str, labels: Mapping[str, str], few: Collection[str]) -> Table:
    """A column a kind of failure. Where few have a label, no size is told of any, which theirs might be reckoned
    from."""
    kinds = counts["kind"].unique().sort(descending=True).to_list()
    who = "How often it fails" if ONE in labels else ("How often each compared arm and its baseline fail with the most "
                                                      "labels, a mean over models")

    def body(rows: pl.DataFrame) -> list[list[Cell]]:
        return [[Cell(name), *(_count(part.filter(pl.col("kind") == kind), name, few, ONE in labels)
                               for kind in kinds)]
                for (name,), part in rows.group_by("name", maintain_order=True)]

    return Table(f"{who}: {COUNTED.get(task, '')}", ["what", *kinds], _groups(counts, labels, body))


def _count(row: pl.DataFrame, name: str, few: Collection[str], alone: bool) -> Cell:
    if name in few:
        return Cell("not told", None, f"fewer than {FEWEST} patients have or lack it")
    if row.is_empty():
        return Cell(words.MISSING)
    failed, cases = row["failed"][0], row["cases"][0]
    return Cell(words.number(failed, 0 if alone else 1), failed, "" if few else f"of {words.patients(cases)}")


def _cases(cases: pl.DataFrame, task: str, labels: Mapping[str, str], few: Collection[str]) -> Table:
    cases = cases.with_columns(score=pl.col("score").abs()) if task == "regress" else cases
    digits = words.decimals(cases["score"])
    told = cases.filter(~pl.col("name").is_in(list(few)))
    exact = words.decimals([*told["prediction"], *told["target"]]) if task == "regress" else 2
    whose = "" if ONE in labels else " with the most labels, over all models of an arm"
    caption = f"The worst cases{whose}, by the mean {SCORES[task]}"
    return Table(caption, ["case", f"mean {SCORES[task]}", "predicted"], _groups(told, labels, lambda rows: [
        [Cell(case_id), Cell(words.number(part["score"][0], digits), part["score"][0]), Cell(_told(part, task, exact))]
        for (case_id,), part in rows.group_by("case_id", maintain_order=True)]))


def _rates(rates: pl.DataFrame, labels: Mapping[str, str]) -> Table:
    caption = "Learning rates that diverged where they were tried, and those taken where none could be chosen"
    return Table(caption, ["learning rate", "what became of it", "points"], _groups(rates, labels, lambda rows: [
        [Cell(f"{row['lr']:g}", row["lr"]), Cell(row["what"]), Cell(str(row["points"]), row["points"])]
        for row in rows.iter_rows(named=True)]))


def _told(rows: pl.DataFrame, task: str, digits: int) -> str:
    """`Edema 0.91, truth 1; Cardiomegaly 0.02, truth 0`; of a segmentation the Dice of each region."""
    exact = digits if task == "regress" else 0
    told = "Dice {}" if task == "segment" else "{}, truth {}"
    return "; ".join(f"{row['name']} " + told.format(words.number(row["prediction"], digits),
                                                     words.number(row["target"], exact))
                     for row in rows.iter_rows(named=True))


def _groups(table: pl.DataFrame, labels: Mapping[str, str],
            body: Callable[[pl.DataFrame], list[list[Cell]]]) -> list[Group]:
    return [Group(label, body(rows)) for arm, label in labels.items()
            if len(rows := table.filter(pl.col("arm") == arm))]
