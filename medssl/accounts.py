"""What commands print of what they found: counts, kinds, skipped files, scores."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import polars as pl


def print_counts(name: str, values: list[str]) -> None:
    print(f"  by {name}: " + ", ".join(f"{value} {values.count(value)}" for value in sorted(set(values))))


def print_kinds(cases: pl.DataFrame) -> None:
    from medssl.data.kinds import choice, kinds_of

    rows = kinds_of(cases).rows()
    print("  by kind and modality:")
    for kind, modality, count, patients in rows:
        print(f"    {kind:<7} {modality:<5} {count:>7} cases of {patients} patients")
    if len(rows) > 1:
        kind, modality, *_ = rows[0]
        print(f"  a recipe takes one kind; choose behind its command, e.g. {choice(kind=kind, modality=modality)}")


def print_skipped(skipped: pl.DataFrame, table: Path | None) -> None:
    """A line for each reason; with `table`, a row for each file in it."""
    from medssl.data.skips import gathered
    from medssl.files import write_table

    if table:
        write_table(table, skipped.drop("case_id"), mode=0o600)
    if skipped.is_empty():
        return
    print(f"{skipped['count'].sum()} skipped{f', listed in {table}' if table else ''}:", file=sys.stderr)
    for reason, remedy, example, count in gathered(skipped).rows():
        print(f"  - {count} × {reason}. Remedy: {remedy}. E.g. {example}", file=sys.stderr)


def print_scores(rows: list[dict]) -> None:
    if not rows:
        print("no metric is defined on these cases: too few, or all of one class")
    for row in rows:
        interval = ("no interval: too few patients, or too few with or without it" if row["low"] is None
                    else f"95 % interval over patients {row['low']:.3f} to {row['high']:.3f}")
        print(f"{row['metric']:<28} {row['mean']:.3f}  ({interval})")


def print_groups(groups: pl.DataFrame, by: str) -> None:
    """The primary metric of each group, over all names and of each; groups as `scores_by_group` makes them."""
    from medssl.data.groups import FEWEST

    first = next((metric for metric in groups["metric"] if metric), None)
    names = {metric for metric in groups["metric"] if metric and metric.startswith(f"{first}/")}
    print(f"\nby {by}, each group's interval on its own:")
    for (group, patients, cases), part in groups.group_by("group", "patients", "cases", maintain_order=True):
        told = f"{group} · {patients} patients · {cases} cases"
        rows = [row for row in part.to_dicts() if row["metric"] and row["metric"].partition("/")[0] == first]
        if rows and len(rows) - 1 < len(names):
            told += f" · {first} is the mean of the {len(rows) - 1} of {len(names)} that are defined here"
        few = f"fewer than {FEWEST} patients: not judged" if patients < FEWEST else "no figure is defined"
        print(told if rows else f"{group} · {few}")
        if rows:
            print_scores(rows)
