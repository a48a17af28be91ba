"""NIfTI-1 and NIfTI-2: nibabel reads the header, isal inflates, and the voxels stay in the order of the file.

NIfTI stores i fastest, so the file's own bytes, read as a C-ordered array, are (C, K, J, I): no transpose is paid.
"""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from medssl.errors import UnreadableScan
from medssl.io.geometry import spacing_of, trusted
from medssl.io.intensity import rescale
from medssl.types import Kind, Scan

if TYPE_CHECKING:
    from nibabel import Nifti1Header

_GZIP = b"\x1f\x8b"
_UNITS_MM = {0: 1.0, 1: 1000.0, 2: 1.0, 3: 1e-3}  # xyzt_units: unknown (taken as mm), metre, mm, micrometre
_CONNECTIVITY = range(3000, 3100)  # CIFTI-2 intents
HEADER_BYTES = 540


def pair_of(path: Path) -> tuple[Path, Path]:
    """The header and the voxel file: the same one for .nii, two for .hdr + .img."""
    if path.suffix.lower() not in (".hdr", ".img"):
        return path, path
    upper = path.suffix.isupper()
    return path.with_suffix(".HDR" if upper else ".hdr"), path.with_suffix(".IMG" if upper else ".img")


def head(path: Path) -> bytes:
    """The first bytes of a file, inflated where it is gzipped."""
    from isal import igzip

    with open(path, "rb") as file:
        start = file.read(HEADER_BYTES)
        if not start.startswith(_GZIP):
            return start
        file.seek(0)
        with igzip.open(file) as inflated:
            return inflated.read(HEADER_BYTES)


def inspect(path: Path) -> Kind:
    """What a NIfTI file holds, from its header alone; UnreadableScan where it is no image."""
    header = _header(head(pair_of(path)[0]))
    return "image" if _shape(header)[1] is None else "volume"


def read_nifti(path: Path) -> Scan:
    """A volume as (C, K, J, I); the fourth axis of a 4-D file and the colours of an RGB file become C.

    Voxels keep the file's type unless scl_slope and scl_inter say otherwise (0 or NaN mean none), then float32; they
    may be read-only. The affine is the sform, else the qform, else None; header["affine_from"] says which.
    """
    header_path, data_path = pair_of(path)
    header = _header(head(header_path))
    if not data_path.exists():
        raise UnreadableScan("A NIfTI header without its .img file", remedy="put both files side by side")
    raw = _bytes(data_path)
    channels, k, j, i = _shape(header)
    array = _voxels(header, raw, (channels, k or 1, j, i), paired=header_path != data_path)
    slope, intercept = header.get_slope_inter()
    if slope is not None and array.dtype.kind in "iuf":
        array = rescale(array, slope, intercept or 0)
    affine, affine_from = _affine(header)
    spacing = spacing_of(affine) if affine is not None else _pixdim(header)
    spacing = spacing if k is not None else spacing[1:]
    return Scan(
        array if k is not None else array[:, 0],
        "volume" if k is not None else "image",
        "OT",
        affine=affine if k is not None else None,
        spacing=spacing if min(spacing) > 0 else None,
        header={"affine_from": affine_from},
    )


def _header(start: bytes) -> Nifti1Header:
    from nibabel import Nifti1Header, Nifti2Header

    for kind in (Nifti1Header, Nifti2Header):
        if kind.may_contain_header(start):
            header = kind.from_fileobj(BytesIO(start[: kind.sizeof_hdr]), check=True)
            if int(header["intent_code"]) in _CONNECTIVITY:
                raise UnreadableScan(
                    "A CIFTI file", expected="NIfTI with voxels", remedy="use the volumes it came from"
                )
            return header
    raise UnreadableScan(
        "An Analyze 7.5 or damaged NIfTI header",
        expected="NIfTI-1 or NIfTI-2",
        remedy="convert the original images again: Analyze does not say left from right",
    )


def _shape(header: Nifti1Header) -> tuple[int, int | None, int, int]:
    """(C, K, J, I); K None for a 2-D file. UnreadableScan for more than four axes of any length."""
    dims = list(header.get_data_shape())
    while len(dims) > 3 and dims[-1] == 1:
        dims.pop()
    if not 2 <= len(dims) <= 4 or min(dims) < 1:
        raise UnreadableScan(f"NIfTI of shape {tuple(dims)}", expected="2 to 4 axes, none of them empty")
    i, j, k, channels = [*dims, *([None] * (4 - len(dims)))]
    return channels or 1, k, j, i


def _voxels(header: Nifti1Header, raw: bytes, shape: tuple[int, ...], paired: bool) -> np.ndarray:
    dtype = header.get_data_dtype()
    if dtype.kind not in "iufV":
        raise UnreadableScan(
            f"NIfTI of {dtype}", expected="integers, reals or RGB", remedy="store magnitude and phase apart"
        )
    offset, count = int(header["vox_offset"]), int(np.prod(shape, dtype=np.int64))
    offset = offset if paired else max(offset, header.sizeof_hdr + 4)
    if len(raw) < offset + count * dtype.itemsize:
        raise UnreadableScan(
            f"The file ends after {len(raw)} of {offset + count * dtype.itemsize} bytes",
            expected="a whole file",
            remedy="copy it again from its source",
        )
    array = np.frombuffer(raw, dtype, count, offset).reshape(shape)
    if dtype.kind == "V":  # RGB or RGBA in bytes: colours become channels, alpha goes
        if shape[0] > 1:
            raise UnreadableScan("A 4-D NIfTI in colour", expected="3-D in colour, or 4-D in grey")
        return np.ascontiguousarray(np.moveaxis(array[0].view(np.uint8).reshape(*shape[1:], -1)[..., :3], -1, 0))
    if dtype.kind == "f" and dtype.itemsize > 8:
        raise UnreadableScan(f"NIfTI of {dtype}", expected="up to 64 bits", remedy="store it as float32")
    return array.astype(dtype.newbyteorder("="), copy=False)


def _affine(header: Nifti1Header) -> tuple[np.ndarray | None, str]:
    to_mm = np.diag([*[_unit(header)] * 3, 1.0])
    for name, get in (("sform", header.get_sform), ("qform", header.get_qform)):
        affine: Any = get(coded=True)[0]
        if affine is not None:
            return trusted(to_mm @ affine, name), name
    return None, "none"


def _pixdim(header: Nifti1Header) -> tuple[float, ...]:
    """(k, j, i) mm from the header's voxel sizes, for files that say nothing of position."""
    return tuple(_unit(header) * abs(float(size)) for size in header["pixdim"][3:0:-1])


def _unit(header: Nifti1Header) -> float:
    return _UNITS_MM.get(int(header["xyzt_units"]) & 7, 1.0)


def _bytes(path: Path) -> bytes:
    from isal import igzip, isal_zlib

    raw = path.read_bytes()
    if not raw.startswith(_GZIP):
        return raw
    try:
        return igzip.decompress(raw)
    except (EOFError, OSError, isal_zlib.IsalError):
        raise UnreadableScan(
            "The gzip stream is cut off or damaged", expected="a whole .nii.gz", remedy="copy it again from its source"
        ) from None
