"""What a judgement was of: a JSON beside its table, so that a report can tell it and none replaces another unsaid."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

import medssl
from medssl.data.source import Data, in_words
from medssl.files import write_table, write_whole
from medssl.tasks import TaskConfig

log = logging.getLogger(__name__)

JUDGING = {"scored_by", "pool", "specificity", "below", "threshold", "overlap", "distances"}
"""Settings of a task that have no part in training, and may be given anew."""


def leave(path: Path, table: pl.DataFrame, judged: pl.DataFrame, data: Data, split: str, task: TaskConfig,
          scores: Sequence[Mapping[str, Any]], names: Mapping[str, str] | None = None) -> bool:
    """Writes a judgement's table, and beside it <stem>.json: of which cases of which set, how they were read, how many
    patients and cases, what task and by which JUDGING settings, and the scores with their intervals.

    A judgement of other cases, or by other settings, that it replaces is told.

    Args:
        judged: rows of the patients and cases that were judged, by patient_id and case_id.
        data: where they are from.
        scores: metric, mean, low and high; the ends None where there is no interval.
        names: what the set calls the task's labels or regions, where it is another name.

    Returns:
        Whether the one that it replaces was of the same cases, read and judged by the same settings.
    """
    account = path.with_suffix(".json")
    before = _before(account)
    manifest, prepare = data.manifest, data.config.prepare.model_dump(mode="json")
    now = {"medssl": medssl.__version__, "card": manifest.card.name, "manifest": manifest.digest, "split": split,
           "where": in_words(data.config.where), "names": dict(names or {}),
           "read": {"box": data.config.box.judged, **{name: prepare[name] for name in ("align", "straighten")}},
           "task": task.name, "unit": getattr(task, "unit", ""),
           "settings": task.model_dump(mode="json", include=JUDGING)}
    was_of, is_of = _facts(before), _facts(now)
    moved = [name for name in {**was_of, **is_of} if before and was_of.get(name) != is_of.get(name)]
    if moved:
        was, is_now = (", ".join(f"{name} {facts.get(name, '–')}" for name in moved) for facts in (was_of, is_of))
        log.warning(f"{path.name} was of {was} ({before.get('patients')} patients), and is of {is_now} from now on; "
                    "copy the file away first to keep both")
    account.unlink(missing_ok=True)  # never beside a table that it is not of
    path.parent.mkdir(parents=True, exist_ok=True)
    write_table(path, table)
    write_whole(account, json.dumps(now | {
        "patients": judged["patient_id"].n_unique(), "cases": judged["case_id"].n_unique(),
        "scores": [{name: row[name] for name in ("metric", "mean", "low", "high")} for row in scores]}, indent=1))
    return not moved


def _facts(account: Mapping[str, Any]) -> dict[str, Any]:
    """What a judgement was of and by, in one level; without what is not set."""
    plain = {name: account.get(name) for name in ("card", "manifest", "split", "where")}
    names = {f"label {ours}": theirs for ours, theirs in account.get("names", {}).items()}
    facts = plain | names | account.get("read", {}) | account.get("settings", {})
    return {name: value for name, value in facts.items() if value not in (None, "", [])}


def _before(account: Path) -> dict[str, Any]:
    """What is replaced; nothing is known of it where it is damaged."""
    try:
        return json.loads(account.read_text()) if account.is_file() else {}
    except ValueError:
        return {"card": "unknown"}
