"""What a curve was made on, kept beside its tables so that a page can be written where the data are not."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import polars as pl
from pydantic import BaseModel, ValidationError

from medssl.data.skips import without_numbers
from medssl.data.source import Data
from medssl.data.split import SPLITS
from medssl.errors import RunError
from medssl.files import write_whole
from medssl.report.cohort import Share, Shares, shares

FILE = "study.json"


class Study(BaseModel):
    """splits: {split: [patients, cases]}; left_out: (reason, cases), the most frequent first; groups: labels and
    attributes by split, as `cohort.shares` has them."""

    card: str
    about: str
    kind: str
    modality: str
    channels: list[str]
    splits: dict[str, tuple[int, int]]
    left_out: list[tuple[str, int]]
    groups: list[dict[str, Any]]

    @property
    def tables(self) -> list[Shares]:
        return [Shares(each["title"], each["splits"], [(name, [Share(**share) for share in row])
                                                       for name, row in each["rows"]]) for each in self.groups]


def keep_study(data: Data, out: Path) -> None:
    """Writes study.json. No path, and no text that few patients have."""
    cases, manifest = data.cases, replace(data.manifest, cases=data.cases)
    counts = cases.group_by("split").agg(pl.col("patient_id").n_unique().alias("patients"), pl.len().alias("cases"))
    split = {row["split"]: (row["patients"], row["cases"]) for row in counts.to_dicts()}
    study = Study(card=manifest.card.name, about=manifest.card.about, kind=cases["kind"][0],
                  modality=", ".join(cases["modality"].unique().drop_nulls().sort()), channels=manifest.channels,
                  splits={name: split[name] for name in SPLITS if name in split}, left_out=_left_out(data),
                  groups=[asdict(table) for table in shares(manifest, None)])
    write_whole(out / FILE, study.model_dump_json(indent=1))


def read_study(folder: Path) -> Study | None:
    """None of a curve that was made by an earlier version."""
    path = folder / FILE
    if not path.is_file():
        return None
    try:
        return Study.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, ValidationError) as error:
        raise RunError(f"{path} cannot be read: {str(error).splitlines()[0]}", expected="what medssl curve wrote",
                       remedy="run the same medssl curve command again, which does only what is missing") from None


def _left_out(data: Data) -> list[tuple[str, int]]:
    """By the manifest, and while they were prepared."""
    of_manifest = data.manifest.skipped.select("reason", "remedy", "count")
    of_cache = data.skipped.select("reason", "remedy", count=pl.lit(1, pl.Int64))
    every = pl.concat([of_manifest, of_cache], how="vertical_relaxed").with_columns(
        reason=without_numbers(pl.col("reason")))  # which would tell a case apart
    rows = every.group_by("reason").agg(pl.col("count").sum()).sort("count", "reason", descending=[True, False])
    return list(rows.iter_rows())
