"""The two doors into medssl: `open_scan` reads one scan, `find_scans` walks a tree. Content decides, never a suffix."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from medssl.errors import AmbiguousSeries, GeometryError, MedsslError, UnreadableScan
from medssl.io import nifti
from medssl.io.cine import read_cine
from medssl.io.dicom import CUT, Instance, read_instance, read_instance_scan
from medssl.io.found import FoundScan, SkippedFile
from medssl.io.raster import read_raster
from medssl.io.series import is_slice, read_volume, stacks
from medssl.types import Scan

Format = Literal["dicom", "nifti", "raster", "cine"]
_KNOWN = "DICOM, NIfTI, PNG, JPEG, TIFF, AVI or MP4"


def open_scan(path: str | Path | FoundScan, series: str | None = None) -> Scan:
    """Read one scan: a file, a folder that holds one, or what `find_scans` found.

    Args:
        series: SeriesInstanceUID, to choose one of several in a folder.

    Raises:
        UnreadableScan: with the reason; the file is named in a note, so that the message itself may be saved.
        AmbiguousSeries: several scans in a folder; the message lists them.
        GeometryError: slices that make no even stack.
    """
    if isinstance(path, FoundScan):
        return _open_found(path)
    path = Path(path)
    if not path.exists():
        raise UnreadableScan(f"There is no {path}", expected="a file, or a folder that holds one scan")
    if path.is_dir():
        found, stack = _choose(path, series)
        with _guard(path):
            return read_volume(stack) if stack else open_scan(found.paths[0])
    with _guard(path):
        format_ = sniff(path)
        if format_ == "dicom":
            return read_instance_scan(read_instance(path))
        return {"nifti": nifti.read_nifti, "raster": read_raster, "cine": read_cine}[format_](path)


def find_scans(folder: str | Path) -> Iterator[FoundScan | SkippedFile]:
    """Walk a tree in sorted order; every file ends in one FoundScan or in a SkippedFile with its reason.

    Images, clips and volumes of one file come as they are met; slices are held until the walk ends, since a series
    may lie in several folders, and then come as one FoundScan a stack.
    """
    for found, _ in _walk(Path(folder)):
        yield found


def _walk(folder: Path) -> Iterator[tuple[FoundScan | SkippedFile, list[Instance]]]:
    """What `find_scans` yields, each with its slices where it is a volume of them, so that no header is read twice."""
    if not folder.is_dir():
        raise UnreadableScan(f"There is no folder {folder}", expected="a folder of scans")
    slices: list[Instance] = []
    for path in _files(folder):
        try:
            with _guard(path):
                found = _inspect(path)
        except MedsslError as error:
            yield SkippedFile(path, error.what), []
            continue
        if isinstance(found, Instance):
            slices.append(found)
        elif found is not None:
            yield found, []
    for stack in stacks(slices):
        yield _found(stack), stack if len(stack) > 1 else []


def sniff(path: Path) -> Format:
    """The format of a file by its first bytes; UnreadableScan for anything else."""
    with open(path, "rb") as file:
        start = file.read(nifti.HEADER_BYTES)
    if start[128:132] == b"DICM" or _bare_dicom(start):
        return "dicom"
    if start[:8] == b"\x89PNG\r\n\x1a\n" or start[:3] == b"\xff\xd8\xff" or start[:4] in (b"II*\0", b"MM\0*"):
        return "raster"
    if (start[:4] == b"RIFF" and start[8:12] == b"AVI ") or (start[4:8] == b"ftyp" and start[8:12] not in _STILLS):
        return "cine"
    if start[:2] == b"\x1f\x8b":
        with _cut_short():
            start = nifti.head(path)
    if _nifti(start) or (path.suffix.lower() == ".img" and nifti.pair_of(path)[0].exists()):
        return "nifti"
    if not start:
        raise UnreadableScan("An empty file", expected=_KNOWN, remedy="copy or export it again")
    raise UnreadableScan("Content of no format that medssl reads", expected=_KNOWN, remedy="export it as one of these")


_STILLS = (b"heic", b"heix", b"mif1", b"avif")


def _nifti(start: bytes) -> bool:
    return start[344:348] in (b"n+1\0", b"ni1\0") or start[4:8] in (b"n+2\0", b"ni2\0") or start[:4] in _ANALYZE


_ANALYZE = (
    b"\x5c\x01\0\0",
    b"\0\0\x01\x5c",
)  # sizeof_hdr = 348, either byte order: read far enough to be refused by name


def _bare_dicom(start: bytes) -> bool:
    """A dataset without preamble: its first tag is in group 2 or 8, followed by a VR or by a believable length."""
    if len(start) < 8 or start[:2] not in (b"\x02\0", b"\x08\0", b"\0\x02", b"\0\x08"):
        return False
    vr = start[4:6]
    return (vr.isalpha() and vr.isupper()) or int.from_bytes(start[4:8], "little") < 1 << 10


def _inspect(path: Path) -> FoundScan | Instance | None:
    """One file from its header: a scan, a slice of one, or None for a file that belongs to another's scan."""
    if not path.is_file():
        raise UnreadableScan("A broken link, or no regular file")
    format_ = sniff(path)
    if format_ == "dicom":
        instance = read_instance(path)
        return instance if is_slice(instance) else _found([instance])
    if format_ == "nifti":
        header, voxels = nifti.pair_of(path)
        kind = nifti.inspect(path)
        if path != header:
            return None
        if not voxels.exists():
            raise UnreadableScan("A NIfTI header without its .img file")
        return FoundScan(tuple(dict.fromkeys((header, voxels))), kind)
    return FoundScan((path,), "image" if format_ == "raster" else "cine")


def _found(stack: list[Instance]) -> FoundScan:
    first = stack[0]
    kind = "volume" if len(stack) > 1 else first.kind
    paths = tuple(one.path for one in stack)
    return FoundScan(paths, kind, first.modality, first.patient, first.study, first.series, first.header,
                     accession=first.accession, description=first.description)


def _open_found(found: FoundScan) -> Scan:
    if found.kind != "volume" or sniff(found.paths[0]) != "dicom":
        return open_scan(found.paths[0])
    with _guard(found.paths[0].parent):
        found_stacks = stacks([read_instance(path) for path in found.paths])
        if len(found_stacks) != 1:
            raise GeometryError(
                f"{len(found.paths)} files make {len(found_stacks)} stacks", expected="slices of one volume"
            )
        return read_volume(found_stacks[0])


def _choose(folder: Path, series: str | None) -> tuple[FoundScan, list[Instance]]:
    found: list[tuple[FoundScan, list[Instance]]] = []
    reasons: dict[str, int] = {}
    for one, stack in _walk(folder):
        if isinstance(one, SkippedFile):
            reasons[one.reason] = reasons.get(one.reason, 0) + 1
        elif series is None or one.series == series:
            found.append((one, stack))
    if len(found) == 1:
        return found[0]
    if not found:
        why = "; ".join(f"{count} × {reason}" for reason, count in sorted(reasons.items())) or "it is empty"
        what = "The folder holds no scan" if series is None else f"The folder holds no series {series}"
        raise UnreadableScan(f"{what}: {why}", expected=_KNOWN)
    listed = "".join(
        f"\n  {one.modality} {one.kind}, {len(one.paths)} file(s), series {one.series}" for one, _ in found
    )
    raise AmbiguousSeries(
        f"The folder holds {len(found)} scans:{listed}\n",
        expected="one",
        remedy="name one with series=, or open its file",
    )


def _files(folder: Path) -> Iterator[Path]:
    for parent, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            yield Path(parent, name)


@contextmanager
def _guard(path: Path) -> Iterator[None]:
    """The one place where the decoders' errors become ours. Their texts may quote a header: none is repeated."""
    loggers = [logging.getLogger(name) for name in ("pydicom", "nibabel.global", "PIL")]
    loud = [logger for logger in loggers if not logger.disabled]
    for logger in loud:
        logger.disabled = True
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except MedsslError as error:
        error.add_note(f"Read from: {path}")
        raise
    except Exception as error:
        reason = getattr(error, "strerror", None) or f"its decoder gave up ({type(error).__name__})"
        failure = UnreadableScan(f"The file cannot be read: {reason}", expected=f"whole and valid {_KNOWN}", remedy=CUT)
        failure.add_note(f"Read from: {path}")
        raise failure from None
    finally:
        for logger in loud:
            logger.disabled = False


@contextmanager
def _cut_short() -> Iterator[None]:
    try:
        yield
    except Exception:
        raise UnreadableScan("A damaged gzip stream", expected="a whole .nii.gz", remedy=CUT) from None
