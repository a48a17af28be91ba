"""One more table, whose columns are added to the cases that its rows name: by MRN, accession number, UID or path.

It is joined by the ids as the hospital has them, before pseudonyms are made, and no id is ever printed.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import polars as pl

from medssl.data.card import Join, Mangling
from medssl.data.skips import Skips
from medssl.data.table import read_table, require_columns
from medssl.errors import ManifestError

_REPAIRS: Mapping[Mangling, str] = {
    "spaces": r"\s+",
    "decimals": r"\.0+$",
    "zeros": r"^0+\B",
}
"""What is taken out of an id; `\\B` keeps the last zero of an id that has nothing else."""
_WORDS: Mapping[Mangling, str] = {"spaces": "spaces", "decimals": "a trailing .0", "zeros": "leading zeros",
                                  "case": "capitals"}
_SCIENTIFIC = r"^\d(\.\d+)?[Ee]\+\d+$"


def joined(frame: pl.DataFrame, join: Join, folder: Path, skips: Skips) -> pl.DataFrame:
    """The cases with the table's columns added; rows without a case and cases without a row are counted.

    ManifestError where no row names a case, where two rows name the same one, or where what `join.ignore` leaves of
    two different ids is the same. Where rows would match but for what a spreadsheet does to ids, that is named.
    """
    left, right = list(join.match), list(join.match.values())
    other = read_table(folder / join.path)
    require_columns(left, frame, "`join`", "the card's rows")
    require_columns(right, other, "`join`", join.path)
    nameless = other.filter(pl.any_horizontal(pl.col(right).is_null())).height
    other = other.drop_nulls(right)
    cases, rows = _keys(frame, left, join.ignore), _keys(other, right, join.ignore)
    _refuse_merged_ids(frame.select(left), cases, join)
    if doubled := rows.filter(rows.is_duplicated()).n_unique():
        raise ManifestError(f"{join.path} names {doubled} case(s) more than once", expected="one row a case",
                            remedy=f"make {', '.join(right)} unique in that table")
    has_case, has_row = _are_in(rows, cases), _are_in(cases, rows)
    if frame.height and other.height and not has_case.any():
        raise _no_match(frame.select(left), other.select(right), join)
    skips.add_count(join.path, nameless, "row of the joined table without an id", "fill in the id, or remove the row")
    skips.add_count(join.path, int((~has_row).sum()), "columns of a case that has no row in the joined table",
                    "add its row, or leave the case without")
    _tell_unused(frame.select(left), other.filter(~has_case).select(right), has_case, has_row, join, skips)
    clash = [name for name in other.columns if name in frame.columns or name in right]
    return pl.concat([frame, cases], how="horizontal").join(
        pl.concat([other.drop(clash), rows], how="horizontal"), on=rows.columns, how="left", maintain_order="left",
    ).drop(rows.columns)


def _keys(frame: pl.DataFrame, columns: list[str], ignore: list[Mangling]) -> pl.DataFrame:
    """The columns by which both sides are compared, free of what does not count, under names of their own."""
    keys = frame.select(pl.col(name).alias(f"join:{number}") for number, name in enumerate(columns))
    for mangling, pattern in _REPAIRS.items():
        if mangling in ignore:
            keys = keys.with_columns(pl.all().str.replace_all(pattern, ""))
    return keys.with_columns(pl.all().str.to_lowercase()) if "case" in ignore else keys


def _are_in(rows: pl.DataFrame, others: pl.DataFrame) -> pl.Series:
    return rows.join(others.unique().with_columns(found=True), on=others.columns, how="left", maintain_order="left")[
        "found"].fill_null(False)


def _refuse_merged_ids(raw: pl.DataFrame, keys: pl.DataFrame, join: Join) -> None:
    if merged := raw.n_unique() - keys.n_unique():
        raise ManifestError(f"{merged} id(s) of the cases become another's when {_words(join.ignore)} do not count",
                            expected="different ids that stay different",
                            remedy="ignore less under the card's `join`, and mend the table instead")


def _tell_unused(cases: pl.DataFrame, unused: pl.DataFrame, has_case: pl.Series, has_row: pl.Series, join: Join,
                 skips: Skips) -> None:
    """Rows without a case, counted apart where a spreadsheet's way with ids is the likely cause."""
    count, cause = _likely_cause(cases, unused, join)
    if cause:
        skips.add_count(join.path, count, f"row of the joined table that names a case but for {_words(cause)}",
                        _remedy(cause, join))
    few = max(2 * has_case.sum() - len(has_case), 2 * has_row.sum() - len(has_row)) < 0
    told = f": only {has_case.sum()} of {len(has_case)} rows have one" if few and not cause else ""
    skips.add_count(join.path, unused.height - count, f"row of the joined table without a case{told}",
                    "see that both number the cases alike" if told else "copy the missing case, or leave it")


def _no_match(cases: pl.DataFrame, rows: pl.DataFrame, join: Join) -> ManifestError:
    by = ", ".join(f"{theirs} = {ours}" for ours, theirs in join.match.items())
    count, cause = _likely_cause(cases, rows, join)
    what = f"None of the {rows.height} rows of {join.path} names a case by {by}"
    if cause:
        return ManifestError(f"{what}; {count} would, but for {_words(cause)}", expected="ids that are equal",
                             remedy=_remedy(cause, join))
    cut = sum(rows.select(pl.col(name).str.contains(_SCIENTIFIC).sum()).item() for name in rows.columns)
    if cut:
        return ManifestError(f"{what}; {cut} ids stand there as a spreadsheet shows long numbers, like 1.23E+11",
                             expected="all of their digits",
                             remedy="export the table again from its source, with that column as text")
    return ManifestError(what, expected="the same ids in both", remedy="see that both columns number the cases alike")


def _likely_cause(cases: pl.DataFrame, rows: pl.DataFrame, join: Join) -> tuple[int, list[Mangling]]:
    """How many of these rows, which name no case, would name one, and the fewest things to ignore for that."""
    def matching(ignore: list[Mangling]) -> int:
        return int(_are_in(_keys(rows, rows.columns, ignore), _keys(cases, cases.columns, ignore)).sum())

    cause = list(_WORDS)
    count = matching(cause) if rows.height else 0
    if not count:
        return 0, []
    for mangling in _WORDS:
        fewer = [name for name in cause if name != mangling]
        if mangling in join.ignore or matching(fewer) < count:
            continue
        cause = fewer
    return count, [name for name in cause if name not in join.ignore]


def _remedy(cause: list[Mangling], join: Join) -> str:
    return f"give the card's `join` the line `ignore: [{', '.join([*join.ignore, *cause])}]`, or mend the table"


def _words(manglings: list[Mangling]) -> str:
    return " and ".join(_WORDS[mangling] for mangling in manglings)
