"""Files of a run's folder, read for a report: what is missing or does not fit is named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, TypeVar

import polars as pl
from pydantic import BaseModel, ValidationError

from medssl.config import read_yaml
from medssl.errors import RunError

Kind = TypeVar("Kind", bound=BaseModel)
PNG, PNG_END = b"\x89PNG\r\n\x1a\n", b"IEND\xaeB`\x82"


def require_folder(folder: Path, remedy: str) -> None:
    if not folder.is_dir():
        raise RunError(f"No folder {folder}", expected="a folder with the run's tables", remedy=remedy)


def require_file(path: Path, remedy: str) -> None:
    if not path.is_file():
        raise RunError(f"No file {path}", expected=f"{path.name} in the run's folder", remedy=remedy)


def read_recipe(path: Path) -> dict[str, Any]:
    return read_yaml(path) if path.is_file() else {}


def read_optional(path: Path, columns: tuple[str, ...], remedy: str) -> pl.DataFrame | None:
    return read_table(path, columns, remedy) if path.is_file() else None


def read_png(path: Path, remedy: str) -> bytes:
    content = path.read_bytes()
    if not (content.startswith(PNG) and content.endswith(PNG_END)):
        raise RunError(f"{path} is no whole PNG", expected="the picture that medssl drew", remedy=remedy)
    return content


def read_json(path: Path, remedy: str) -> dict[str, Any]:
    require_file(path, remedy)
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise RunError(f"{path} is not JSON: {error}", remedy=remedy) from None
    if not isinstance(data, dict):
        raise RunError(f"{path} holds a {type(data).__name__}", expected="a JSON object", remedy=remedy)
    return data


def read_model(path: Path, kind: type[Kind], expected: str, remedy: str) -> Kind:
    """A JSON object as pydantic has it."""
    try:
        return kind.model_validate(read_json(path, remedy))
    except ValidationError as error:
        places = ", ".join(sorted({str(mistake["loc"][0]) for mistake in error.errors()}))
        raise RunError(f"{path} does not fit at: {places}", expected=expected, remedy=remedy) from None


def read_table(path: Path, columns: tuple[str, ...], remedy: str) -> pl.DataFrame:
    require_file(path, remedy)
    try:
        table = pl.read_parquet(path)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise RunError(f"{path} is not Parquet: {error}", remedy=remedy) from None
    missing = [name for name in columns if name not in table.columns]
    if missing:
        raise RunError(f"{path} lacks the columns {', '.join(missing)}", expected=f"{', '.join(columns)}",
                       remedy=remedy)
    return table


def read_log(path: Path, remedy: str) -> pl.DataFrame:
    require_file(path, remedy)
    try:
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
        log = pl.DataFrame(rows, infer_schema_length=None, strict=False)
    except (ValueError, pl.exceptions.PolarsError) as error:
        raise RunError(f"{path} cannot be read: {error}", expected="a JSON object a line", remedy=remedy) from None
    missing = [name for name in ("step", "loss") if name not in log.columns]
    if missing:
        raise RunError(f"{path} has no {' and no '.join(missing)}", expected="a step and a loss a line", remedy=remedy)
    return log
