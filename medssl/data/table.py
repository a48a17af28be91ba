"""CSV files as hospitals write them, every cell as text."""

from __future__ import annotations

import difflib
import gzip
import zlib
from pathlib import Path

import polars as pl

from medssl.errors import ManifestError

RESERVED = ("file:", "slices:", "part:", "fits:", "split:")
"""Columns that hold no text of the data set's own begin so (rows.py)."""
MOST = 1 << 30
"""Bytes of a table's text: fifty times that of CheXpert."""
_PACKED = (b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"\x78\x01", b"\x78\x5e", b"\x78\x9c", b"\x78\xda")
"""How gzip, zstd and zlib begin, which polars would inflate without end, whatever the file is called."""
BLANK = ["", "NA", "N/A", "nan", "NaN", "null", "None"]


def read_table(path: Path) -> pl.DataFrame:
    """A CSV file, also .csv.gz, with every cell as text, exactly as written; blank cells and NA become null."""
    try:
        text = table_text(path)
        header = text.partition(b"\n")[0].decode("utf-8-sig")
        separator = max(",;\t", key=header.count)
        frame = pl.read_csv(text, separator=separator, infer_schema=False, null_values=BLANK)
    except FileNotFoundError:
        near = ", ".join(sorted(p.name for p in path.parent.glob("*.csv"))) if path.parent.is_dir() else ""
        raise ManifestError(f"No table {path}", expected="the CSV file that the card names",
                            remedy=f"give the folder that holds it{f'; here are: {near}' if near else ''}") from None
    except (OSError, EOFError, zlib.error, UnicodeDecodeError, pl.exceptions.PolarsError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ManifestError(f"The table {path} cannot be read: {reason}", expected="a CSV file in UTF-8 with a header",
                            remedy="save it as UTF-8 CSV with the same number of cells in every row") from None
    frame = frame.rename({name: name.strip().removeprefix("\ufeff") for name in frame.columns})
    return frame.with_columns(pl.all().str.strip_chars().replace(dict.fromkeys(BLANK)))


def table_text(path: Path) -> bytes:
    """A table's text, inflated where its name says so; ManifestError where it is larger than a table may be, or packed
    though its name does not say so."""
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rb") as file:
        text = file.read(MOST + 1)
    if len(text) > MOST:
        raise ManifestError(f"The table {path} holds more than {MOST >> 20} MiB", expected="a table of cases",
                            remedy="see what it is; a table as large as that can be cut into several")
    if text.startswith(_PACKED):
        raise ManifestError(f"The table {path} is packed, though its name does not say so", remedy="unpack it",
                            expected="text, or gzip in a file that ends in .csv.gz")
    return text


def require_columns(wanted: list[str], frame: pl.DataFrame, asker: str, origin: str) -> None:
    """ManifestError that names every column of `wanted` that `frame` lacks, each with its nearest match."""
    found = [name for name in frame.columns if not name.startswith(RESERVED)]
    missing = [name for name in wanted if name not in found]
    if missing:
        near = {name: difflib.get_close_matches(name, found, n=1, cutoff=0.6) for name in missing}
        listed = ", ".join(f"{name!r}" + (f" (nearest: {near[name][0]!r})" if near[name] else "") for name in missing)
        raise ManifestError(
            f"{asker[0].upper()}{asker[1:]} asks for column {listed}, which {origin} does not have",
            expected=f"one of the columns found: {', '.join(found)}",
            remedy="correct the name in the card, or the table's header",
        )
