"""Cases in groups by what a table says of them: terms as they are, and numbers in bands of round width."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import polars as pl

BANDS = 6
"""About so many groups a number has."""
TERMS = 6
"""So many terms of a text have a group of their own."""
FEWEST = 5
"""A term that fewer patients have is counted under the others: it might tell who they are."""
OTHERS, MISSING = "others", "missing"


def grouped(cases: pl.DataFrame, column: str) -> pl.Series:
    """The group of each case by one of its columns, an Enum in the order in which groups are shown.

    cases: with patient_id.
    """
    return _termed(cases, column) if cases[column].dtype == pl.String else _banded(cases[column])


def _termed(cases: pl.DataFrame, column: str) -> pl.Series:
    """The commonest terms; the others, and what is missing, in a group each."""
    patients = cases.drop_nulls(column).group_by(column).agg(pl.col("patient_id").n_unique()).sort(
        ["patient_id", column], descending=[True, False])
    own = patients.filter(pl.col("patient_id") >= FEWEST)[column].head(TERMS).to_list()
    group = pl.when(pl.col(column).is_in(own)).then(column).when(pl.col(column).is_null()).then(pl.lit(MISSING))
    order = list(dict.fromkeys([*own, OTHERS, MISSING]))
    return cases.select(group=group.otherwise(pl.lit(OTHERS)).cast(pl.Enum(order)))["group"]


def _banded(values: pl.Series) -> pl.Series:
    """Bands of even, round width; the first and the last are open, so that an outlier does not stretch them."""
    known = values.drop_nulls()
    edges = _round_edges(known.quantile(0.05), known.quantile(0.95)) if len(known) else []
    between = [f"{low:g} to below {high:g}" for low, high in pairwise(edges)]
    names = [f"below {edges[0]:g}", *between, f"{edges[-1]:g} and more"] if edges else ["all"]
    places = np.searchsorted(edges, values.fill_null(0.0).to_numpy(), side="right")
    banded = pl.Series([names[place] for place in places], dtype=pl.String)
    return banded.set(values.is_null(), MISSING).cast(pl.Enum([*names, MISSING]))


def _round_edges(low: float, high: float) -> list[float]:
    """Multiples of 1, 2 or 5 times a power of ten, some BANDS of them, between low and high."""
    if not high > low:
        return []
    width = (high - low) / BANDS
    power = 10.0 ** np.floor(np.log10(width))
    step = next(times * power for times in (1, 2, 5, 10) if times * power >= width * (1 - 1e-9))
    return [float(number) * step for number in range(int(np.floor(low / step)) + 1, int(np.ceil(high / step)))]
