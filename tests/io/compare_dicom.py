"""DICOM as we read it beside SimpleITK (voxels) and dcm2niix (geometry)."""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from compared import TOLERANCE, TOLERANCE_MM, Compared, corners

from medssl import MedsslError, Scan, find_scans, open_scan
from medssl.errors import GeometryError
from medssl.io import FoundScan, SkippedFile
from medssl.io.dicom import Instance, read_instances
from medssl.io.geometry import lps_to_ras
from medssl.io.pixels import values

JPEG_EXTENDED = "1.2.840.10008.1.2.4.51"
LOSSY = re.compile(r"1\.2\.840\.10008\.1\.2\.4\.(50|51|81|91)")
WHY = {
    "SC_rgb_rle_": "Ours: its segments, unpacked by hand (PS3.5 annex G), are the picture of SC_rgb_rle.dcm scaled up;"
    " SimpleITK mixes the segments' bytes",
    "examples_palette.dcm": "Ours: the palette's 16-bit entries are kept; SimpleITK shifts them down to 8 bits",
}
"""What a scan's first file holds in its name -> who is right and why, where no rule below finds it out."""

VOXELS, PLACE = "voxels, SimpleITK", "geometry, dcm2niix"


class Grid(NamedTuple):
    """A file that dcm2niix wrote: values (I, J, K, ...), affine to RAS+ mm, size of a voxel in mm."""

    voxels: np.ndarray
    affine: np.ndarray
    size: tuple[float, ...]


def folder(path: Path, name: str) -> Iterator[Compared]:
    """Every scan that a walk finds, and every file that it leaves out though it can be read when it is named."""
    for found in find_scans(path, straighten=True):
        if isinstance(found, SkippedFile):
            try:
                scan = open_scan(found.path)
            except MedsslError:
                continue
            yield from _compare(name, FoundScan((found.path,), scan.kind), scan, path)
        else:
            try:
                yield from _compare(name, found, open_scan(found), path)
            except GeometryError:
                yield geometry(_name(name, found, path), found, open_scan(found, straighten=True))
            except MedsslError:
                continue


def _compare(name: str, found: FoundScan, scan: Scan, path: Path) -> Iterator[Compared]:
    named = _name(name, found, path)
    yield voxels(named, found, scan)
    yield geometry(named, found, scan)


def _name(corpus: str, found: FoundScan, path: Path) -> str:
    first, *others = found.paths
    return f"{corpus}/{first.relative_to(path)}" + (f" and {len(others)} more" if others else "")


# ------------------------------------------------------------------------------------------------------------ voxels


def voxels(name: str, found: FoundScan, scan: Scan) -> Compared:
    """Each file decoded by SimpleITK in our order of the slices."""
    import SimpleITK as sitk

    first, paths = read_instances(found.paths[0])[0], [str(path) for path in found.paths]
    if first.syntax == JPEG_EXTENDED and first.stored > 8:  # which SimpleITK decodes for us
        return Compared(name, VOXELS, missing="nothing to compare")
    try:
        image = sitk.ReadImage(paths if len(paths) > 1 else paths[0], imageIO="GDCMImageIO")
    except RuntimeError:
        return Compared(name, VOXELS, missing="we alone")
    ours = (np.moveaxis(scan.array, 0, -1) if len(scan.array) == 3 else scan.array[0]).astype(np.float64)
    theirs = sitk.GetArrayFromImage(image).astype(np.float64)
    if theirs.size != ours.size:
        return Compared(name, VOXELS, f"{ours.shape} and {theirs.shape}")
    theirs = theirs.reshape(ours.shape)
    differ = np.abs(ours - theirs) > TOLERANCE
    if not differ.any():
        return Compared(name, VOXELS)
    away = f"{differ.mean():.1%} of the values, by up to {np.abs(ours - theirs).max():g}"
    why = _voxel_reason(first, ours, theirs)
    return Compared(name, VOXELS, away, why or next((why for part, why in WHY.items() if part in name), ""))


def _voxel_reason(first: Instance, ours: np.ndarray, theirs: np.ndarray) -> str:
    if first.mirror is not None and np.abs(first.mirror - ours - theirs).max() <= TOLERANCE:
        return "Ours: MONOCHROME1 is inverted, so that high is bright; SimpleITK leaves it. The same otherwise"
    changed = np.abs(ours - theirs) > TOLERANCE
    if first.padding and np.unique(theirs[changed]).size == 1 and np.unique(ours[changed]).size == 1:
        return "Ours: the padding value, which stands for no tissue, becomes the lowest real value; SimpleITK leaves it"
    if LOSSY.fullmatch(first.syntax) and np.abs(ours - theirs).max() <= 3:
        return "Both: decoders of lossy JPEG may round differently (ISO/IEC 10918-2 allows it)"
    return ""


# ---------------------------------------------------------------------------------------------------------- geometry


def geometry(name: str, found: FoundScan, scan: Scan) -> Compared:
    """The corners of a volume's grid, whatever its order of axes; the spacing of a picture."""
    if scan.spacing is None:
        return Compared(name, PLACE, missing="nothing to compare")
    if not (grids := _dcm2niix(found)):
        return Compared(name, PLACE, missing="we alone")
    nearest = min(grids, key=lambda grid: _apart(scan, grid))
    if (away := _apart(scan, nearest)) <= TOLERANCE_MM:
        return Compared(name, PLACE)
    among = f", from the nearest of {len(grids)} outputs" if len(grids) > 1 else ""
    return Compared(name, PLACE, f"{away:.3f} mm{among}", place_reason(found, scan, grids, nearest))


def _dcm2niix(found: FoundScan) -> list[Grid]:
    """All that it writes of the same files."""
    import nibabel

    with tempfile.TemporaryDirectory() as folder:
        inputs, outputs = Path(folder, "in"), Path(folder, "out")
        inputs.mkdir()
        outputs.mkdir()
        for number, path in enumerate(found.paths):
            (inputs / f"{number:04d}.dcm").symlink_to(path)
        subprocess.run(
            ["dcm2niix", "-b", "n", "-z", "n", "-f", "s", "-o", str(outputs), str(inputs)],
            capture_output=True, timeout=300,
        )  # fmt: skip
        images = [nibabel.load(path) for path in sorted(outputs.glob("*.nii"))]
        return [Grid(np.array(image.dataobj), image.affine, image.header.get_zooms()) for image in images]


def _apart(scan: Scan, grid: Grid) -> float:
    """mm: how far the corners of two grids lie apart, or how much the sizes of two pictures' pixels differ."""
    if scan.affine is None:
        return float(np.abs(np.subtract(scan.spacing[-2:], (grid.size[1], grid.size[0]))).max())
    ours, theirs = corners(scan.affine, scan.array.shape[:0:-1]), corners(grid.affine, grid.voxels.shape[:3])
    between = np.linalg.norm(ours[:, None] - theirs[None], axis=-1)
    return float(max(between.min(axis=0).max(), between.min(axis=1).max()))


def place_reason(found: FoundScan, scan: Scan, grids: list[Grid], nearest: Grid) -> str:
    """Who is right, found out from the slices themselves; "" where that cannot be seen."""
    if scan.header.get("spacing_from") == "ImagerPixelSpacing" and tuple(nearest.size[:2]) == (1, 1):
        return "Ours: ImagerPixelSpacing stands in where PixelSpacing is absent; dcm2niix writes 1 mm for what it lacks"
    if scan.affine is None:
        return ""
    ours = _fidelity(found, scan.array[0].T, scan.affine)
    theirs = [_fidelity(found, grid.voxels, grid.affine) for grid in grids]
    return (
        f"{'Ours' if ours > max(theirs) else 'dcm2niix'}: pixels of every slice, where PS3.3 C.7.6.2.1.1 puts them by"
        f" the slice's own position and orientation, correlate with what stands there in our grid by {ours:.3f}, in"
        f" dcm2niix's by {' and '.join(f'{one:.3f}' for one in theirs)}"
    )


def _fidelity(found: FoundScan, volume: np.ndarray, affine: np.ndarray) -> float:
    """Pearson's r of stored pixels and of what a volume (I, J, K) has at their places; 0 counts outside of it."""
    from scipy.ndimage import map_coordinates

    stored, there = [], []
    for one in (read_instances(path)[0] for path in found.paths):
        row, column = np.reshape(one.orientation, (2, 3))
        j, i = (grid.ravel() for grid in np.mgrid[: one.rows : 8, : one.columns : 8])
        places = one.position + np.outer(i * one.spacing[1], row) + np.outer(j * one.spacing[0], column)
        to_voxels = np.linalg.inv(affine) @ lps_to_ras(np.eye(4))
        at = places @ to_voxels[:3, :3].T + to_voxels[:3, 3]
        stored.append(values(one)[j, i])
        there.append(map_coordinates(volume.astype(np.float64), at.T, order=1))
    return float(np.corrcoef(np.concatenate(stored), np.concatenate(there))[0, 1])
