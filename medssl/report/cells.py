"""The report's tables: each cell holds what is read and the exact value it was rounded from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from medssl.data.groups import FEWEST, MISSING
from medssl.report import words
from medssl.report.cohort import Share
from medssl.report.study import Study
from medssl.report.style import data_uri
from medssl.report.tables import Curve

COMPARISON_HEAD = ["labelled share", "difference", "label multiplier", "corrected p"]


@dataclass(frozen=True)
class Cell:
    """text: as rounded. value: the exact number in `text`, for machines. note: a smaller second line."""

    text: str
    value: float | None = None
    note: str = ""


@dataclass(frozen=True)
class Group:
    """Rows under one heading; no heading where `name` is empty."""

    name: str
    rows: list[list[Cell]]


@dataclass(frozen=True)
class Table:
    caption: str
    head: list[str]
    groups: list[Group]


def score_table(curve: Curve, metric: str) -> Table:
    """A row a fraction, a column an arm: mean, and the interval below it."""
    rows = curve.summary.filter(pl.col("metric") == metric)
    return Table(_score_caption(curve, metric), ["labelled share", *map(curve.label, curve.arms)],
                 [Group("", _score_rows(curve, rows))])


def subgroup_tables(curve: Curve, metric: str) -> list[Table]:
    """`score_table` and `comparison_table` inside each group of cases, a heading a group; none where the curve has no
    groups. Where one is too small to be told of, no group's size is told, which its own might be reckoned from."""
    if curve.subgroups is None:
        return []
    column = curve.subgroups.columns[0]
    name, groups = column.removeprefix("attr."), []
    withheld = curve.subgroups.filter(pl.col("metric").is_null())[column].to_list()
    for value, rows in _by_group(curve.subgroups, metric):
        tested = f" ({rows['test_patients'][0]} test patients, {rows['test_cases'][0]} cases)"
        groups.append(Group(f"{name} {value}{'' if withheld else tested}", _score_rows(curve, rows)))
    groups += [Group(f"{name} {value} (fewer than {FEWEST} patients)", [[Cell("not judged")]]) for value in withheld]
    head = ["labelled share", *map(curve.label, curve.arms)]
    tables = [Table(f"By {name}: {_score_caption(curve, metric)}", head, groups)]
    if curve.subgroup_comparison is not None:
        groups = [Group(f"{name} {value} · {group.name}", group.rows)
                  for value, rows in _by_group(curve.subgroup_comparison, metric)
                  for group in _comparison_groups(curve, rows, metric)]
        if groups:
            tables.append(Table(f"By {name}: {_comparison_caption(curve, metric)}", COMPARISON_HEAD, groups))
    return tables


def comparison_table(curve: Curve, metric: str) -> Table:
    """A row a compared arm and fraction: difference, interval, corrected p, label multiplier."""
    groups = _comparison_groups(curve, curve.comparison, metric)
    return Table(words.sentence(_comparison_caption(curve, metric)), COMPARISON_HEAD, groups)


def _comparison_groups(curve: Curve, comparison: pl.DataFrame, metric: str) -> list[Group]:
    """A heading a compared arm, of the whole curve's comparison or that of one of its groups of cases."""
    digits = words.decimals(comparison.filter(pl.col("metric") == metric)["difference"])
    groups = []
    for arm in curve.arms:
        body = [[_share(row["fraction"], [row]), difference_cell(row, digits), _multiplier(row, curve.head.fractions),
                 Cell(words.p_value(row["p_holm"]), row["p_holm"])]
                for row in curve.differences(arm, metric, comparison).iter_rows(named=True)]
        if body:
            groups.append(Group(f"{curve.label(arm)} vs {curve.label(curve.head.baselines.get(arm, ''))}", body))
    return groups


def _by_group(table: pl.DataFrame, metric: str) -> Iterator[tuple[str, pl.DataFrame]]:
    """The groups of cases of a table whose first column says them, each with its rows of one metric."""
    rows = table.filter(pl.col("metric") == metric)
    for (value,), part in rows.group_by(table.columns[0], maintain_order=True):
        yield MISSING if value is None else value, part


def cohort_tables(study: Study) -> list[Table]:
    """Who is in which split, and what was left out: counts and shares, but for those of so few that they might tell
    who they are."""
    people = [[Cell(split), Cell(f"{patients:,}", patients), Cell(f"{cases:,}", cases)]
              for split, (patients, cases) in study.splits.items()]
    tables = [Table(f"Cases of {study.card} by split", ["split", "patients", "cases"], [Group("", people)])]
    if study.left_out:
        left = [[Cell(reason), Cell(f"{count:,}", count)] for reason, count in study.left_out]
        tables.append(Table("What was left out, and why", ["reason", "count"], [Group("", left)]))
    for shares in study.tables:
        columns = [_share_cells(column) for column in zip(*(row for _, row in shares.rows), strict=True)]
        rows = [[Cell(name), *cells] for (name, _), cells in zip(shares.rows, zip(*columns, strict=True), strict=True)]
        tables.append(Table(words.sentence(shares.title), ["", *shares.splits], [Group("", rows)]))
    return tables


def _share_cells(column: Sequence[Share]) -> list[Cell]:
    """A split's groups, and of few cases neither how many they are nor what it could be reckoned from."""
    withheld = {place for place, share in enumerate(column)
                if 0 < share.count < FEWEST or 0 < share.total - share.count < FEWEST}
    told = sorted((place for place, share in enumerate(column) if share.count and place not in withheld),
                  key=lambda place: column[place].count)
    adds_up = len(column) > 0 and sum(share.count for share in column) == column[0].total
    if adds_up and told and 0 < sum(column[place].count for place in withheld) < FEWEST:
        withheld.add(told[0])
    return [Cell(f"< {FEWEST}" if share.count < FEWEST else "not told") if place in withheld else
            Cell(f"{share.count:,}", share.count, f"{share.percent:.0f} %") for place, share in enumerate(column)]


def provenance_table(caption: str, facts: dict[str, Any]) -> Table:
    """Nested keys in one column, joined by a dot; what names seconds is told in hours and minutes."""
    return Table(caption, ["what", "value"], [Group("", [[Cell(key), Cell(text)] for key, text in _flatten(facts)])])


def _comparison_caption(curve: Curve, metric: str) -> str:
    return (f"{curve.metric_name(metric)}: paired difference (positive is better) and label multiplier, with "
            f"{words.LEVEL} intervals")


def csv_uri(table: pl.DataFrame) -> str:
    return data_uri(table.write_csv().encode(), "text/csv;charset=utf-8")


def _score_caption(curve: Curve, metric: str) -> str:
    unit = f" in {curve.unit(metric)}" if curve.unit(metric) else ""
    return f"{words.sentence(curve.metric_name(metric))}{unit}, with {words.LEVEL} interval"


def _score_rows(curve: Curve, rows: pl.DataFrame) -> list[list[Cell]]:
    digits = words.decimals(rows["mean"])
    body = []
    for (fraction,), group in rows.sort("fraction").group_by("fraction", maintain_order=True):
        found = {row["arm"]: row for row in group.iter_rows(named=True)}
        body.append([_share(fraction, found.values()), *(score_cell(found.get(arm), digits) for arm in curve.arms)])
    return body


def _share(fraction: float, rows: Any) -> Cell:
    known = [row["train_patients"] for row in rows if row["train_patients"] is not None]
    note = f"{words.span(known)} patients" if known else ""
    return Cell(words.percent(fraction), fraction, note)


def score_cell(row: dict[str, Any] | None, digits: int) -> Cell:
    """Of a row of the summary: the mean, its interval below."""
    if row is None:
        return Cell(words.MISSING)
    return Cell(words.number(row["mean"], digits), row["mean"], words.interval(row["low"], row["high"], digits))


def difference_cell(row: dict[str, Any], digits: int) -> Cell:
    """Of a row of a comparison: the difference with its sign, its interval below."""
    return Cell(words.number(row["difference"], digits, signed=True), row["difference"],
                words.interval(row["low"], row["high"], digits, signed=True))


def _multiplier(row: dict[str, Any], fractions: Sequence[float]) -> Cell:
    low, high = (words.multiplier(row[name], row["fraction"], fractions)
                 for name in ("multiplier_low", "multiplier_high"))
    note = "" if low == high == words.MISSING else low if low == high else f"{low} to {high}"
    return Cell(words.multiplier(row["multiplier"], row["fraction"], fractions), row["multiplier"], note)


def _flatten(facts: Any, key: str = "") -> list[tuple[str, str]]:
    if isinstance(facts, dict):
        prefix = f"{key}." if key else ""
        return [line for name, value in facts.items() for line in _flatten(value, f"{prefix}{name}")]
    if isinstance(facts, Sequence) and not isinstance(facts, str):
        if any(isinstance(each, dict) for each in facts):
            return [line for number, each in enumerate(facts, 1) for line in _flatten(each, f"{key}.{number}")]
        return [(key, ", ".join(words.without_folders(str(each)) for each in facts) or words.MISSING)]
    if key.endswith("seconds") and isinstance(facts, int | float):
        return [(key, words.duration(facts))]
    return [(key, words.MISSING if facts is None else words.without_folders(str(facts)))]
