"""The manifest: which cases there are, what is known of them, and, in a table of its own, where their files lie.

`cases` is safe to share: pseudonyms, labels and attributes only. `files` holds paths, which name people in most
hospitals: it is saved beside the cases as `<stem>.files.parquet`, mode 0600, and stays at home.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import groupby
from operator import itemgetter
from pathlib import Path

import polars as pl

from medssl import __version__
from medssl.data.card import Card
from medssl.data.files import Files
from medssl.data.parquet import read_parquet
from medssl.data.skips import SKIPPED
from medssl.data.split import SPLITS
from medssl.data.table import table_text
from medssl.errors import ManifestError
from medssl.files import whole, write_whole
from medssl.types import Case, Kind, Split

FILES = {"case_id": pl.String, "role": pl.String, "path": pl.String, "part": pl.Int64}
_FIXED = {name: pl.String for name in ("case_id", "patient_id", "study_id", "kind", "modality", "split")}
_KEYS = ("medssl.version", "medssl.digest", "medssl.files", "medssl.key_id", "medssl.card", "medssl.skipped")
_FOLDER = "medssl.folder"
_PSEUDONYMS = {"case_id": r"^c[0-9a-f]{16}$", "patient_id": r"^p[0-9a-f]{16}$", "study_id": r"^s[0-9a-f]{16}$"}

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Manifest:
    """Cases with their card.

    cases: case_id, patient_id, study_id, kind, modality, split, label.* (Float64), attr.* (Float64 or String),
        has_mask; sorted by case_id, so that the order tells nothing.
    files: case_id, role (a channel's name, or "mask"), path (absolute), part (which of several scans in a multi-frame
        file, else null); one row a file, so that a DICOM series has as many rows as slices, in their order; empty where
        the manifest was loaded without.
    skipped: what (a path: for the terminal only, never saved), case_id, reason, remedy, count.
    key_id: which key made the pseudonyms; manifests of different keys cannot be compared by patient.
    folder: the data set's, in which all files lie; saved in the private table alone.
    """

    cases: pl.DataFrame
    files: pl.DataFrame
    card: Card
    skipped: pl.DataFrame
    key_id: str
    folder: Path | None = None

    def __len__(self) -> int:
        return self.cases.height

    @property
    def labels(self) -> list[str]:
        """Names of the labels, in the card's order; their columns are `label.<name>`."""
        return [name.removeprefix("label.") for name in self.cases.columns if name.startswith("label.")]

    @property
    def attributes(self) -> list[str]:
        """Names of the attributes, in the card's order; their columns are `attr.<name>`."""
        return [name.removeprefix("attr.") for name in self.cases.columns if name.startswith("attr.")]

    @property
    def channels(self) -> list[str]:
        """Roles of the image files, in the order of the array's channels."""
        return self.card.channel_names

    @property
    def regions(self) -> Mapping[str, list[int]]:
        """{region: the mask's values that make it up}, in the card's order."""
        return self.card.regions

    @cached_property
    def digest(self) -> str:
        """16 hex digits of what the cases table holds, whatever the order of its rows and columns."""
        return _digest(self.cases)

    @cached_property
    def _places(self) -> dict[str, int]:
        return {case_id: row for row, case_id in enumerate(self.cases["case_id"])}

    @cached_property
    def _paths_of(self) -> dict[str, dict[str, list[str]]]:
        found: dict[str, dict[str, list[str]]] = {}
        for case_id, role, path in self.files.select("case_id", "role", "path").iter_rows():
            found.setdefault(case_id, {}).setdefault(role, []).append(path)
        return found

    @cached_property
    def _parts_of(self) -> dict[str, dict[str, int]]:
        found: dict[str, dict[str, int]] = {}
        for case_id, role, part in self.files.drop_nulls("part").select("case_id", "role", "part").iter_rows():
            found.setdefault(case_id, {})[role] = part
        return found

    def select(
        self, *, split: Split | Sequence[Split] | None = None, kind: Kind | None = None,
        patients: Sequence[str] | None = None,
    ) -> Manifest:
        """The part of the manifest with these splits, kind and patients; it may be empty."""
        cases = self.cases
        if split is not None:
            cases = cases.filter(pl.col("split").is_in([split] if isinstance(split, str) else list(split)))
        if kind is not None:
            cases = cases.filter(pl.col("kind") == kind)
        if patients is not None:
            cases = cases.filter(pl.col("patient_id").is_in(list(patients)))
        return replace(self, cases=cases, files=self.files.join(cases, on="case_id", how="semi", maintain_order="left"))

    def case(self, case_id: str) -> Case:
        """What is known of a case apart from its pixels; ManifestError for an unknown id."""
        if case_id not in self._places:
            raise ManifestError(f"No case {case_id} in the manifest of {self.card.name}",
                                expected="one of its case_ids")
        row = self.cases.row(self._places[case_id], named=True)
        return Case(
            **{name: row[name] for name in _FIXED},
            labels={name: row[f"label.{name}"] for name in self.labels},
            attributes={name: row[f"attr.{name}"] for name in self.attributes},
        )

    def all_paths(self, case_id: str) -> dict[str, tuple[Path, ...]]:
        """{role: its files}: the channels in order, then the mask if there is one; the slices of a series in order."""
        if case_id not in self._paths_of:
            raise _unknown_files(case_id)
        return {role: tuple(map(Path, paths)) for role, paths in self._paths_of[case_id].items()}

    def files_of(self, case_id: str) -> Files:
        """All that it takes to open a case; ManifestError as `all_paths`."""
        paths = self.all_paths(case_id)
        kind = self.cases["kind"][self._places[case_id]]
        return Files(kind, tuple(self.channels), paths, self._parts_of.get(case_id, {}), self.card.structures,
                     self.card.optional)

    def each_files(self) -> Iterator[tuple[str, Files]]:
        """(case_id, `files_of`) of every case in the order of their ids, with none kept in memory."""
        rows = self.files.sort("case_id", maintain_order=True).select(list(FILES)).iter_rows()
        runs, channels = groupby(rows, key=itemgetter(0)), tuple(self.channels)
        for case_id, kind in self.cases.sort("case_id").select("case_id", "kind").iter_rows():
            paths: dict[str, list[Path]] = {}
            parts: dict[str, int] = {}
            for _, role, path, part in next((rows for found, rows in runs if found == case_id), ()):
                paths.setdefault(role, []).append(Path(path))
                if part is not None:
                    parts[role] = part
            if not paths:
                raise _unknown_files(case_id)
            found = {role: tuple(files) for role, files in paths.items()}
            yield case_id, Files(kind, channels, found, parts, self.card.structures, self.card.optional)

    def paths(self, case_id: str) -> dict[str, Path]:
        """As `all_paths`, with one path a role: the file, or the folder that the slices of a series lie in."""
        return {role: files[0] if len(files) == 1 else Path(os.path.commonpath([file.parent for file in files]))
                for role, files in self.all_paths(case_id).items()}

    def save(self, path: str | Path) -> None:
        """Writes the cases as .parquet or .csv, and `<stem>.files.parquet` (mode 0600) beside them.

        Card, digest, version and the skipped table travel as Parquet metadata; for CSV as `<stem>.manifest.json`.
        """
        path = _checked_suffix(Path(path))
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole(_files_path(path), mode=0o600) as draft:
            self.files.write_parquet(draft, metadata={_FOLDER: str(self.folder or "")})
        if path.suffix == ".csv":
            write_whole(_sidecar(path), json.dumps(self._metadata(), indent=1))
        with whole(path) as draft:
            if path.suffix == ".csv":
                self.cases.write_csv(draft)
            else:
                self.cases.write_parquet(draft, metadata=self._metadata())

    def _metadata(self) -> dict[str, str]:
        told = self.skipped.group_by("case_id", "reason", "remedy", maintain_order=True).agg(pl.col("count").sum())
        values = (__version__, self.digest, _digest(self.files), self.key_id, self.card.to_yaml(), told.write_json())
        return dict(zip(_KEYS, values, strict=True))

    @classmethod
    def load(cls, path: str | Path, *, files: bool = True) -> Manifest:
        """Reads what `save` wrote. `files=False` where only the prepared cache is at hand and no path is needed.

        ManifestError when a file is missing, is not a manifest, or was changed since it was built.
        """
        path = _checked_suffix(Path(path))
        if not path.is_file():
            near = sorted(p.name for p in path.parent.glob("*.parquet") if not p.name.endswith(".files.parquet"))
            raise ManifestError(f"No manifest {path}", expected="a file that `medssl manifest` wrote",
                                remedy=f"use one of {', '.join(near)}" if near else "build it with `medssl manifest`")
        cases, told = _read(path)
        card = Card.from_yaml(told["medssl.card"], f"the card in {path}")
        cases = _checked_columns(cases, card, path)
        if _digest(cases) != told["medssl.digest"]:
            raise ManifestError(f"{path} was changed after it was built", expected=f"digest {told['medssl.digest']}",
                                remedy="correct the source table or the card, and build the manifest again")
        skipped = _read_skipped(told["medssl.skipped"], path)
        where, folder = _read_files(path, cases, told["medssl.files"]) if files else (pl.DataFrame(schema=FILES), None)
        return cls(cases, where, card, skipped, told["medssl.key_id"], folder)


def _read_skipped(told: str, path: Path) -> pl.DataFrame:
    try:
        return pl.DataFrame(json.loads(told), schema=SKIPPED)  # `what` stayed behind: null
    except (pl.exceptions.PolarsError, ValueError, TypeError) as error:
        raise ManifestError(f"What {path} says of skipped files cannot be read: {str(error).splitlines()[0]}",
                            expected="counts by reason", remedy="build the manifest again") from None


def _unknown_files(case_id: str) -> ManifestError:
    return ManifestError(f"The files of case {case_id} are not known", expected="the manifest with its files table",
                         remedy="load the manifest where its .files.parquet lies, or build it again")


def _digest(table: pl.DataFrame) -> str:
    """SHA-256 over the values, column by column; written out here so that it outlives changes of polars."""
    table = table.sort("case_id", maintain_order=True)  # which the slices of a series have
    sha = hashlib.sha256()
    for name in sorted(table.columns):
        column = table[name]
        sha.update(f"{name}\x1d".encode())
        if column.dtype == pl.Float64:
            sha.update(column.fill_null(float("nan")).to_numpy().astype("<f8").tobytes())
        else:
            sha.update("\x1f".join("\x1e" if value is None else str(value) for value in column).encode())
    return sha.hexdigest()[:16]


def _read(path: Path) -> tuple[pl.DataFrame, dict[str, str]]:
    remedy = "build it with `medssl manifest`"
    try:
        if path.suffix == ".parquet":
            cases, told = read_parquet(path)
        else:
            told, cases = json.loads(_sidecar(path).read_text()), pl.read_csv(table_text(path), infer_schema=False)
    except FileNotFoundError:
        raise ManifestError(f"{_sidecar(path)} is missing", expected="it beside the CSV file, with card and digest",
                            remedy="copy both, or " + remedy) from None
    except (pl.exceptions.PolarsError, OSError, ValueError) as error:
        raise ManifestError(f"{path} cannot be read: {str(error).splitlines()[0]}", expected="a manifest",
                            remedy=remedy) from None
    if lacking := [name for name in _KEYS if name not in told]:
        what = "is a table, but no manifest" if len(lacking) == len(_KEYS) else "was written by an older medssl"
        raise ManifestError(f"{path} {what}", expected=f"one that carries its {lacking[0].partition('.')[2]}",
                            remedy=remedy)
    return cases, told


def _checked_columns(cases: pl.DataFrame, card: Card, path: Path) -> pl.DataFrame:
    values = {name: pl.String if source.unit == "text" else pl.Float64 for name, source in card.sources.items()}
    schema = {**_FIXED, **values, "has_mask": pl.Boolean}
    missing, extra = [n for n in schema if n not in cases.columns], [n for n in cases.columns if n not in schema]
    if missing or extra:
        raise ManifestError(f"{path} lacks columns {missing} and has unknown ones {extra}", expected="its card's",
                            remedy="build the manifest again")
    try:
        if path.suffix == ".csv":
            cases = cases.with_columns(has_mask=pl.col("has_mask").replace_strict({"true": True, "false": False}))
        cases = cases.select(list(schema)).cast(schema)
    except pl.exceptions.PolarsError as error:
        raise ManifestError(f"{path} holds a value of another type: {str(error).splitlines()[0]}",
                            expected="labels as numbers", remedy="build the manifest again") from None
    for name, pattern in _PSEUDONYMS.items():
        if strange := cases.filter(~pl.col(name).str.contains(pattern).fill_null(False)).height:
            raise ManifestError(f"{path} has {strange} row(s) whose {name} is no pseudonym", expected=pattern,
                                remedy="build the manifest again")
    unknown = cases.filter(~pl.col("split").is_in(SPLITS) | pl.col("split").is_null())
    if unknown.height:
        raise ManifestError(f"{path} has {unknown.height} case(s) of an unknown split", expected=", ".join(SPLITS),
                            remedy="build the manifest again")
    return cases


def _read_files(path: Path, cases: pl.DataFrame, digest: str) -> tuple[pl.DataFrame, Path]:
    """The files table and the folder that all of its paths begin with."""
    place = _files_path(path)
    if not place.is_file():
        raise ManifestError(f"The files table {place.name} is not beside {path}", expected="both, as they were built",
                            remedy="copy it too, or build the manifest again where the data lie")
    try:
        files, told = read_parquet(place)
    except (ValueError, OSError) as error:
        raise ManifestError(f"{place} cannot be read: {str(error).splitlines()[0]}", expected="a files table",
                            remedy="build the manifest again where the data lie") from None
    if (folder := told.get(_FOLDER)) is None or files.schema != FILES:
        raise ManifestError(f"{place} was written by an older medssl, or by hand",
                            expected=", ".join(f"{name} ({kind})" for name, kind in FILES.items()),
                            remedy="build the manifest again where the data lie: with the same key it names all alike")
    lost = cases.join(files, on="case_id", how="anti").height
    if lost:
        raise ManifestError(f"{place} lacks {lost} of {cases.height} cases", expected="this manifest's files table",
                            remedy="copy the right one, or build the manifest again")
    _refuse_far_files(files, folder, place)
    if _digest(files) != digest:
        raise ManifestError(f"{place} is not what {path.name} was built with: its cases may lead to other scans",
                            expected=f"digest {digest}", remedy="copy the right one, or build the manifest again")
    if (mode := place.stat().st_mode & 0o777) & 0o077:
        log.warning("%s holds the paths of the scans and can be read by others (mode %04o): chmod 600 it", place, mode)
    return files, Path(folder)


def _refuse_far_files(files: pl.DataFrame, folder: str, place: Path) -> None:
    """No row leads outside of the data set's folder. Where links lead was looked at when the manifest was built."""
    start, path = f"{folder.rstrip('/')}/", pl.col("path")
    within = path.str.starts_with(start) & ~path.str.slice(len(start)).str.contains(r"(^|/)\.\.(/|$)")
    if far := files.filter(~within).height if folder.strip("/") else files.height:
        raise ManifestError(f"{place} has {far} path(s) that lead outside of the data set's folder",
                            expected=f"paths in {folder.rstrip('/') or 'the folder that the table was built for'}",
                            remedy="build the manifest again")


def _files_path(path: Path) -> Path:
    return path.with_name(f"{path.stem}.files.parquet")


def _sidecar(path: Path) -> Path:
    return path.with_name(f"{path.stem}.manifest.json")


def _checked_suffix(path: Path) -> Path:
    if path.suffix not in (".parquet", ".csv") or path.name.endswith(".files.parquet"):
        raise ManifestError(f"{path} is no name for a manifest", expected="<name>.parquet or <name>.csv",
                            remedy="change the ending")
    return path
