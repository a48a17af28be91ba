"""Other people's data in a finetuned model's words: their names for what it tells, so that it can be judged there."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace

import polars as pl

from medssl.data.source import Data
from medssl.errors import ConfigError
from medssl.tasks.task import Task

log = logging.getLogger(__name__)


def read_names(given: Sequence[str]) -> dict[str, str]:
    """Of 'Pleural Effusion=Effusion', theirs by ours."""
    pairs = [text.partition("=") for text in given]
    if wrong := [text for text, (ours, _, theirs) in zip(given, pairs, strict=True) if not ours or not theirs]:
        raise ConfigError(f"--label {wrong[0]}", expected="the run's name, =, and the manifest's name for it",
                          remedy="write --label 'Pleural Effusion=Effusion'")
    names = [ours.strip() for ours, *_ in pairs]
    if twice := {name for name in names if names.count(name) > 1}:
        raise ConfigError(f"--label names {min(twice)!r} twice", expected="one name of theirs for each of the run's",
                          remedy="keep one of them")
    return dict(zip(names, (theirs.strip() for *_, theirs in pairs), strict=True))


def in_our_names(task: Task, data: Data, names: Mapping[str, str]) -> Data:
    """The data with labels as the task calls them; a segmentation's regions are taken over into the task.

    A finding that the manifest has no counterpart of is left out of the judgement, and told. Regions, and classes of
    which a case has one each, are judged all or not at all.

    Args:
        names: theirs by ours, of those that are called otherwise.

    Raises:
        ConfigError: a name is unknown to the run or to the manifest, nothing is left to judge, or a region or a class
            is missing.
    """
    known = list(data.manifest.regions) if task.needs_mask else data.manifest.labels
    what = "regions" if task.needs_mask else "labels"
    for strange, given, those in ((set(names) - set(task.names), "the run", task.names),
                                  (set(names.values()) - set(known), "the manifest", known)):
        if strange:
            raise ConfigError(f"--label names {', '.join(map(repr, sorted(strange)))}, which {given} does not have",
                              expected=f"of its {what}: {', '.join(those) or 'it has none'}", remedy="mend --label")
    theirs = {ours: names.get(ours, ours) for ours in task.names}
    missing = [ours for ours, their in theirs.items() if their not in known]
    are_exclusive = task.config.name == "classify" and task.config.kind == "single_label"
    if missing and (task.needs_mask or are_exclusive or len(missing) == len(theirs)):
        raise ConfigError(f"The manifest has no {', '.join(map(repr, missing))}",
                          expected=f"the run's {what}; the manifest's are {', '.join(known) or 'none'}",
                          remedy=f"say what is called otherwise: --label '{missing[0]}=their name'")
    if missing:
        log.warning(f"not judged, since the manifest has none of that name: {', '.join(missing)}; what is called "
                    f"otherwise there can be told by --label '{missing[0]}=their name'")
    if task.needs_mask:
        task.regions = {ours: data.manifest.regions[their] for ours, their in theirs.items()}
        return data
    none = pl.lit(None, dtype=pl.Float64)
    return replace(data, cases=data.cases.with_columns(
        (none if ours in missing else pl.col(f"label.{their}")).alias(f"label.{ours}")
        for ours, their in theirs.items()))
