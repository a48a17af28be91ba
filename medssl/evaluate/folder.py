"""A finetuned model on new scans: a manifest's, or a folder of files as they are."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import polars as pl

from medssl.config import path_override
from medssl.data.build import build
from medssl.data.card import Card
from medssl.data.manifest import Manifest
from medssl.data.source import in_words
from medssl.errors import ConfigError, ManifestError
from medssl.evaluate.single import predict_run
from medssl.models.packed import is_packed, recipe_of
from medssl.tasks.saved import SavedModel

log = logging.getLogger(__name__)


def predict_manifest(run: Path, manifest: Path, out: Path, masks: Path | None = None) -> pl.DataFrame:
    """As `predict_run`; what a one-file model prepares is kept beside `out` until it is done.

    Args:
        out: the table that is to be written. Cases of which nothing could be predicted, and why, are left in
            <out>.skipped.csv.
    """
    if not is_packed(run):
        return predict_run(run, manifest, masks, skips=_skips(out))
    with _scratch(out.parent) as (_, cache):
        return predict_run(run, manifest, masks, [cache], _skips(out))


def predict_folder(
    run: Path, manifest: Manifest, out: Path, masks: Path | None = None
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The table of `predict_run` for what `read_folder` found, and where each case lies: case_id, study_id,
    channel, path.

    Args:
        out: as `predict_manifest` has it.
    """
    where = recipe_of(run).get("data", {}).get("where")
    if where:
        log.warning(f"the model learnt from cases with {in_words(where)} alone; of a folder that is not known, and "
                    "all of its cases are predicted")
    with _scratch(out.parent) as (scratch, cache):
        manifest.save(scratch / "cases.parquet")
        table = predict_run(run, scratch / "cases.parquet", masks, [cache, "data.where={}"], _skips(out))
    places = [(case_id, study_id, role, str(path))
              for case_id, study_id in manifest.cases.select("case_id", "study_id").rows()
              for role, path in manifest.paths(case_id).items() if role != "mask"]
    return table, pl.DataFrame(places, schema=["case_id", "study_id", "channel", "path"], orient="row")


def read_folder(
    run: Path, folder: Path, card: Card, key: bytes, progress: Callable[[int, int], None] | None = None
) -> Manifest:
    """The folder's cases of the kind that the model takes.

    Raises:
        RunError: the run was not finetuned.
        ConfigError: the card does not say which file is which channel of the model.
        ManifestError: no case of that kind.
    """
    description = SavedModel.open(run).description
    _require_channels(description, card)
    found = build(card, folder, key, progress)
    kind = _kind(description)
    if kind is None:
        return found
    kept = found.select(kind=kind)
    if len(kept) == 0:
        kinds = ", ".join(found.cases["kind"].unique().sort())
        raise ManifestError(f"The folder holds no {kind}, but {kinds}", expected=f"each case one {kind}, as the model "
                            "learnt from", remedy="check the folder, or use another model")
    if len(kept) < len(found):
        log.warning(f"{len(found) - len(kept)} of {len(found)} cases are no {kind}, and left out")
    return kept


def _require_channels(description: dict[str, Any], card: Card) -> None:
    wanted = description.get("channels", [])
    if len(wanted) > 1 and card.channel_names != wanted:
        raise ConfigError(f"The model takes the channels {', '.join(wanted)}, and the card has "
                          f"{', '.join(card.channel_names)}", expected="a card that says which file is which channel",
                          remedy="give --card, e.g. the card that the model was trained with; docs/own_data.md tells "
                                 "how to write one")


def _kind(description: dict[str, Any]) -> str | None:
    """What the model learnt from; None where an older run does not say and it may be either of two."""
    if "kind" in description:
        return description["kind"]
    planar = description.get("box", {}).get("planar")
    flat = len(description["encoder"].get("size", ())) == 2 or description["encoder"].get("dims") == 2
    return "volume" if planar else "image" if flat else None


def _skips(out: Path) -> Path:
    return out.with_name(f"{out.stem}.skipped.csv")


@contextmanager
def _scratch(beside: Path) -> Iterator[tuple[Path, str]]:
    """A folder of one's own, and the override that puts the cache into it; both go in the end."""
    with TemporaryDirectory(prefix=".medssl-", dir=beside) as folder:
        yield Path(folder), path_override("data.cache", Path(folder) / "cache")

