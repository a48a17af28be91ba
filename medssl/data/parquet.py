"""Parquet tables, looked at before they are read: a file's footer is a claim."""

from __future__ import annotations

from pathlib import Path

import polars as pl


def read_parquet(path: Path) -> tuple[pl.DataFrame, dict[str, str]]:
    """The table and what it says of itself beside its columns.

    Raises:
        ValueError: it is no Parquet table, is damaged, or claims more rows than bytes: each row of ours names a case or
            a file of its own, for which a byte is too little.
        OSError: as `open`.
    """
    try:
        rows, stored = pl.scan_parquet(path, glob=False).select(pl.len()).collect().item(), path.stat().st_size
        if rows > stored:
            raise ValueError(f"it claims {rows} rows in {stored} bytes")
        return pl.read_parquet(path, glob=False), pl.read_parquet_metadata(path)
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
        raise ValueError(str(error).splitlines()[0]) from None
