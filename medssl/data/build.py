"""Card + folder -> Manifest: filters, files, pseudonyms, typed labels and attributes, splits."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import polars as pl

from medssl.data.card import Card, Source
from medssl.data.disclosure import refuse_disclosure
from medssl.data.manifest import Manifest
from medssl.data.pseudonym import check_key, key_id, pseudonym
from medssl.data.rows import Progress, files_in, locate_files, raw_rows
from medssl.data.skips import Skips, gathered
from medssl.data.split import SPLITS, assign_by_hash, refuse_overlap
from medssl.data.template import fill
from medssl.errors import ManifestError

SPLIT_WORDS = {**{name: name for name in SPLITS}, "val": "validation", "valid": "validation", "validate": "validation",
               "dev": "validation", "training": "train", "testing": "test"}
OLDEST = 90.0
_AGE = re.compile(r"0*(\d+(?:\.\d+)?)\s*([YMWDymwd]?)")
_PER_YEAR = {"": 1.0, "Y": 1.0, "M": 12.0, "W": 52.1775, "D": 365.2425}


def build(
    card: Card, folder: str | Path, key: bytes, progress: Progress | None = None, linked: Sequence[Path] = ()
) -> Manifest:
    """Makes the manifest of a data set.

    Args:
        card: how the folder becomes rows.
        folder: where the data set lies; the card's paths begin here.
        key: the secret of the pseudonyms (`load_key`), at least 32 bytes.
        progress: called as progress(files seen, 0), since how many there will be is not known.
        linked: folders outside, into which links may lead; what other links lead to is skipped.

    Raises ManifestError when the folder does not fit the card, and LeakageError when a patient is in two splits. What
    is left out (filtered, without image, without patient, doubled) is listed in `Manifest.skipped`.
    """
    check_key(key)
    folder = Path(folder).absolute()
    if not folder.is_dir():
        raise ManifestError(f"No folder {folder}", expected=f"the folder of {card.name}", remedy="check the path")
    skips = Skips()
    _refuse_far_tables(card, folder, linked)
    present = [] if card.layout == "scan" else files_in(folder, linked, skips, progress)
    frame = raw_rows(card, folder, linked, present, skips, progress)
    frame = _filtered(frame, card, skips)
    frame = locate_files(frame, card, folder, present, skips)
    frame = _identified(frame, card, key, skips)
    cases = frame.select(_columns(frame, card))
    refuse_overlap(cases)
    cases = _without_doubles(cases, frame, card, skips)
    if cases.is_empty():
        raise _nothing_left(skips, card)
    files = _files(frame.unique("case_id", keep="first"), card, folder).join(cases, on="case_id", how="semi")
    return Manifest(cases.sort("case_id"), files.sort("case_id", maintain_order=True), card, skips.frame(), key_id(key),
                    folder)


def _refuse_far_tables(card: Card, folder: Path, linked: Sequence[Path]) -> None:
    from medssl.io.walk import Bounds  # readers are loaded only where scans are looked for

    bounds = Bounds(folder, linked)
    far = [table.path for table in (*card.tables, *card.join) if not bounds.hold(folder / table.path)]
    if far:
        raise ManifestError(f"Tables lie outside of the data set's folder: {', '.join(far)}",
                            expected="tables within the folder, or within storage named with --linked",
                            remedy="copy them into the folder")


def _filtered(frame: pl.DataFrame, card: Card, skips: Skips) -> pl.DataFrame:
    shown = fill(next(iter(card.files.values()), "{path}"), skip_blanks=True)
    for item in card.filters:
        regex = re.compile(item.keep or item.drop)
        value = frame.select(fill(item.source, skip_blanks=True).fill_null("").alias("value"))["value"]
        matching = [text for text in value.unique() if regex.fullmatch(text)]
        stays = value.is_in(matching) if item.keep else ~value.is_in(matching)
        skips.add(frame.filter(~stays).select(shown).to_series(), f"left out by the card: {item.reason}",
                  "change the card's `filters` to keep it")
        frame = frame.filter(stays)
    return frame


def _identified(frame: pl.DataFrame, card: Card, key: bytes, skips: Skips) -> pl.DataFrame:
    """Adds case_id, the raw `id:patient`, patient_id and study_id; rows without a patient are skipped."""
    first = f"file:{card.channel_names[0]}"
    places = frame.select(first, _part(frame, card.channel_names[0]).alias("part"))
    case_ids = [pseudonym(key, "c", card.name, path, *([] if part is None else [str(part)]))
                for path, part in places.iter_rows()]
    frame = frame.with_columns(
        pl.Series("case_id", case_ids, dtype=pl.String),
        pl.coalesce(fill(template) for template in card.patient).alias("id:patient"),
    )
    nobody = frame.filter(pl.col("id:patient").is_null())
    skips.add(nobody[first], "no patient id, so that its split cannot be trusted",
              "fill in the id, or give the card another template under `patient`", nobody["case_id"])
    frame = frame.filter(pl.col("id:patient").is_not_null())
    raw_study = fill(card.study) if card.study else pl.lit(None, pl.String)
    frame = frame.with_columns(pl.coalesce(raw_study, "case_id").alias("id:study"))
    space = card.patients_named_by
    named = {raw: pseudonym(key, "p", space, raw) for raw in frame["id:patient"].unique()}
    studies = [pseudonym(key, "s", space, *pair) for pair in frame.select("id:patient", "id:study").rows()]
    return frame.with_columns(
        frame["id:patient"].replace_strict(named, return_dtype=pl.String).alias("patient_id"),
        pl.Series("study_id", studies, dtype=pl.String),
    )


def _columns(frame: pl.DataFrame, card: Card) -> list[pl.Series | pl.Expr]:
    """The columns of the cases table, in order."""
    return [
        *(pl.col(name) for name in ("case_id", "patient_id", "study_id")),
        (pl.lit(card.kind) if card.kind else pl.col("kind")).alias("kind"),
        (pl.lit(card.modality) if card.modality else pl.col("modality")).alias("modality"),
        _splits(frame, card),
        *(_value(frame, name, source, card) for name, source in card.sources.items()),
        pl.col("file:mask").is_not_null().alias("has_mask"),
    ]


def _splits(frame: pl.DataFrame, card: Card) -> pl.Series:
    rule = card.split
    if rule.source:
        words = frame.select(fill(rule.source, skip_blanks=True).str.to_lowercase()).to_series()
        decided = words.replace_strict(SPLIT_WORDS, default=None, return_dtype=pl.String)
    else:
        people = frame["id:patient"].unique().to_list()
        chosen = dict(zip(people, assign_by_hash(card.patients_named_by, people, rule.shares), strict=True))
        words = frame["id:patient"]
        decided = words.replace_strict(chosen, return_dtype=pl.String)
    if "split:table" in frame.columns:
        decided = frame["split:table"].fill_null(decided)
    unknown = words.filter(decided.is_null())
    if len(unknown):
        raise ManifestError(
            f"{len(unknown)} row(s) have an unknown split in {rule.source}: {_examples(unknown)}",
            expected="one of " + ", ".join(SPLIT_WORDS), remedy="correct the table, or split by hash (`shares:`)",
        )
    return decided.alias("split")


def _value(frame: pl.DataFrame, name: str, source: Source, card: Card) -> pl.Series:
    """One label or attribute: text through its map, then typed. ManifestError for a value that does not fit."""
    raw = frame.select(fill(source.source, skip_blanks=True)).to_series()
    value = raw
    if source.values is not None:
        unlisted = raw.filter(~raw.is_in(list(source.values)) & raw.is_not_null())
        if len(unlisted):
            raise ManifestError(
                f"{name}: {len(unlisted)} row(s) of {source.source} hold a value that the card does not list: "
                f"{_examples(unlisted)}",
                expected="one of " + ", ".join(source.values),
                remedy="add the value under `values` in the card; `null` makes it missing",
            )
        meant = {old: None if new is None else str(new).removesuffix(".0") if isinstance(new, float) else new
                 for old, new in source.values.items()}
        value = raw.replace_strict(meant, default=None, return_dtype=pl.String)
    if source.unit == "days_since_first":
        return _days_since_first(name, source, value, frame["id:patient"])
    refuse_disclosure(name, source.source, value, frame["id:patient"], numeric=source.unit != "text")
    if source.unit == "text":
        return value.alias(name)
    number = _years(value) if source.unit == "years" else value.cast(pl.Float64, strict=False)
    number = number.set(number.is_infinite() | number.is_nan(), None)
    wrong = value.filter(number.is_null() & value.is_not_null())
    if len(wrong):
        raise ManifestError(
            f"{name}: {len(wrong)} row(s) of {source.source} are not numbers: {_examples(wrong)}",
            expected="a number" if source.unit == "number" else "an age such as 58, 058Y or 18M",
            remedy="correct the table, or give the card a `values` map for this column",
        )
    blank = card.labels.blank if name.removeprefix("label.") in card.labels.columns else None
    return (number if blank is None or not name.startswith("label.") else number.fill_null(blank)).alias(name)


def _years(value: pl.Series) -> pl.Series:
    """Ages in years; those above 89 become 90, as HIPAA's Safe Harbor asks."""
    years = {}
    for text in value.drop_nulls().unique():
        match = _AGE.fullmatch(text)
        years[text] = min(float(match[1]) / _PER_YEAR[match[2].upper()], 1e9) if match else None
    number = value.replace_strict(years, default=None, return_dtype=pl.Float64)
    return number.set(number > 89, OLDEST)


def _days_since_first(name: str, source: Source, value: pl.Series, patients: pl.Series) -> pl.Series:
    """Days since the earliest of the patient's own dates in this column, which says when nobody came."""
    day = pl.col("value").str.replace_all(r"[-/.]", "").str.head(8).str.to_date("%Y%m%d", strict=False)
    dates = pl.DataFrame({"value": value, "patient": patients}).with_columns(day=day)
    wrong = value.filter(dates["day"].is_null() & value.is_not_null())
    if len(wrong):
        raise ManifestError(f"{name}: {len(wrong)} row(s) of {source.source} are no dates: {_examples(wrong)}",
                            expected="year, month and day in that order, such as 2024-05-31 or 20240531",
                            remedy="correct the table, or make other values missing under `values`")
    days = (pl.col("day") - pl.col("day").min().over("patient")).dt.total_days().cast(pl.Float64)
    return dates.select(days.alias(name)).to_series()


def _without_doubles(cases: pl.DataFrame, frame: pl.DataFrame, card: Card, skips: Skips) -> pl.DataFrame:
    """One row a case: equal rows become one, and rows that contradict each other all go."""
    cases = cases.with_columns(frame[f"file:{card.channel_names[0]}"].alias("what"))
    repeated = cases.is_duplicated() & ~cases.select(pl.int_range(pl.len()).over(cases.columns) == 0).to_series()
    again = cases.filter(repeated)
    skips.add(again["what"], "row that repeats another", "remove the repetition", again["case_id"])
    cases = cases.filter(~repeated)
    contradicting = cases["case_id"].is_duplicated()
    odd = cases.filter(contradicting)
    skips.add(odd["what"], "rows of an image contradict each other", "keep the right one in the table", odd["case_id"])
    return cases.filter(~contradicting).drop("what")


def _files(frame: pl.DataFrame, card: Card, folder: Path) -> pl.DataFrame:
    """(case_id, role, path, part): absolute paths, one row a file, the slices of a series in their order."""
    what = "slices" if card.layout == "scan" else "file"
    files = pl.concat(frame.select("case_id", role=pl.lit(role), path=f"{what}:{role}", part=_part(frame, role))
                      for role in (*card.channel_names, "mask"))
    if card.layout == "scan":
        files = files.explode("path")
    return files.filter(pl.col("path").is_not_null()).with_columns(path=f"{folder}/" + pl.col("path"))


def _part(frame: pl.DataFrame, role: str) -> pl.Expr:
    return pl.col(f"part:{role}") if f"part:{role}" in frame.columns else pl.lit(None, pl.Int64)


def _nothing_left(skips: Skips, card: Card) -> ManifestError:
    reasons = gathered(skips.frame())
    return ManifestError(f"No case is left ({skips.told() or 'the table has no rows'})",
                         expected=f"cases of {card.name}",
                         remedy=reasons["remedy"][0] if reasons.height else "check the card's tables")


def _examples(values: pl.Series) -> str:
    distinct = values.unique().sort().to_list()
    shown = ", ".join("a blank" if value is None else repr(value) for value in distinct[:5])
    return shown + (f" and {len(distinct) - 5} more" if len(distinct) > 5 else "")
