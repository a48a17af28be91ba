"""MetaImage (.mha, .mhd with its .raw) and NRRD (.nrrd, .nhdr) through SimpleITK.

The header is read here first: SimpleITK would take any size that it claims, and follow it to any file.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from medssl.errors import UnreadableScan
from medssl.io.geometry import lps_to_ras, spacing_of, trusted
from medssl.io.inflate import first_bytes, require_whole
from medssl.io.limits import require_stored
from medssl.types import Kind, Scan

if TYPE_CHECKING:
    from SimpleITK import Image

_HEADER_BYTES = 1 << 16
_NRRD = b"NRRD000"
_META = re.compile(rb"\s*(ObjectType|NDims|Comment|ObjectSubType)\s*=")
_META_TYPES = {"CHAR": 1, "UCHAR": 1, "SHORT": 2, "USHORT": 2, "INT": 4, "UINT": 4, "LONG": 4, "ULONG": 4,
               "LONG_LONG": 8, "ULONG_LONG": 8, "FLOAT": 4, "DOUBLE": 8}  # fmt: skip
_NRRD_TYPES = {"char": 1, "short": 2, "int": 4, "long long": 8, "longlong": 8, "int8": 1, "int16": 2, "int32": 4,
               "int64": 8, "float": 4, "double": 8}  # fmt: skip
_NRRD_SPACES = {"right-anterior-superior", "ras", "left-anterior-superior", "las", "left-posterior-superior", "lps"}
_VOXELS, _HEADERS = (".raw", ".zraw", ".raw.gz"), (".mhd", ".nhdr")


@dataclass(frozen=True)
class _Header:
    """What a header claims.

    io: SimpleITK's reader; shape: (i, j, ...); packed: bytes of the deflate stream, where that is said.
    file, offset: where the voxels begin; spaced, placed: whether it says how large they are, and where they lie.
    """

    io: Literal["MetaImageIO", "NrrdImageIO"]
    shape: tuple[int, ...]
    channels: int
    itemsize: int
    deflated: bool
    packed: int
    file: Path
    offset: int
    spaced: bool
    placed: bool


def begins(start: bytes) -> bool:
    """Whether a file that begins so is one of the two formats."""
    return start.startswith(_NRRD) or _META.match(start) is not None


def pair_of(path: Path) -> tuple[Path, Path]:
    """The header and the voxel file, which are one unless the header names another; from either of the two."""
    header = _header_beside(path) or path
    return header, _read_header(header).file


def inspect(path: Path) -> Kind:
    """What a file holds, from its header alone; UnreadableScan where that is nothing that medssl reads."""
    return _kind(_read_header(_header_beside(path) or path))


def is_voxels(path: Path) -> bool:
    """Whether a file holds the voxels of a header beside it: its own bytes say nothing."""
    return _header_beside(path) is not None


def read_itk(path: Path) -> Scan:
    """A volume as (C, K, J, I) or an image as (C, J, I): components of a voxel or the fourth axis become C.

    ITK's LPS+ becomes RAS+. The affine is None where the header gives no position and no direction, or names no space;
    the spacing, where it gives none.
    """
    import SimpleITK

    path = _header_beside(path) or path
    header = _read_header(path)
    kind = _kind(header)
    _require_whole(header)
    reader = SimpleITK.ImageFileReader()
    reader.SetFileName(str(path))
    reader.SetImageIO(header.io)
    reader.ReadImageInformation()
    if (reader.GetSize(), reader.GetNumberOfComponents()) != (header.shape, header.channels):
        raise _misread()  # it would take memory for something else than what was checked
    image = reader.Execute()
    array = SimpleITK.GetArrayFromImage(image)
    if array.dtype.kind not in "iuf":
        raise UnreadableScan(f"Voxels of {array.dtype}", expected="integers or reals", remedy="store magnitudes")
    if image.GetNumberOfComponentsPerPixel() > 1:
        array = np.moveaxis(array, -1, 0)
    elif image.GetDimension() < 4:
        array = array[None]
    spacing = tuple(reversed(image.GetSpacing()[:3])) if header.spaced else None
    affine = _affine(image) if header.placed and header.spaced and kind == "volume" else None
    spacing = spacing if affine is None else spacing_of(affine)
    return Scan(np.ascontiguousarray(array), kind, "OT", affine=affine, spacing=spacing)


def _affine(image: Image) -> np.ndarray:
    axes = image.GetDimension()
    direction = np.reshape(image.GetDirection(), (axes, axes))[:3, :3]
    affine = np.eye(4)
    affine[:3, :3] = direction * image.GetSpacing()[:3]
    affine[:3, 3] = image.GetOrigin()[:3]
    return trusted(lps_to_ras(affine), "MetaImage or NRRD header")


def _kind(header: _Header) -> Kind:
    axes = len(header.shape)
    if not 2 <= axes <= 4 or (axes == 4 and header.channels > 1):
        raise UnreadableScan(
            f"{header.channels} channels of shape {header.shape}", expected="2 or 3 axes, and channels, or 4 axes"
        )
    return "image" if axes == 2 else "volume"


def _require_whole(header: _Header) -> None:
    count = math.prod(header.shape) * header.channels
    declared, present = count * header.itemsize, header.file.stat().st_size
    if header.deflated:  # SimpleITK gives memory as it found it where a stream ends too early
        require_stored(header.offset + header.packed, present)
        require_whole(header.file, header.offset, declared)
    else:
        require_stored(header.offset + declared, present)


# ----------------------------------------------------------------------------------------------------------- headers


def _header_beside(voxels: Path) -> Path | None:
    """The .mhd or .nhdr of the same name that names this file; None for every other file."""
    stem = next((voxels.name.removesuffix(end) for end in _VOXELS if voxels.name.endswith(end)), None)
    for end in _HEADERS if stem else ():
        header = voxels.with_name(stem + end)
        if header.is_file() and voxels.name.encode() in first_bytes(header, _HEADER_BYTES):
            return header
    return None


def _read_header(path: Path) -> _Header:
    with open(path, "rb") as file:
        start = file.read(_HEADER_BYTES)
    try:
        header = _nrrd(path, start) if start.startswith(_NRRD) else _meta_image(path, start)
    except (KeyError, ValueError):
        raise _misread() from None
    if min(header.shape, default=0) < 1 or header.channels < 1:
        raise UnreadableScan(f"{header.channels} channels of shape {header.shape}", expected="axes that are not empty")
    return header


def _misread() -> UnreadableScan:
    return UnreadableScan(
        "A MetaImage or NRRD header that misses its sizes or its type, or gives a field twice",
        expected="the fields that its format asks for",
        remedy="write it again",
    )


def _text() -> UnreadableScan:
    return UnreadableScan(
        "MetaImage or NRRD voxels as text or bzip2", expected="binary, as they are or gzipped", remedy="write it again"
    )


def _meta_image(path: Path, start: bytes) -> _Header:
    """The fields of https://itk.org/Wiki/ITK/MetaIO/Documentation that say what lies where."""
    found = re.search(rb"^[ \t]*ElementDataFile[ \t]*=[ \t]*([^\r\n]*?)[ \t]*(?:\r?\n|\Z)", start, re.MULTILINE)
    if not found or b"ElementDataFile" in start[: found.start()]:
        raise ValueError
    fields = _fields(start[: found.start()], r"\s*[=:]\s*")
    shape = tuple(int(size) for size in fields["DimSize"].split())
    name = found[1].decode()
    detached = name.upper() != "LOCAL"
    binary, deflated = (fields.get(key, "F")[:1] in ("T", "t", "1") for key in ("BinaryData", "CompressedData"))
    if not binary:
        raise _text()
    return _Header(
        "MetaImageIO",
        shape[: int(fields["NDims"])],
        int(fields.get("ElementNumberOfChannels", 1)),
        _META_TYPES[fields["ElementType"].removeprefix("MET_").removesuffix("_ARRAY")],
        deflated,
        int(fields.get("CompressedDataSize", 0)) if deflated else 0,
        _beside(path, name) if detached else path,
        (0 if detached else found.end()) + max(int(fields.get("HeaderSize", 0)), 0),
        spaced=not fields.keys().isdisjoint(("ElementSpacing", "ElementSize")),
        placed=not fields.keys().isdisjoint(
            ("TransformMatrix", "Rotation", "Orientation", "Offset", "Position", "Origin")
        ),
    )


def _nrrd(path: Path, start: bytes) -> _Header:
    """The fields of https://teem.sourceforge.net/nrrd/format.html that say what lies where."""
    end = re.search(rb"\r?\n\r?\n", start)
    if not end and len(start) == _HEADER_BYTES:
        raise ValueError
    fields = {key.lower(): value for key, value in _fields(start[: end.start() if end else None], ": ").items()}
    if (encoding := fields["encoding"].lower()) not in ("raw", "gzip", "gz"):
        raise _text()
    sizes = [int(size) for size in fields["sizes"].split()]
    kinds = fields.get("kinds", "").lower().split() or ["domain"] * len(sizes)
    along = [kind in ("domain", "space", "time", "???", "none") for kind in kinds]
    name = fields.get("data file", fields.get("datafile"))
    return _Header(
        "NrrdImageIO",
        tuple(size for size, of_space in zip(sizes, along, strict=True) if of_space),
        math.prod(size for size, of_space in zip(sizes, along, strict=True) if not of_space),
        _nrrd_itemsize(fields["type"].lower()),
        encoding != "raw",
        0,
        _beside(path, name) if name else path,
        0 if name else end.end() if end else len(start),
        spaced=not fields.keys().isdisjoint(("spacings", "space directions")),
        placed=fields.get("space", "").lower() in _NRRD_SPACES,
    )


def _fields(header: bytes, between: str) -> dict[str, str]:
    """Each line's key and value; ValueError where a key comes twice, since a reader may take either."""
    lines = (line for line in header.decode("latin1").splitlines() if not line.startswith("#"))
    pairs = [pair for line in lines if len(pair := re.split(between, line, maxsplit=1)) > 1]
    if len({key.strip().lower() for key, _ in pairs}) < len(pairs):
        raise ValueError
    return {key.strip(): value.strip() for key, value in pairs}


def _nrrd_itemsize(name: str) -> int:
    bare = re.sub(r"^(un)?signed |^u(?=int|char|short|long)|_t$| int$", "", name)
    return _NRRD_TYPES[bare]


def _beside(header: Path, name: str) -> Path:
    """The voxel file that a header names; UnreadableScan where it lies elsewhere, also behind a link, or is many."""
    voxels = header.parent / name
    if name.upper().startswith("LIST") or "%" in name:
        raise UnreadableScan(
            "A header whose voxels lie in several files", expected="one file", remedy="write it again as one file"
        )
    if not voxels.resolve().is_relative_to(header.parent.resolve()):
        raise UnreadableScan(
            "A header whose voxels lie outside its folder", expected="a file beside it", remedy="put both side by side"
        )
    if not voxels.is_file():
        raise UnreadableScan("A header without its voxel file", remedy="put both side by side")
    return voxels
