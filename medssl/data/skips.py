"""What was left out of a manifest, and why."""

from __future__ import annotations

import polars as pl

SKIPPED = {"what": pl.String, "case_id": pl.String, "reason": pl.String, "remedy": pl.String, "count": pl.Int64}


_NUMBER = r"\d+(?:\.\d+)?"


def without_numbers(reason: pl.Expr) -> pl.Expr:
    """The same text for cases that differ in numbers of their own alone."""
    return reason.str.replace_all(_NUMBER, "#")


def gathered(skipped: pl.DataFrame) -> pl.DataFrame:
    """(reason, remedy, what, count): a row for each reason, whatever the numbers in it, with its first example.

    The most frequent come first, so that ten thousand files of a dump are a page to read.
    """
    alike = without_numbers(pl.col("reason")).alias("alike")
    rows = skipped.group_by(alike, "remedy", maintain_order=True).agg(pl.col("reason", "what").first(),
                                                                      pl.col("count").sum())
    return rows.sort("count", descending=True, maintain_order=True).select("reason", "remedy", "what", "count")


class Skips:
    """What was left out, with the reason. `what` holds paths: it is for the terminal and is never saved."""

    def __init__(self) -> None:
        self._parts: list[pl.DataFrame] = []

    def add(self, what: pl.Series | list[str], reason: str, remedy: str, case_ids: pl.Series | None = None) -> None:
        """Notes a row for each of `what`."""
        if len(what):
            part = pl.DataFrame({"what": what, "case_id": case_ids}, schema_overrides={"case_id": pl.String})
            told = {"reason": pl.lit(reason), "remedy": pl.lit(remedy), "count": pl.lit(1, pl.Int64)}
            self._parts.append(part.with_columns(**told))

    def add_count(self, example: str, count: int, reason: str, remedy: str) -> None:
        """Notes many alike in one row, none at all in no row."""
        if not count:
            return
        row = {"what": [example], "case_id": [None], "reason": [reason], "remedy": [remedy], "count": [count]}
        self._parts.append(pl.DataFrame(row, schema=SKIPPED))

    def frame(self) -> pl.DataFrame:
        empty = pl.DataFrame(schema=SKIPPED)
        return pl.concat([empty, *(part.select(list(SKIPPED)) for part in self._parts)])

    def told(self) -> str:
        """Each reason with its count, in one line; blank where nothing was left out."""
        return "; ".join(f"{count} × {reason}" for reason, count in
                         gathered(self.frame()).select("reason", "count").iter_rows())
