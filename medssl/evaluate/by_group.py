"""How one model does in groups of patients: by sex, age, view, site, scanner, or whatever else the card has."""

from __future__ import annotations

import polars as pl

from medssl.data.groups import FEWEST, grouped
from medssl.errors import ConfigError
from medssl.evaluate.scoring import scores_of_one
from medssl.tasks import TaskConfig

BY_GROUP = {"group": pl.String, "patients": pl.Int64, "cases": pl.Int64, "metric": pl.String, "mean": pl.Float64,
            "low": pl.Float64, "high": pl.Float64}


def require_attribute(table: pl.DataFrame, by: str) -> None:
    """ConfigError where a table of cases or predictions has no attribute of that name."""
    if f"attr.{by}" not in table.columns:
        known = [name.removeprefix("attr.") for name in table.columns if name.startswith("attr.")]
        expected = f"one of {', '.join(known)}" if known else "a card with attributes"
        raise ConfigError(f"There is no attribute {by!r} to judge by", expected=expected,
                          remedy="choose one of these, or give the card's attributes another column")


def scores_by_group(task: TaskConfig, predictions: pl.DataFrame, by: str) -> pl.DataFrame:
    """A row a group and metric, with the interval of each group on its own; numbers are banded (`data.groups`).

    Groups of fewer than FEWEST patients have no figures, which might tell who they are and would say little.

    Args:
        predictions: one model's, as `predict` makes them.
        by: an attribute of the manifest (`require_attribute`).
    """
    require_attribute(predictions, by)
    rows, groups = [], grouped(predictions, f"attr.{by}")
    for group in groups.unique().sort():
        part = predictions.filter(groups == group)
        patients, cases = part["patient_id"].n_unique(), part["case_id"].n_unique()
        found = scores_of_one(task, part, f"the judged of {group}") if patients >= FEWEST else []
        told = found or [{"metric": None, "mean": None, "low": None, "high": None}]
        rows += [{"group": group, "patients": patients, "cases": cases, **each} for each in told]
    return pl.DataFrame(rows, schema=BY_GROUP)
