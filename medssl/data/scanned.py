"""Layout `scan`: what a walk through the folder finds -> raw rows, one a scan, or one a study of scans as channels."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import polars as pl

from medssl.data.card import Card
from medssl.data.skips import Skips
from medssl.data.structures import attach_masks
from medssl.data.table import require_columns
from medssl.data.template import fields, fill
from medssl.errors import ManifestError

Progress = Callable[[int, int], None]


def scanned(
    card: Card, folder: Path, linked: Sequence[Path], skips: Skips, progress: Progress | None
) -> pl.DataFrame:
    """A row for each scan of the card's kind: its raw columns, and the files of its first channel and its mask.

    Scans whose slices lie unevenly are among them: whether they are straightened is for `prepare` to say.
    """
    from medssl.io import FoundMask, SkippedFile, find_scans  # readers are loaded only where scans are looked for

    first, masks = card.channel_names[0], []
    rows: list[dict[str, str | int | list[str] | None]] = []
    for count, found in enumerate(find_scans(folder, card.time, straighten=True, linked=linked), start=1):
        if card.structures and isinstance(found, FoundMask):
            masks.append(found)
        elif isinstance(found, SkippedFile):
            skips.add([str(found.path)], found.reason, found.remedy or "export it again, if it was to be used")
        else:
            slices = [path.relative_to(folder).as_posix() for path in found.paths]
            header = {name: None if value is None else str(value) for name, value in found.header.items()}
            own = {"path": min(slices), "patient": found.patient or None, "accession": found.accession or None,
                   "study": found.study or None, "series": found.series, "description": found.description,
                   "kind": found.kind, "modality": found.modality}
            rows.append({**header, **own, f"file:{first}": min(slices), f"slices:{first}": slices,
                         f"part:{first}": found.part})
        if progress:
            progress(count, 0)
    if not rows:
        raise ManifestError(
            f"There is no scan in {folder} ({skips.told() or 'it is empty'})",
            expected="DICOM, NIfTI, image or video files",
            remedy="check the path, and whether the disk is mounted",
        )
    texts = dict.fromkeys((name for row in rows for name in row), pl.String)
    frame = pl.DataFrame(rows, schema=texts | {f"slices:{first}": pl.List(pl.String), f"part:{first}": pl.Int64})
    if card.kind:
        skips.add(frame.filter(pl.col("kind") != card.kind)["path"], f"no {card.kind}, which the card asks for",
                  "build a manifest of its own for each kind")
        frame = frame.filter(pl.col("kind") == card.kind)
    return attach_masks(frame, masks, card, folder, skips)


def one_row_a_study(frame: pl.DataFrame, card: Card, skips: Skips) -> pl.DataFrame:
    """A row for each study in which one scan fits each channel; its raw columns are those of the first channel's scan.

    Other studies are skipped, each with its reason, and scans that no channel names are counted.
    """
    named = [name for template in (*card.patient, card.study) for name in fields(template)]
    require_columns([*named, *(column for wanted in card.channels.values() for column in wanted)], frame, "the card",
                    "the scans' headers")
    patient = pl.coalesce(fill(template) for template in card.patient)
    frame = frame.with_columns(pl.concat_str(patient, fill(card.study), separator="\x1f").alias("file:study"))
    skips.add(frame.filter(pl.col("file:study").is_null())["path"],
              "no patient or study id, so that its channels cannot be put together",
              "fill in the id, or give the card another template under `patient` or `study`")
    frame = frame.filter(pl.col("file:study").is_not_null())
    frame = frame.with_columns(_fits(frame, wanted).alias(f"fits:{name}") for name, wanted in card.channels.items())
    hits = frame.select(pl.sum_horizontal(pl.col("^fits:.*$"))).to_series()
    skips.add(frame.filter(hits == 0)["path"], "scan that no channel of the card names",
              "add it to the card's `channels`, or leave it")
    elsewhere = frame.filter(~pl.col(f"fits:{card.channel_names[0]}") & (hits > 0))["file:mask"].drop_nulls()
    skips.add(elsewhere, "mask drawn on another channel than the first", "name that channel first")
    studies = _problems(frame.filter(hits > 0), card)
    for (reason,), part in studies.drop_nulls("problem").group_by("problem", maintain_order=True):
        skips.add(part["path"], reason, "make the card's `channels` fit one scan of each study, or leave the study")
    sound = studies.filter(pl.col("problem").is_null())
    return _side_by_side(frame.join(sound, on="file:study", how="semi", maintain_order="left"), card.channel_names)


def _fits(frame: pl.DataFrame, wanted: Mapping[str, str]) -> pl.Series:
    """Which scans match all of a channel's regular expressions as a whole, without regard to capitals."""
    fits = pl.Series([True] * frame.height, dtype=pl.Boolean)
    for column, pattern in wanted.items():
        regex = re.compile(pattern, re.IGNORECASE)
        fits &= pl.Series([value is not None and regex.fullmatch(value) is not None for value in frame[column]],
                          dtype=pl.Boolean)
    return fits


def _problems(frame: pl.DataFrame, card: Card) -> pl.DataFrame:
    """(file:study, path of one of its scans, problem or null), a row a study."""
    counted = frame.group_by("file:study", maintain_order=True).agg(
        pl.col("path").first(), pl.col("^fits:.*$").sum(),
        (pl.sum_horizontal(pl.col("^fits:.*$")) > 1).any().alias("file:twice"))
    problem = pl.coalesce(
        pl.when("file:twice").then(pl.lit("a scan fits several channels of the card")),
        *(pl.when(pl.col(f"fits:{name}") == 0).then(pl.lit(f"no scan for channel {name}"))
          for name in card.required_channels),
        *(pl.when(pl.col(f"fits:{name}") > 1).then(pl.lit(f"several scans for channel {name}"))
          for name in card.channel_names))
    return counted.select("file:study", "path", problem=problem)


def _side_by_side(frame: pl.DataFrame, channels: list[str]) -> pl.DataFrame:
    """The first channel's rows with the files of all channels."""
    first, *others = channels
    rows = frame.filter(f"fits:{first}")
    for name in others:
        of_channel = frame.filter(f"fits:{name}").select(
            "file:study", *(pl.col(f"{what}:{first}").alias(f"{what}:{name}") for what in ("file", "slices", "part")))
        rows = rows.join(of_channel, on="file:study", how="left", maintain_order="left")
    return rows.drop(pl.col("^fits:.*$"), "file:study")
