"""What may not stand among the labels and attributes of a manifest, which is shared: no date, id, path or name."""

from __future__ import annotations

import polars as pl

from medssl.errors import ManifestError

_SHORTEST_ID = 4
"""Shorter ids are met by chance in values that are none."""
_DAY = r"^(19|20)\d{2}(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01])(\.0*)?$"


def refuse_disclosure(name: str, source: str, value: pl.Series, patients: pl.Series, *, numeric: bool) -> None:
    """ManifestError where a label or attribute would tell who somebody is, or when they came.

    A single text is enough. Numbers may look like a date or an id by chance: more than half of them must.

    Args:
        name, source: the manifest's column and the card's template, for the message.
        value: text, a row a case, as the manifest will hold it.
        patients: the raw patient id of each row.
    """
    told = _in_numbers(value, patients) if numeric else _in_texts(value, patients)
    for what, rows in told.items():
        if rows:
            raise ManifestError(
                f"{name}: {rows} row(s) of {source} look like {what}",
                expected="nothing in a manifest that helps to name a person",
                remedy="leave the column out of the card, give what it holds other names under `values`, or take dates "
                       "as `unit: days_since_first`",
            )


def _in_texts(value: pl.Series, patients: pl.Series) -> dict[str, int]:
    from medssl.io.phi import resembles  # readers are loaded only where a manifest is built

    looks = {text: what for text in value.drop_nulls().unique() if (what := resembles(text))}
    counts = value.replace_strict(looks, default=None, return_dtype=pl.String).drop_nulls().value_counts()
    own = pl.DataFrame({"value": value, "id": patients}).filter(
        (pl.col("id").str.len_chars() >= _SHORTEST_ID) & pl.col("value").str.contains(pl.col("id"), literal=True))
    return {"the patient's own id": own.height, **dict(counts.sort(value.name).rows())}


def _in_numbers(value: pl.Series, patients: pl.Series) -> dict[str, int]:
    known = pl.DataFrame({"value": value, "id": patients}).drop_nulls("value")
    counts = {
        "the patient's own id": (pl.col("value") == pl.col("id")) & (pl.col("id").str.len_chars() >= _SHORTEST_ID),
        "a date": pl.col("value").str.contains(_DAY),
    }
    rows = {what: known.filter(condition).height for what, condition in counts.items()}
    return {what: count for what, count in rows.items() if count > known.height / 2}
