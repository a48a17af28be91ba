"""Reads what judgements left in a finetuned model's folder: an account beside each table, and where it failed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl
from pydantic import BaseModel

from medssl.evaluate.agreement import AGREEMENT
from medssl.evaluate.by_group import BY_GROUP
from medssl.evaluate.examples import EXAMPLES
from medssl.evaluate.failures import TABLES, Failures
from medssl.evaluate.scoring import ONE
from medssl.report.examples import Examples, Ranked, read_examples
from medssl.report.reading import read_json, read_log, read_model, read_optional, read_png, read_recipe, read_table
from medssl.train.run import RECIPE, is_finished, read_provenance

REMEDY = "judge it again (medssl evaluate, robustness or ood)"


class Score(BaseModel):
    metric: str
    mean: float | None
    low: float | None
    high: float | None


class Account(BaseModel):
    """What `evaluate.account.leave` wrote; an earlier version said neither where, task nor unit."""

    card: str
    manifest: str
    split: str
    where: str = ""
    task: str = ""
    unit: str = ""
    settings: dict[str, Any]
    patients: int
    cases: int
    scores: list[Score]


@dataclass(frozen=True, eq=False)
class Agreement:
    """limits: as `evaluate.agreement.AGREEMENT`; cases: arm, name, target and prediction of every case, of a curve by
    the first label seed and pretraining with the most labels."""

    limits: pl.DataFrame
    cases: pl.DataFrame


@dataclass(frozen=True, eq=False)
class Judgement:
    """name: the other set's; empty for the run's own. groups: by attribute, as `by_group.BY_GROUP`. What follows is
    None where there is none, or an earlier version judged."""

    account: Account
    name: str = ""
    groups: Mapping[str, pl.DataFrame] = field(default_factory=dict)
    reliability: bytes | None = None
    failures: Failures | None = None
    agreement: Agreement | None = None
    examples: Examples | Ranked | None = None


@dataclass(frozen=True, eq=False)
class Robustness:
    account: Account
    picture: bytes | None


@dataclass(frozen=True, eq=False)
class Finetuned:
    """A finetuned model's folder. learnt_from: patients, pretraining's included. task, learnt_from, log, provenance and
    recipe: empty beside a model of one file, whose training is elsewhere."""

    name: str
    task: dict[str, Any]
    learnt_from: int
    judgements: list[Judgement]
    robustness: Robustness | None
    strange: list[Judgement]
    log: pl.DataFrame | None
    provenance: dict[str, Any]
    recipe: dict[str, Any]


def is_judged(folder: Path) -> bool:
    """Whether anything was judged of the model whose folder it is."""
    accounts = ("predictions.json", "robustness.json", "transfer/*/predictions.json", "ood/*.json")
    return any(any(folder.glob(each)) for each in accounts)


def read_finetuned(folder: Path) -> Finetuned:
    """A finished finetuning run, or the folder of judgements beside a one-file model."""
    is_run = is_finished(folder)
    model = read_json(folder / "model.json", REMEDY) if is_run else {}
    sets = [folder, *sorted(path.parent for path in (folder / "transfer").glob("*/predictions.json"))]
    return Finetuned(
        name=folder.resolve().name,
        task=model.get("task", {}),
        learnt_from=len(model.get("patients_seen", [])),
        judgements=[_judgement(each, "" if each == folder else each.name) for each in sets
                    if (each / "predictions.json").is_file()],
        robustness=_robustness(folder),
        strange=[Judgement(_account(path), path.stem) for path in sorted((folder / "ood").glob("*.json"))],
        log=read_log(folder / "metrics.jsonl", REMEDY) if is_run else None,
        provenance=read_provenance(folder),
        recipe=read_recipe(folder / RECIPE))


def read_failures(folder: Path, remedy: str) -> Failures | None:
    """None of what an earlier version judged."""
    counts, cases, rates = (read_optional(folder / f"{name}.parquet", tuple(columns), remedy)
                            for name, columns in TABLES.items())
    return None if counts is None or cases is None else Failures(counts, cases, rates)


def _judgement(folder: Path, name: str) -> Judgement:
    groups = {path.stem.removeprefix("by_"): read_table(path, tuple(BY_GROUP), REMEDY)
              for path in sorted(folder.glob("by_*.parquet"))}
    path = folder / EXAMPLES
    examples = read_examples(path, REMEDY) if path.is_file() else None
    return Judgement(_account(folder / "predictions.json"), name, groups, _picture(folder / "reliability.png"),
                     read_failures(folder, REMEDY), _agreement(folder), examples)


def _agreement(folder: Path) -> Agreement | None:
    limits = read_optional(folder / "agreement.parquet", tuple(AGREEMENT), REMEDY)
    if limits is None:
        return None
    shown = ("name", "target", "prediction")
    cases = read_table(folder / "predictions.parquet", shown, REMEDY).select(pl.lit(ONE).alias("arm"), *shown)
    return Agreement(limits, cases)


def _robustness(folder: Path) -> Robustness | None:
    path = folder / "robustness.json"
    return Robustness(_account(path), _picture(folder / "robustness.png")) if path.is_file() else None


def _account(path: Path) -> Account:
    return read_model(path, Account, "what medssl wrote beside its table", REMEDY)


def _picture(path: Path) -> bytes | None:
    return read_png(path, REMEDY) if path.is_file() else None
