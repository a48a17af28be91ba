"""What a judgement was of: a JSON beside its table, so that a report can tell it and none replaces another unsaid."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

import medssl
from medssl.data.manifest import Manifest
from medssl.files import write_table, write_whole
from medssl.tasks import TaskConfig

log = logging.getLogger(__name__)

JUDGING = {"scored_by", "pool", "specificity", "below", "threshold", "overlap", "distances"}
"""Settings of a task that have no part in training, and may be given anew."""


def leave(path: Path, table: pl.DataFrame, judged: pl.DataFrame, manifest: Manifest, split: str, task: TaskConfig,
          scores: Sequence[Mapping[str, Any]]) -> bool:
    """Writes a judgement's table, and beside it <stem>.json: of which set and split, how many patients and cases, what
    task and by which JUDGING settings, and the scores with their intervals.

    A judgement of another set or split that it replaces is told.

    Args:
        judged: rows of the patients and cases that were judged, by patient_id and case_id.
        scores: metric, mean, low and high; the ends None where there is no interval.

    Returns:
        Whether the one that it replaces was of the same set and split, by the same settings.
    """
    account = path.with_suffix(".json")
    before = json.loads(account.read_text()) if account.is_file() else {}
    now = {"medssl": medssl.__version__, "card": manifest.card.name, "manifest": manifest.digest, "split": split,
           "task": task.name, "unit": getattr(task, "unit", ""),
           "settings": task.model_dump(mode="json", include=JUDGING)}
    moved = [name for name in ("card", "manifest", "split") if before and before.get(name) != now[name]]
    if moved:
        was, is_now = (", ".join(f"{name} {facts.get(name)}" for name in moved) for facts in (before, now))
        log.warning(f"{path.name} was of {was} ({before.get('patients')} patients), and is of {is_now} from now on; "
                    "copy the file away first to keep both")
    account.unlink(missing_ok=True)  # never beside a table that it is not of
    path.parent.mkdir(parents=True, exist_ok=True)
    write_table(path, table)
    write_whole(account, json.dumps(now | {
        "patients": judged["patient_id"].n_unique(), "cases": judged["case_id"].n_unique(),
        "scores": [{name: row[name] for name in ("metric", "mean", "low", "high")} for row in scores]}, indent=1))
    return not moved and before.get("settings") == now["settings"]
