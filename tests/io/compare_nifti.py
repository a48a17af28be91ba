"""NIfTI as we read it beside nibabel and SimpleITK: voxels, and where they lie."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from compared import TOLERANCE, TOLERANCE_MM, Compared, corners

from medssl import Scan, find_scans, open_scan
from medssl.io import FoundScan
from medssl.io.geometry import lps_to_ras

Read = tuple[np.ndarray, np.ndarray | None]
"""Values, in the order of a Scan's array, and the affine to RAS+ mm, None for a picture."""

_UNIT = "Ours: xyzt_units says so (nifti1.h), and SimpleITK agrees; nibabel leaves its affine in the file's own unit"
_UNSCALED = "Ours: a slope of 0 asks for no scaling (nifti1.h), and nibabel agrees; SimpleITK still adds scl_inter"
_NO_NUMBER = "Ours: a slope that is no number scales nothing, and nibabel agrees; SimpleITK still adds scl_inter"
_HOLES = "Ours: the NaN that is stored stays, and nibabel agrees; SimpleITK puts 0 in its place"
_FORMS = (
    "Both: nifti1.h leaves the choice to the program. We take the sform, as nibabel does, and say in the header how far"
    " off the qform lies; SimpleITK takes the qform unless the sform, too, leads to the scanner"
)
WHY = {
    ("in metres", "place, nibabel"): _UNIT,
    ("in micrometres", "place, nibabel"): _UNIT,
    ("scl_slope 0, scl_inter 3", "voxels, SimpleITK"): _UNSCALED,
    ("scl_slope nan, scl_inter 3", "voxels, SimpleITK"): _NO_NUMBER,
    ("scl_slope inf, scl_inter 3", "voxels, SimpleITK"): _NO_NUMBER,
    ("sform and qform 25 mm apart", "place, SimpleITK"): _FORMS,
}
"""(the file, or its kind; what differs) -> who is right, and why."""


def compare(name: str, path: Path) -> Iterator[Compared]:
    """Voxels and place of one file beside each of the two."""
    scan = open_scan(path)
    for peer, read in (("nibabel", _nibabel), ("SimpleITK", _simpleitk)):
        voxels, place = f"voxels, {peer}", f"place, {peer}"
        if (theirs := read(path, scan)) is None:
            yield Compared(name, voxels, missing="we alone")
            yield Compared(name, place, missing="we alone")
            continue
        values, affine = theirs
        away, why = _apart(scan.array, values)
        yield Compared(name, voxels, away, why or WHY.get((name, voxels), ""))
        if scan.affine is None:
            yield Compared(name, place, missing="nothing to compare")
        else:
            shape = scan.array.shape[:0:-1]
            away = float(np.linalg.norm(corners(scan.affine, shape) - corners(affine, shape), axis=1).max())
            yield Compared(name, place, f"{away:.6g} mm" if away > TOLERANCE_MM else "", WHY.get((name, place), ""))


def folder(path: Path, name: str) -> Iterator[Compared]:
    """Every NIfTI scan that a walk finds."""
    for found in find_scans(path):
        if isinstance(found, FoundScan):
            yield from compare(f"{name}/{found.paths[0].relative_to(path)}", found.paths[0])


def _nibabel(path: Path, scan: Scan) -> Read:
    import nibabel

    image = nibabel.load(path)
    if image.get_data_dtype().kind == "V":
        colours = np.asarray(image.dataobj).T
        values = np.stack([colours[name] for name in "RGB"])
    else:
        values = image.get_fdata().T
    return values.reshape(scan.array.shape), image.affine


def _simpleitk(path: Path, scan: Scan) -> Read | None:
    import SimpleITK as sitk

    try:
        image = sitk.ReadImage(str(path), imageIO="NiftiImageIO")
    except RuntimeError:
        return None
    values, axes = sitk.GetArrayFromImage(image), image.GetDimension()
    if image.GetNumberOfComponentsPerPixel() > 1:
        values = np.moveaxis(values[..., :3], -1, 0)
    affine, space = np.eye(4), slice(min(axes, 3))
    affine[space, space] = np.reshape(image.GetDirection(), (axes, axes))[space, space] * image.GetSpacing()[:3]
    affine[space, 3] = image.GetOrigin()[:3]
    return values.reshape(scan.array.shape), lps_to_ras(affine)


def _apart(ours: np.ndarray, theirs: np.ndarray) -> tuple[str, str]:
    """("", "") where they agree; else how far they are apart, and who is right if that can be seen."""
    ours, theirs = ours.astype(np.float64), theirs.astype(np.float64)
    holes, differ = np.isnan(ours), np.abs(ours - theirs) > TOLERANCE
    if not differ.any() and (holes == np.isnan(theirs)).all():
        return "", ""
    if not differ.any() and (theirs[holes] == 0).all():
        return f"NaN and 0 in {holes.mean():.1%} of the voxels", _HOLES
    return f"{differ.mean():.1%} of the values, by up to {np.nanmax(np.abs(ours - theirs)):g}", ""
