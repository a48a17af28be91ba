"""The `data` section of a recipe, opened: a manifest, its prepared cache, and the cases that both hold."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import polars as pl

from medssl.config import Config
from medssl.data.cache import Cache
from medssl.data.decode import PrepareConfig
from medssl.data.kinds import require_one_kind
from medssl.data.loader import BoxConfig
from medssl.data.manifest import Manifest
from medssl.data.prepare import prepare
from medssl.errors import ConfigError, ManifestError

log = logging.getLogger(__name__)

SHOWN = 10
"""Skipped cases that are listed one by one."""


class DataConfig(Config):
    """Where the cases come from and how they are read."""

    manifest: Path
    """Written by `medssl manifest`."""
    cache: Path = Path("runs/cache")
    """Prepared cases lie here; may be shared by any number of recipes."""
    prepare: PrepareConfig = PrepareConfig()
    box: BoxConfig = BoxConfig()
    where: dict[str, list[str | float]] = {}
    """Keep only cases that have one of these values in an attribute, e.g. {view: [Frontal]}, or as `kind` or
    `modality`."""


@dataclass(frozen=True)
class Data:
    """An opened DataConfig. `cases` are the manifest's rows that were prepared; `skipped` those that were not."""

    config: DataConfig
    manifest: Manifest
    cache: Cache
    cases: pl.DataFrame
    skipped: pl.DataFrame

    @property
    def channels(self) -> int:
        return self.cache.shape(self.cases["case_id"][0])[0]

    @property
    def dims(self) -> int:
        """Spatial axes of what an encoder is given."""
        return self.config.box.dims(self.cases["kind"][0])

    def read_as(self, config: DataConfig) -> Data:
        """The same cases under another recipe's boxes; ConfigError where that recipe prepares them differently."""
        if config.prepare != self.config.prepare:
            ours, theirs = self.config.prepare.model_dump(), config.prepare.model_dump()
            raise ConfigError(f"Two recipes prepare the same scans differently ({_differing(ours, theirs)})",
                              expected="the same data.prepare in the curve and in its pretraining recipe",
                              remedy="make them equal")
        own = {"manifest": self.config.manifest, "cache": self.config.cache, "where": self.config.where}
        return replace(self, config=config.model_copy(update=own))

    def of(self, patients: list[str] | set[str]) -> pl.DataFrame:
        """The cases of these patients."""
        return self.cases.filter(pl.col("patient_id").is_in(list(patients)))

    @property
    def training(self) -> pl.DataFrame:
        """The cases of the train split."""
        return self.cases.filter(pl.col("split") == "train")


def open_data(config: DataConfig, progress: Callable[[int, int], None] | None = None,
              skips: Path | None = None) -> Data:
    """Loads the manifest and prepares whatever is not prepared yet.

    Where the manifest came without its files table, as to a machine that holds no scans, what the cache has is used.

    skips: where the table of the cases goes that could not be prepared; by default into the cache.
    """
    at_home = config.manifest.with_name(f"{config.manifest.stem}.files.parquet").is_file()
    manifest = Manifest.load(config.manifest, files=at_home)
    cases = _kept(manifest.cases, config.where)
    require_one_kind(cases)
    if config.prepare.colour:
        _require_pictures(cases["kind"][0], manifest.channels)
    if at_home:
        cache, report = prepare(replace(manifest, cases=cases), config.cache, config.prepare, progress=progress,
                                listed=skips)
        skipped, listed = report.skipped, report.listed
        _tell_lost_regions(manifest, cache, report.lost_labels)
    else:
        cache = Cache.open(config.cache, config.prepare)
        absent = [case_id for case_id in cases["case_id"] if case_id not in cache]
        skipped = pl.DataFrame({"case_id": absent}, schema={"case_id": pl.String}).with_columns(
            reason=pl.lit("not in the prepared cache"), remedy=pl.lit("prepare it where its files are"))
        listed = None
    _tell_skips(skipped, len(cases), listed, "" if skips else " (medssl check --deep names their files)")
    cases = cases.filter(pl.Series([case_id in cache for case_id in cases["case_id"]], dtype=pl.Boolean))
    if len(cases) == 0:
        raise ManifestError("No case is in the prepared cache", expected="at least one",
                            remedy="prepare the cases where their files are")
    _require_equal_channels(cases, cache)
    return Data(config, manifest, cache, cases, skipped)


def _require_pictures(kind: str, channels: list[str]) -> None:
    if kind == "volume" or len(channels) > 1:
        raise ConfigError(f"data.prepare.colour is true, but each case is one {kind} of {len(channels)} channel(s)",
                          expected="images or clips, one file each", remedy="leave data.prepare.colour out")


def _require_equal_channels(cases: pl.DataFrame, cache: Cache) -> None:
    counts = Counter(cache.shape(case_id)[0] for case_id in cases["case_id"])
    if len(counts) > 1:
        told = ", ".join(f"{channels} in {count} case(s)" for channels, count in sorted(counts.items()))
        raise ManifestError(f"Cases differ in their number of channels: {told}", expected="the same in every case",
                            remedy="see by medssl check --deep which files they are, and leave them out in the card: "
                                   'filters: [{source: "{path}", drop: ".*_4d.*", reason: several channels}]')


def _tell_skips(skipped: pl.DataFrame, cases: int, listed: Path | None, hint: str) -> None:
    """Whatever the command, cases that fall away are counted and listed."""
    if len(skipped) == 0:
        return
    lines = [f"  - {row['case_id']}: {row['reason']}. Remedy: {row['remedy'] or 'export it again'}"
             for row in skipped.head(SHOWN).iter_rows(named=True)]
    more = [f"  … and {len(skipped) - SHOWN} more"] if len(skipped) > SHOWN else []
    if listed:
        more.append(f"  all of them: {listed}")
    told = f"{len(skipped)} of {cases} cases skipped{hint}:"
    log.warning("\n".join([told, *lines, *more]))


def _tell_lost_regions(manifest: Manifest, cache: Cache, lost_labels: Mapping[str, list[int]]) -> None:
    """Regions too small for the prepared grid are learnt and judged as absent, which nobody should find out late."""
    left = {case_id: np.unique(cache.mask(case_id)) for case_id in lost_labels}
    for name, values in manifest.regions.items():
        without = [case_id for case_id, lost in lost_labels.items()
                   if set(values) & set(lost) and set(values).isdisjoint(left[case_id].tolist())]
        if without:
            log.warning(f"{name} has no voxel left in {len(without)} of {len(cache)} cases, {without[0]} first: there "
                        "it is smaller than a voxel of the prepared grid, and they are learnt and judged as cases "
                        "without it. Remedy: a larger data.prepare.size, or a smaller spacing")


def _kept(cases: pl.DataFrame, where: dict[str, list[str | float]]) -> pl.DataFrame:
    for name, values in where.items():
        column = next((c for c in (f"attr.{name}", name) if c in (*_attributes(cases), "kind", "modality")), None)
        if column is None:
            known = ", ".join(["kind", "modality", *(c.removeprefix("attr.") for c in _attributes(cases))])
            raise ConfigError(f"data.where names the attribute {name!r}", expected=f"one of {known}",
                              remedy="mend the recipe, or add the attribute to the card")
        present = cases[column].drop_nulls().cast(pl.String)
        cases = cases.filter(pl.col(column).cast(pl.String).is_in([str(value) for value in values]))
        if cases.is_empty():
            raise ManifestError(f"No case has {name} {' or '.join(map(str, values))}", remedy="mend data.where",
                                expected=f"one of {', '.join(present.unique().sort()[:SHOWN]) or 'none'}")
    return cases


def in_words(where: Mapping[str, Sequence[str | float]]) -> str:
    """What `data.where` asks of a case."""
    return " and ".join(f"{name} {' or '.join(map(str, values))}" for name, values in where.items())


def _attributes(cases: pl.DataFrame) -> list[str]:
    return [column for column in cases.columns if column.startswith("attr.")]


def _differing(ours: dict, theirs: dict) -> str:
    return ", ".join(f"{key}: {ours[key]} and {theirs[key]}" for key in ours if ours[key] != theirs[key])
