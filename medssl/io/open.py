"""The doors into medssl: `open_scan` reads one scan, `open_mask` its mask, `find_scans` walks a tree. Content decides,
never a suffix."""

from __future__ import annotations

import logging
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Literal

from medssl.errors import AmbiguousSeries, GeometryError, MedsslError, UnreadableScan
from medssl.io import duplicates, itk, nifti
from medssl.io.assemble import Assembly, Refused, Time, assemble
from medssl.io.bounded import parsed
from medssl.io.cine import read_cine
from medssl.io.dicom import Instance, read_instances, require_inflatable
from medssl.io.found import FoundMask, FoundScan, SkippedFile
from medssl.io.limits import CUT
from medssl.io.masks import Structures, inspect_mask, read_mask
from medssl.io.pixels import NOT_OURS
from medssl.io.raster import read_raster
from medssl.io.series import is_slice, stacks
from medssl.io.straighten import straight
from medssl.io.unsuited import REMEDY, is_localizer, unsuited
from medssl.io.walk import OUTSIDE, REMEDIES, TO_LIST, Bounds, walk
from medssl.types import Scan

Format = Literal["dicom", "nifti", "itk", "raster", "cine"]
_KNOWN = "DICOM, NIfTI, MetaImage, NRRD, PNG, JPEG, TIFF, AVI or MP4"
_PAIRED = {"nifti": nifti, "itk": itk}  # a header, and voxels that may lie in a file beside it
_READERS = {"nifti": nifti.read_nifti, "itk": itk.read_itk, "raster": read_raster, "cine": read_cine}


def open_scan(path: str | Path | FoundScan, series: str | None = None, *, straighten: bool = False) -> Scan:
    """Read one scan: a file, a folder that holds one, or what `find_scans` found.

    A file that is named is read wherever it can be; a folder is searched as `find_scans` does it, which leaves out
    localizers, duplicates and the like.

    Args:
        series: SeriesInstanceUID, to choose one of several in a folder.
        straighten: resample a volume whose gantry was tilted, or whose slices lie unevenly, onto a straight and even
            grid (see io/straighten.py). Otherwise a tilt stays in the affine, which is then sheared, and right.

    Raises:
        UnreadableScan: with the reason; the file is named in a note, so that the message itself may be saved.
        AmbiguousSeries: several scans in a folder or multi-frame file; the message lists them.
        GeometryError: slices that make no even stack; between two of which one is missing, even if straightened.
    """
    if isinstance(path, FoundScan):
        return _open_found(path, straighten)
    path = Path(path)
    if not path.exists():
        missing = UnreadableScan("There is no such file or folder", expected="a file, or a folder that holds one scan")
        missing.add_note(f"Looked for: {path}")
        raise missing
    if path.is_dir():
        found, assembly = _choose(path, series, straighten)
        with _guard(path):
            return assembly.read(straighten) if assembly else open_scan(found, straighten=straighten)
    with _guard(path):
        format_ = sniff(path)
        if format_ == "dicom":
            return _one(read_instances(path), straighten).read(straighten)
        scan = _READERS[format_](path)
        return straight(scan) if straighten and scan.kind == "volume" else scan


def find_scans(
    folder: str | Path, time: Time = "phases", *, straighten: bool = False, linked: Sequence[str | Path] = ()
) -> Iterator[FoundScan | SkippedFile]:
    """Walk a tree in sorted order; every file ends in a FoundScan, or in a SkippedFile with its reason.

    Images, clips and volumes of one file come as they are met; slices are held until the walk ends, since a series
    may lie in several folders, and then come as one FoundScan a volume. A multi-frame file that holds several scans
    comes as several, told apart by their `part`.

    Slices that make no volume are skipped here, each with the reason, rather than found and refused when they are
    opened a night later. Left out as well, though `open_scan` reads them when they are named: localizers, duplicates,
    X-rays FOR PROCESSING, pictures of screens.

    Args:
        time: a 4-D series, which comes several times at every place, as one volume a phase or as one clip a place.
        straighten: find what `open_scan(..., straighten=True)` opens, unevenly spaced slices among it.
        linked: folders outside, into which links may lead; all other links out of the folder are skipped.
    """
    for found, _ in _walk(Path(folder), time, straighten, linked):
        yield found


End = tuple[FoundScan | SkippedFile, Assembly | Refused | None]
"""Where a file ends, with its slices where it has some, so that no header is read twice."""


def _walk(folder: Path, time: Time, straighten: bool, linked: Sequence[str | Path] = ()) -> Iterator[End]:
    """What `find_scans` yields."""
    if not folder.is_dir():
        raise UnreadableScan(f"There is no folder {folder}", expected="a folder of scans")
    held: dict[tuple, list[Instance]] = {}
    seen, bounds = duplicates.Seen(), Bounds(folder, linked)
    for name, refusal in walk(folder, bounds):
        path = folder / name
        if refusal:
            yield SkippedFile(path, refusal, REMEDIES.get(refusal, TO_LIST)), None
            continue
        try:
            with _guard(path):
                found = _inspect(path, seen, bounds)
        except MedsslError as error:
            yield find_mask(path, error.what) or SkippedFile(path, error.what, error.remedy), None
            continue
        if isinstance(found, FoundScan):
            yield found, None
        elif len(found) == 1:
            held.setdefault((found[0].patient, found[0].study, found[0].series), []).append(found[0])
        elif found:
            yield from _ends(found, time, straighten)
    for slices in held.values():
        yield from _ends(slices, time, straighten)


def _ends(slices: list[Instance], time: Time, straighten: bool) -> list[End]:
    """What the slices of one series, or of one multi-frame file, become."""
    try:
        with _guard(slices[0].path.parent):
            if is_localizer(stacks(slices)):
                raise UnreadableScan("A localizer: few slices in perpendicular planes of one series", remedy=REMEDY)
            assemblies = assemble(slices, time, straighten)
    except MedsslError as error:
        assemblies = [Refused(tuple(slices), error)]
    ends: list[End] = []
    for one in assemblies:
        if isinstance(one, Assembly):
            found = one.found()
            ends.append((found if len(assemblies) > 1 else replace(found, part=None), one))
        else:
            paths = dict.fromkeys(part.path for part in one.parts)
            ends += [(SkippedFile(path, one.error.what, one.error.remedy), one) for path in paths]
    return ends


def open_mask(
    paths: Sequence[Path], structures: Structures, image: Scan | None = None, image_file: Path | None = None
) -> Scan:
    """Draw structures of DICOM segmentations or RT structure sets on an image's grid; `read_mask` says how.

    Args:
        image_file: a file of the image, whose frame of reference the masks must share where it is DICOM.
    """
    with _guard(paths[0]):
        return read_mask(paths, structures, image, frame_of_reference(image_file) if image_file else None)


def find_mask(path: Path, reason: str = "") -> FoundMask | None:
    """What a DICOM segmentation or RT structure set says of itself; None for any other file, and for a broken one."""
    try:
        with _guard(path):
            return inspect_mask(path, reason) if sniff(path) == "dicom" else None
    except MedsslError:
        return None


def frame_of_reference(path: Path) -> str | None:
    """FrameOfReferenceUID of a DICOM file, to compare and not to keep; None where there is none."""
    with _guard(path):
        if sniff(path) != "dicom":
            return None
        data = parsed(path, stop_before_pixels=True, specific_tags=["FrameOfReferenceUID"])
        return str(data.get("FrameOfReferenceUID") or "").strip() or None


def is_dicom(path: Path) -> bool:
    """By its content; UnreadableScan where it is of no format that medssl reads."""
    with _guard(path):
        return sniff(path) == "dicom"


def sniff(path: Path) -> Format:
    """The format of a file by its first bytes; UnreadableScan for anything else."""
    with open(path, "rb") as file:
        start = file.read(nifti.HEADER_BYTES)
    if itk.begins(start) or itk.is_voxels(path):
        return "itk"
    if start[128:132] == b"DICM" or _bare_dicom(start):
        require_inflatable(path)
        return "dicom"
    if start[:8] == b"\x89PNG\r\n\x1a\n" or start[:3] == b"\xff\xd8\xff" or start[:4] in (b"II*\0", b"MM\0*"):
        return "raster"
    if (start[:4] == b"RIFF" and start[8:12] == b"AVI ") or (start[4:8] == b"ftyp" and start[8:12] not in _STILLS):
        return "cine"
    if start[:2] == b"\x1f\x8b":
        start = nifti.head(path)
        if start[128:132] == b"DICM":
            raise UnreadableScan("DICOM within gzip", expected="DICOM as it is", remedy="unpack it with gunzip")
    header = nifti.pair_of(path)[0]
    if _nifti(start) or (header != path and header.exists()):
        return "nifti"
    if not start:
        raise UnreadableScan("An empty file", expected=_KNOWN, remedy="copy or export it again")
    unknown = "Content of no format that medssl reads"
    raise UnreadableScan(unknown, expected=_KNOWN, remedy="if it is a scan, export it as DICOM or NIfTI")


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


def _inspect(path: Path, seen: duplicates.Seen, bounds: Bounds) -> FoundScan | list[Instance]:
    """One file from its header: a scan, slices of one or more, or [] for a file that belongs to another's scan."""
    if not path.is_file():
        raise UnreadableScan("A broken link, or no regular file", remedy="copy what it led to, if it was to be used")
    format_ = sniff(path)
    if format_ == "dicom":
        instances = read_instances(path)
        if reason := unsuited(instances[0]):
            raise UnreadableScan(reason, remedy=REMEDY)
        if is_slice(instances[0]):
            return instances
        if seen.has_copy_of(instances[0]):
            raise UnreadableScan(duplicates.FILE, remedy=duplicates.REMEDY)
        return Assembly(instances[0].kind, tuple(instances)).found()
    if paired := _PAIRED.get(format_):
        header, voxels = paired.pair_of(path)
        if not (bounds.hold(header) and bounds.hold(voxels)):
            half = f"Half of a pair of files. The other half: {OUTSIDE[0].lower()}{OUTSIDE[1:]}"
            raise UnreadableScan(half, remedy=REMEDIES[OUTSIDE])
        kind = paired.inspect(path)
        if path != header:
            return []
        if not voxels.exists():
            raise UnreadableScan("A NIfTI header without its .img file", remedy="put both files side by side")
        return FoundScan(tuple(dict.fromkeys((header, voxels))), kind)
    return FoundScan((path,), "image" if format_ == "raster" else "cine")


def _open_found(found: FoundScan, straighten: bool) -> Scan:
    if sniff(found.paths[0]) != "dicom":
        return open_scan(found.paths[0], straighten=straighten)
    with _guard(found.paths[0] if len(found.paths) == 1 else found.paths[0].parent):
        instances = [one for path in found.paths for one in read_instances(path)]
        scan = _one(instances, straighten, "clips" if found.kind == "cine" else "phases", found.part).read(straighten)
    return replace(scan, header={**scan.header, **found.header})


def _one(instances: list[Instance], straighten: bool, time: Time = "phases", part: int | None = None) -> Assembly:
    """The only scan that these make, or the one that holds the frame `part` of their first file."""
    if len(instances) == 1:
        return Assembly(instances[0].kind, tuple(instances))
    found = assemble(instances, time, straighten)
    if part is not None:
        marked = (instances[0].path, part - 1)
        found = [one for one in found if marked in [(slice_.path, slice_.frame) for slice_ in one.parts]]
    if len(found) == 1:
        if isinstance(found[0], Refused):
            raise found[0].error
        return found[0]
    files = len({one.path for one in instances})
    if files > 1 or not found:
        raise GeometryError(f"{files} files make {len(found)} stacks", expected="slices of one scan")
    raise AmbiguousSeries(
        f"The file holds {len(found)} scans:{_listed(found)}\n",
        expected="one",
        remedy="open what find_scans finds in its folder, one by one",
    )


def _choose(folder: Path, series: str | None, straighten: bool) -> tuple[FoundScan, Assembly | None]:
    """The only scan in a folder, or in one series of it. A stack that is refused for its geometry counts as one."""
    scans: dict[int, tuple[FoundScan | SkippedFile, Assembly | Refused | None]] = {}
    reasons: Counter[str] = Counter()
    for end, slices in _walk(folder, "phases", straighten):
        refused = isinstance(slices, Refused) and isinstance(slices.error, GeometryError)
        of_series = slices.parts[0].series if slices else getattr(end, "series", None)
        if isinstance(end, SkippedFile) and not refused:
            reasons[end.reason] += 1
        elif series is None or of_series == series:
            scans.setdefault(id(slices or end), (end, slices))
    if not scans:
        why = "; ".join(f"{count} × {reason}" for reason, count in sorted(reasons.items())) or "it is empty"
        what = "The folder holds no scan" if series is None else f"The folder holds no series {series}"
        raise UnreadableScan(f"{what}: {why}", expected=_KNOWN)
    if len(scans) > 1:
        raise AmbiguousSeries(
            f"The folder holds {len(scans)} scans:{_listed([slices or end for end, slices in scans.values()])}\n",
            expected="one",
            remedy="name one with series=, or open what find_scans finds, one by one",
        )
    ((end, slices),) = scans.values()
    if isinstance(slices, Refused):
        raise slices.error
    return end, slices


def _listed(scans: Iterable[FoundScan | Assembly | Refused]) -> str:
    """A line for each, and one for those alike: modality, kind, size, number of files and series, no free text."""
    lines: Counter[str] = Counter()
    for one in scans:
        if isinstance(one, Refused):
            first = one.parts[0]
            lines[f"{first.modality}, {len(one.parts)} slices that make no volume, series {first.series}"] += 1
            continue
        found = one.found() if isinstance(one, Assembly) else one
        size = " × ".join(map(str, found.size)) if found.size else "of unknown size"
        phases = f" (1 of {found.header['phases']} phases)" if "phases" in found.header else ""
        lines[f"{found.modality} {found.kind} {size}{phases}, {len(found.paths)} file(s), series {found.series}"] += 1
    return "".join(f"\n  {count} × {line}" for line, count in lines.items())


@contextmanager
def _guard(path: Path) -> Iterator[None]:
    """The one place where the decoders' errors become ours. Their texts may quote a header: none is repeated."""
    levels = {logging.getLogger(name): logging.getLogger(name).level for name in ("pydicom", "nibabel.global", "PIL")}
    for logger in levels:  # a level reaches the loggers below as well, which `disabled` does not
        logger.setLevel(logging.CRITICAL + 1)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except MedsslError as error:
        error.add_note(f"Read from: {path}")
        raise
    except NOT_OURS:
        raise
    except BaseException as error:  # which a panic in Rust is
        reason = getattr(error, "strerror", None) or f"its decoder gave up ({type(error).__name__})"
        failure = UnreadableScan(f"The file cannot be read: {reason}", expected=f"whole and valid {_KNOWN}", remedy=CUT)
        failure.add_note(f"Read from: {path}")
        raise failure from None
    finally:
        for logger, level in levels.items():
            logger.setLevel(level)
