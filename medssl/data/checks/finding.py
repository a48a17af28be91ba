"""One thing to know before training, and all of them as a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

import polars as pl

Level = Literal["error", "warning", "note"]
LEVELS: tuple[Level, ...] = get_args(Level)
"""The worst first."""


@dataclass(frozen=True)
class Finding:
    """One thing to know before training. `cases` holds the case_ids concerned, never a path or a raw id."""

    level: Level
    what: str
    expected: str = ""
    remedy: str = ""
    cases: list[str] = field(default_factory=list, repr=False)


def finding_table(findings: Sequence[Finding]) -> pl.DataFrame:
    """A row for each case of each finding (case_id null where it concerns none), to be joined with the manifest."""
    rows = [(number, one.level, one.what, one.expected, one.remedy, case_id)
            for number, one in enumerate(findings, start=1) for case_id in one.cases or [None]]
    columns = {"finding": pl.Int64, **dict.fromkeys(("level", "what", "expected", "remedy", "case_id"), pl.String)}
    return pl.DataFrame(rows, schema=columns, orient="row")


def once(case_ids: Sequence[str]) -> list[str]:
    """Each case_id once, in order."""
    return list(dict.fromkeys(case_ids))
