"""Card + folder -> raw rows: one row a case, its raw columns as text, and the files that belong to it.

Names of the columns that are not raw: `file:<role>` (path within the folder, null where absent), `slices:<role>` (all
files of a scanned series, in order), `part:<role>` (which of several scans in a multi-frame file), `split:table` (the
split that a table states).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

import polars as pl

from medssl.data.card import Card
from medssl.data.join import joined
from medssl.data.scanned import Progress, one_row_a_study, scanned
from medssl.data.skips import Skips
from medssl.data.structures import check_masks
from medssl.data.table import read_table, require_columns
from medssl.data.template import fields, fill, literals, template_regex
from medssl.errors import ManifestError

_OUTSIDE = r"^[/\\~]|^[A-Za-z]:|(^|[/\\])\.\.([/\\]|$)"


def raw_rows(
    card: Card, folder: Path, linked: Sequence[Path], present: list[str], skips: Skips, progress: Progress | None
) -> pl.DataFrame:
    """The raw rows by the card's layout, with joined and extracted columns; no column that the card names is absent."""
    if card.layout == "scan":
        frame = scanned(card, folder, linked, skips, progress)
    elif card.layout == "table":
        tables = [_table_rows(folder, table.path, table.split) for table in card.tables]
        for table, rows in zip(card.tables, tables, strict=True):
            missing = [name for other in tables for name in other.columns if name not in rows.columns]
            require_columns([name for name in missing if name in card.named_columns()], rows, "the card", table.path)
        frame = pl.concat(tables, how="diagonal")
    else:
        frame = _matched(card, folder, present)
    early = {column: pattern for column, pattern in card.extract.items() if column in frame.columns}
    frame = _extracted(frame, early)  # before the join, which may go by what is cut out here, as studies may
    if card.channels:
        frame = one_row_a_study(frame, card, skips)
    for join in card.join:
        frame = joined(frame, join, folder, skips)
    frame = _extracted(frame, {column: card.extract[column] for column in card.extract if column not in early})
    if card.layout == "scan":  # a header field that no scan of this folder carries is blank, not a mistake
        absent = [name for name in card.named_columns() if name not in frame.columns]
        frame = frame.with_columns(pl.lit(None, pl.String).alias(name) for name in absent)
    require_columns(card.named_columns(), frame, "the card", _origin(card))
    return frame


def locate_files(frame: pl.DataFrame, card: Card, folder: Path, found: list[str], skips: Skips) -> pl.DataFrame:
    """Adds `file:*` by the card's templates, looked up among the files `found`; rows without images are skipped."""
    if card.layout == "scan":
        return frame
    present = pl.Series("path", found, dtype=pl.String)
    roles = {**card.files, **({"mask": card.mask} if card.mask else {})}
    frame = frame.with_columns(fill(template).alias(f"file:{role}") for role, template in roles.items())
    _note_unnamed(frame, list(roles), present, skips)
    there = {role: pl.col(f"file:{role}").is_in(present.implode()).fill_null(False) for role in roles}
    mask = pl.when(there["mask"]).then("file:mask") if card.mask else pl.lit(None, pl.String)
    optional = (pl.when(there[role]).then(f"file:{role}").alias(f"file:{role}") for role in card.optional)
    frame = frame.with_columns(mask.alias("file:mask"), *optional)
    images = [f"file:{role}" for role in card.files]
    absent = pl.concat_list(pl.when(~there[role]).then(pl.lit(role)) for role in card.required_channels)
    frame = frame.with_columns(absent.list.drop_nulls().list.join(", ").alias("absent"))
    lost = frame.filter(pl.col("absent") != "")
    far = pl.any_horizontal(pl.col(f"file:{role}").str.contains(_OUTSIDE).fill_null(False) for role in roles)
    skips.add(_shown(lost.filter(far), images), "a path that is absolute or climbs out of a folder with `..`",
              "give paths that begin in the data set's folder, e.g. by the card's `extract`")
    if lost.height == frame.height:
        raise _nothing_found(frame, images, folder, present)
    for (absent,), part in lost.filter(~far).group_by("absent", maintain_order=True):
        only_mask = pl.lit(absent == ", ".join(card.required_channels)) & pl.col("file:mask").is_not_null()
        masked, other = part.filter(only_mask), part.filter(~only_mask)
        skips.add(masked["file:mask"], "mask without an image", "add the image, or remove the mask")
        skips.add(_shown(other, images), f"no file for: {absent}", "copy the missing file, or remove the row or case")
    frame = frame.filter(pl.col("absent") == "").drop("absent")
    return check_masks(frame, card, folder, skips) if card.structures else frame


def files_in(folder: Path, linked: Sequence[Path], skips: Skips, progress: Progress | None = None) -> list[str]:
    """Every file below `folder` by its path within it, hidden ones left out; refused links are counted in `skips`."""
    from medssl.io.nifti import pair_of  # readers are loaded only where scans are looked for
    from medssl.io.walk import HIDDEN, REMEDIES, UNLISTED, Bounds, walk

    found: list[str] = []
    refused: dict[str, str] = {}
    for path, refusal in walk(folder, Bounds(folder, linked), repeat=True):
        if refusal is None:
            found.append(path)
        elif refusal.startswith(UNLISTED):
            raise ManifestError(f"{refusal}: {folder / path}", expected="folders that you may list",
                                remedy="ask for the right to read it")
        elif refusal != HIDDEN:
            refused[path] = refusal
        if progress:
            progress(len(found), 0)
    present = set(found)  # neither half of a pair of files is read if one is refused
    refused |= {half: refusal for path, refusal in refused.items()
                for half in map(Path.as_posix, pair_of(Path(path))) if half in present}
    for path, refusal in refused.items():
        skips.add([path], refusal, REMEDIES[refusal])
    return [path for path in found if path not in refused]


def _table_rows(folder: Path, path: str, split: str | None) -> pl.DataFrame:
    return read_table(folder / path).with_columns(pl.lit(split, pl.String).alias("split:table"))


def _matched(card: Card, folder: Path, present: list[str]) -> pl.DataFrame:
    """A row for each combination of fields that files match; a file goes to the template with the most literal text."""
    templates = sorted([*card.files.values(), *filter(None, [card.mask])], key=lambda t: -len("".join(literals(t))))
    regexes = [(template_regex(template), fields(template)) for template in templates]
    names = fields(templates[0])
    found: dict[tuple[str, ...], None] = {}
    inner: str | None = None
    for path in present:
        for regex, order in regexes:
            match = regex.fullmatch(path)
            if match:
                values = dict(zip(order, match.groups(), strict=True))
                found[tuple(values[name] for name in names)] = None
                break
        else:
            inner = inner or _folder_within(path, regexes)
    if not found:
        raise ManifestError(
            f"No file in {folder} fits the card {card.name}",
            expected=" or ".join(templates),
            remedy=f"give the folder {folder / inner}" if inner else "give the folder in which these paths begin",
        )
    return pl.DataFrame(sorted(found), schema=dict.fromkeys(names, pl.String), orient="row")


def _folder_within(path: str, regexes: list[tuple[re.Pattern[str], list[str]]]) -> str | None:
    """The folder from which on `path` would fit the card."""
    parts = PurePosixPath(path).parts
    for depth in range(1, len(parts)):
        if any(regex.fullmatch("/".join(parts[depth:])) for regex, _ in regexes):
            return "/".join(parts[:depth])
    return None


def _extracted(frame: pl.DataFrame, extract: Mapping[str, str]) -> pl.DataFrame:
    for column, pattern in extract.items():
        require_columns([column], frame, "`extract`", "the data set")
        regex = re.compile(pattern)
        clash = [name for name in regex.groupindex if name in frame.columns]
        if clash:
            raise ManifestError(f"`extract` of {column!r} makes a column {clash[0]!r} that is there already",
                                expected="a new name", remedy="rename the group in the card")
        matches = [regex.fullmatch(text) if text is not None else None for text in frame[column]]
        frame = frame.with_columns(
            pl.Series(name, [match[name] or None if match else None for match in matches], dtype=pl.String)
            for name in regex.groupindex
        )
    return frame


def _note_unnamed(frame: pl.DataFrame, roles: list[str], present: pl.Series, skips: Skips) -> None:
    """Files of the same suffix that no row leads to are counted, so that a forgotten table or folder is noticed."""
    named = pl.concat([frame[f"file:{role}"].alias("path") for role in roles]).drop_nulls().unique()
    suffixes = {"".join(PurePosixPath(path).suffixes[-1:]) for path in named.head(1000)}
    alike = present.filter(present.str.extract(r"(\.[^./]*)$").is_in(sorted(suffixes)))
    unnamed = alike.filter(~alike.is_in(named.implode()))
    if len(unnamed):
        skips.add_count(unnamed[0], len(unnamed), "file that no row or pattern of the card names",
                        "add its row or table to the card, if it was to be used")


def _nothing_found(frame: pl.DataFrame, images: list[str], folder: Path, present: pl.Series) -> ManifestError:
    wanted = next((p for p in _shown(frame, images) if p), "a path (the columns that name it are blank)")
    if not len(present):
        return ManifestError(f"{folder} holds no files", expected=wanted, remedy="give the folder of the data set")
    tail = PurePosixPath(wanted).name
    elsewhere = next((path for path in present if path.endswith(f"/{tail}")), None)
    remedy = f"the first one is at {elsewhere}: correct the card's `files`" if elsewhere else \
        "give the folder in which these paths begin, or correct the card's `files`"
    return ManifestError(f"None of the {frame.height} cases has its images in {folder}", expected=wanted, remedy=remedy)


def _shown(frame: pl.DataFrame, images: list[str]) -> pl.Series:
    return frame.select(pl.coalesce(images).fill_null("a row without a path")).to_series()


def _origin(card: Card) -> str:
    return {"table": ", ".join(table.path for table in card.tables), "pattern": "the card's file pattern",
            "scan": "the scans' headers"}[card.layout]
