"""NIfTI-1 and NIfTI-2: nibabel reads the header, isal inflates, and the voxels stay in the order of the file.

NIfTI stores i fastest, so the file's own bytes, read as a C-ordered array, are (C, K, J, I): no transpose is paid.
"""

from __future__ import annotations

import math
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from medssl.errors import GeometryError, UnreadableScan
from medssl.io.geometry import corners_apart, spacing_of, trusted
from medssl.io.inflate import first_bytes, read_values
from medssl.io.intensity import rescale
from medssl.types import Kind, Scan

if TYPE_CHECKING:
    from nibabel import Nifti1Header

HEADER_BYTES = 540
QFORM_TOLERANCE = 0.1
"""Share of a voxel by which sform and qform may part at the corners and still say the same: both are rounded."""
_QFORM_SCALE = 2.0
"""Voxel sizes that differ by more than this are no registration to a template: one of the two is wrong."""
_UNITS_MM = {0: 1.0, 1: 1000.0, 2: 1.0, 3: 1e-3}  # xyzt_units: unknown (taken as mm), metre, mm, micrometre
_CONNECTIVITY = range(3000, 3100)  # CIFTI-2 intents
_UNCODE = "find out which of the two is right, and set the code of the other one to 0"


def pair_of(path: Path) -> tuple[Path, Path]:
    """The header and the voxel file: the same one for .nii, two for .hdr + .img, gzipped or not."""
    packed = path.suffix if path.suffix.lower() == ".gz" else ""
    plain = path.with_suffix("") if packed else path
    if plain.suffix.lower() not in (".hdr", ".img"):
        return path, path
    suffixes = (".HDR", ".IMG") if plain.suffix.isupper() else (".hdr", ".img")
    header, voxels = (plain.with_suffix(suffix + packed) for suffix in suffixes)
    return header, voxels


def head(path: Path) -> bytes:
    """As many of a file's first bytes as its header takes, inflated where it is gzipped."""
    return first_bytes(path, HEADER_BYTES)


def inspect(path: Path) -> Kind:
    """What a NIfTI file holds, from its header alone; UnreadableScan where it is no image."""
    header = _header(head(pair_of(path)[0]))
    return "image" if _shape(header)[1] is None else "volume"


def read_nifti(path: Path) -> Scan:
    """A volume as (C, K, J, I); the fourth axis of a 4-D file and the colours of an RGB file become C.

    Voxels keep the file's type, NaN included, unless scl_slope and scl_inter say otherwise (a slope of 0, NaN or
    infinity means none), then float32. The affine is the sform, else the qform, else None; header["affine_from"] says
    which, and header["qform_off_mm"] how far a corner of the volume lies elsewhere by the qform.
    """
    header_path, voxel_path = pair_of(path)
    header = _header(head(header_path))
    if not voxel_path.exists():
        raise UnreadableScan("A NIfTI header without its .img file", remedy="put both files side by side")
    channels, k, j, i = _shape(header)
    array = _voxels(header, voxel_path, (channels, k or 1, j, i), paired=header_path != voxel_path)
    if array.dtype.kind in "iuf":
        array = rescale(array, *_scaling(header))
    affine, fields = _placement(header, (k or 1, j, i))
    spacing = spacing_of(affine) if affine is not None else _pixdim(header)
    spacing = spacing if k is not None else spacing[1:]
    return Scan(
        array if k is not None else array[:, 0],
        "volume" if k is not None else "image",
        "OT",
        affine=affine if k is not None else None,
        spacing=spacing if np.isfinite(spacing).all() and min(spacing) > 0 else None,
        header=fields,
    )


def _header(start: bytes) -> Nifti1Header:
    """The header, its small faults mended by nibabel, but for voxel sizes of 0, which it would turn into 1 mm."""
    from nibabel import Nifti1Header, Nifti2Header
    from nibabel.spatialimages import HeaderDataError

    for kind in (Nifti1Header, Nifti2Header):
        if not kind.may_contain_header(start) or len(start) < kind.sizeof_hdr:
            continue
        stated = kind.from_fileobj(BytesIO(start[: kind.sizeof_hdr]), check=False)
        if int(stated["intent_code"]) in _CONNECTIVITY:
            raise UnreadableScan("A CIFTI file", expected="NIfTI with voxels", remedy="use the volumes it came from")
        try:
            header = kind.from_fileobj(BytesIO(start[: kind.sizeof_hdr]), check=True)
        except HeaderDataError:
            raise UnreadableScan(
                f"NIfTI of data type {int(stated['datatype'])}, with voxels from byte {stated['vox_offset']:g} on",
                expected="a type that the standard lists, and voxels behind the header",
                remedy="convert it to int16 or float32",
            ) from None
        header["pixdim"][1:4] = np.abs(stated["pixdim"][1:4])
        return header
    raise UnreadableScan(
        "An Analyze 7.5 or damaged NIfTI header",
        expected="NIfTI-1 or NIfTI-2",
        remedy="convert the original images again: Analyze does not say left from right",
    )


def _shape(header: Nifti1Header) -> tuple[int, int | None, int, int]:
    """(C, K, J, I); K None for a 2-D file. UnreadableScan for more than four axes of any length."""
    dims = [int(size) for size in header.get_data_shape()]
    while len(dims) > 3 and dims[-1] == 1:
        dims.pop()
    if not 2 <= len(dims) <= 4 or min(dims) < 1:
        raise UnreadableScan(f"NIfTI of shape {tuple(dims)}", expected="2 to 4 axes, none of them empty")
    i, j, k, channels = [*dims, *([None] * (4 - len(dims)))]
    return channels or 1, k, j, i


def _voxels(header: Nifti1Header, path: Path, shape: tuple[int, ...], paired: bool) -> np.ndarray:
    dtype, start = header.get_data_dtype(), float(header["vox_offset"])
    if dtype.kind not in "iufV":
        raise UnreadableScan(
            f"NIfTI of {dtype}", expected="integers, reals or RGB", remedy="store magnitude and phase apart"
        )
    if dtype.kind == "f" and dtype.itemsize > 8:
        raise UnreadableScan(f"NIfTI of {dtype}", expected="up to 64 bits", remedy="store it as float32")
    if dtype.kind == "V" and shape[0] > 1:
        raise UnreadableScan("A 4-D NIfTI in colour", expected="3-D in colour, or 4-D in grey")
    if not (math.isfinite(start) and start >= 0):
        raise UnreadableScan(f"NIfTI with voxels from byte {start} on", expected="a place in the file")
    offset = max(int(start), header.pair_vox_offset if paired else header.single_vox_offset)
    array = read_values(path, dtype, math.prod(shape), offset).reshape(shape)
    if dtype.kind == "V":  # RGB or RGBA in bytes: colours become channels, alpha goes
        return np.ascontiguousarray(np.moveaxis(array[0].view(np.uint8).reshape(*shape[1:], -1)[..., :3], -1, 0))
    return array.astype(dtype.newbyteorder("="), copy=False)


def _scaling(header: Nifti1Header) -> tuple[float, float]:
    """(slope, intercept) of the stored values; (1, 0) where the header asks for none."""
    slope, intercept = float(header["scl_slope"]), float(header["scl_inter"])
    if slope == 0 or not math.isfinite(slope):
        return 1.0, 0.0
    if not math.isfinite(intercept):
        raise UnreadableScan(f"scl_slope {slope:g} with scl_inter {intercept}", expected="two numbers, or no slope")
    return slope, intercept


def _placement(header: Nifti1Header, shape: tuple[int, int, int]) -> tuple[np.ndarray | None, dict[str, Any]]:
    """The affine in mm and what the Scan's header says of it: the sform before the qform, as nibabel, SPM and FSL."""
    forms = header.get_sform(coded=True)[0], _qform(header)
    to_mm = np.diag([*[_unit(header)] * 3, 1.0])
    sform, qform = (None if form is None else to_mm @ form for form in forms)
    if sform is None:
        found = "none" if qform is None else "qform"
        return (None if qform is None else trusted(qform, found)), {"affine_from": found}
    affine, fields = trusted(sform, "sform"), {"affine_from": "sform"}
    off = 0.0 if qform is None else _parting(affine, qform, shape)
    if off > QFORM_TOLERANCE * min(spacing_of(affine)):
        fields["qform_off_mm"] = round(off, 3)
    return affine, fields


def _qform(header: Nifti1Header) -> np.ndarray | None:
    """As coded, or None; NaN where its quaternion is no rotation."""
    try:
        return header.get_qform(coded=True)[0]
    except ValueError:
        return np.full((4, 4), np.nan)


def _parting(sform: np.ndarray, qform: np.ndarray, shape: tuple[int, int, int]) -> float:
    """How many mm apart the two place a corner of the volume; infinity where the qform says nothing.

    They may well differ: the qform leads to the scanner and the sform, say, to a template. GeometryError where they
    differ in what no registration changes: in handedness, so that left and right change places (FSL refuses that as
    well), or in the size of the voxels by more than a factor of `_QFORM_SCALE`.
    """
    if not np.isfinite(qform).all() or np.linalg.det(qform[:3, :3]) == 0:
        return math.inf
    if np.linalg.det(sform[:3, :3]) * np.linalg.det(qform[:3, :3]) < 0:
        raise GeometryError(
            "The sform and the qform are mirror images of each other, so that left and right are not known",
            expected="both of one handedness",
            remedy=_UNCODE,
        )
    ratio = np.divide(spacing_of(sform), spacing_of(qform))
    if max(*ratio, *(1 / ratio)) > _QFORM_SCALE:
        sizes = ["×".join(f"{size:.4g}" for size in spacing_of(form)) for form in (sform, qform)]
        raise GeometryError(
            f"Voxels are {sizes[0]} mm (k, j, i) by the sform and {sizes[1]} mm by the qform",
            expected=f"the same sizes, up to the factor of {_QFORM_SCALE:g} of a registration",
            remedy=_UNCODE,
        )
    return corners_apart(sform, qform, shape)


def _pixdim(header: Nifti1Header) -> tuple[float, ...]:
    """(k, j, i) mm from the header's voxel sizes, for files that say nothing of position."""
    return tuple(_unit(header) * float(size) for size in header["pixdim"][3:0:-1])


def _unit(header: Nifti1Header) -> float:
    return _UNITS_MM.get(int(header["xyzt_units"]) & 7, 1.0)
