"""Our readers beside two others: voxels beside SimpleITK's, geometry beside dcm2niix's, for every DICOM scan both read.

    MEDSSL_DATA=/where/the/scans/are python tests/io/compare_readers.py

writes docs/readers.md. It needs the program dcm2niix (Debian's package of that name). A difference that nobody has
explained yet comes out as "not settled": settle it in WHY, or mend the reader.
"""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np

from medssl import Scan, find_scans, open_scan
from medssl.errors import GeometryError, UnreadableScan
from medssl.io import FoundScan, SkippedFile
from medssl.io.dicom import Instance, read_instances

PAGE = Path(__file__).parents[2] / "docs" / "readers.md"
CORPORA = ("dicom_corpus", "cine_sunnybrook")
TOLERANCE_MM = 1e-3
TOLERANCE = 1e-3
"""Of values: SimpleITK rescales in float64, we in float32."""

LOSSY = re.compile(r"1\.2\.840\.10008\.1\.2\.4\.(50|51|81|91)")

_DETECTOR = "Ours: ImagerPixelSpacing stands in where PixelSpacing is absent; dcm2niix writes 1 mm for what it lacks"
WHY: dict[str, str] = {
    "77654033/CR": _DETECTOR,
    "SC_rgb_rle_": "Ours: its segments, unpacked by hand (PS3.5 annex G), are the 8-bit picture scaled up; SimpleITK"
    " mixes the segments' bytes",
    "examples_palette.dcm": "Ours: the palette's 16-bit entries are kept; SimpleITK shifts them down to 8 bits",
    "dcm_qa_ct/In/GE": "Ours: the first slice's last row begins at z = -46.0 mm by its position and orientation, where"
    " our grid has it; dcm2niix puts it at -73.3 mm, and says of its tilt correction that it is to be validated",
}
"""The first file of a scan, below its corpus -> who is right and why, where no rule below explains it."""


@dataclass(frozen=True)
class Compared:
    """away: how far apart both are; "" where they agree, None where only we read the scan, or nothing is to compare."""

    name: str
    away: str | None
    reason: str = ""

    @property
    def why(self) -> str:
        """Who is right."""
        return self.reason or next((why for file, why in WHY.items() if file in self.name), "Not settled yet")


def _scans(data: Path) -> list[tuple[str, FoundScan, Scan, bool]]:
    """(name, how it was found, scan, whether its slices were resampled, since they lie unevenly)."""
    scans = []
    for corpus in CORPORA:
        for found in find_scans(data / corpus, straighten=True):
            if isinstance(found, SkippedFile):
                continue
            name = str(found.paths[0].relative_to(data))
            name += f" and {len(found.paths) - 1} more" if found.paths[1:] else ""
            try:
                scans.append((name, found, open_scan(found), False))
            except GeometryError:
                scans.append((name, found, open_scan(found, straighten=True), True))
            except UnreadableScan:
                continue
    return scans


def voxels(name: str, found: FoundScan, scan: Scan) -> Compared:
    """Beside SimpleITK, each file decoded by it in our order of the slices."""
    import SimpleITK as sitk

    paths = [str(path) for path in found.paths]
    try:
        image = sitk.ReadImage(paths if len(paths) > 1 else paths[0], imageIO="GDCMImageIO")
    except RuntimeError:
        return Compared(name, None)
    ours = (np.moveaxis(scan.array, 0, -1) if len(scan.array) == 3 else scan.array[0]).astype(np.float64)
    theirs = sitk.GetArrayFromImage(image).astype(np.float64)
    if theirs.size != ours.size:
        return Compared(name, f"{ours.shape} and {theirs.shape}")
    theirs = theirs.reshape(ours.shape)
    differ = np.abs(ours - theirs) > TOLERANCE
    if not differ.any():
        return Compared(name, "")
    away = f"{differ.mean():.1%} of the values, by up to {np.abs(ours - theirs).max():g}"
    return Compared(name, away, _voxel_reason(read_instances(found.paths[0])[0], ours, theirs))


def _voxel_reason(first: Instance, ours: np.ndarray, theirs: np.ndarray) -> str:
    if first.mirror is not None and np.abs(first.mirror - ours - theirs).max() <= TOLERANCE:
        return "Ours: MONOCHROME1 is inverted, so that high is bright; SimpleITK leaves it. The same otherwise"
    changed = np.abs(ours - theirs) > TOLERANCE
    if first.padding and np.unique(theirs[changed]).size == 1 and np.unique(ours[changed]).size == 1:
        return "Ours: the padding value, which stands for no tissue, becomes the lowest real value; SimpleITK leaves it"
    if LOSSY.fullmatch(first.syntax) and np.abs(ours - theirs).max() <= 3:
        return "Both: decoders of lossy JPEG may round differently (ISO/IEC 10918-2 allows it)"
    return ""


def geometry(name: str, found: FoundScan, scan: Scan) -> Compared:
    """Beside dcm2niix: the corners of a volume's grid, whatever its order of axes; the spacing of a picture."""
    grids = _dcm2niix(found)
    if not grids or scan.spacing is None:
        return Compared(name, None)
    away, how = min((_apart(scan, *grid), len(grids)) for grid in grids)
    if away <= TOLERANCE_MM:
        return Compared(name, "")
    return Compared(name, f"{away:.3f} mm{f', from the nearest of {how} outputs' if how > 1 else ''}")


def _dcm2niix(found: FoundScan) -> list[tuple[np.ndarray, tuple[int, ...], tuple[float, ...]]]:
    """(affine, shape, voxel size in mm) of every file that it writes."""
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
        return [(image.affine, image.shape, image.header.get_zooms()) for image in images]


def _apart(scan: Scan, affine: np.ndarray, shape: tuple[int, ...], size: tuple[float, ...]) -> float:
    """mm: how far the corners of two grids lie apart, or how much the sizes of two pictures' pixels differ."""
    if scan.affine is None:
        return float(np.abs(np.subtract(scan.spacing[-2:], (size[1], size[0]))).max())
    ours, theirs = _corners(scan.affine, scan.array.shape[:0:-1]), _corners(affine, shape[:3])
    between = np.linalg.norm(ours[:, None] - theirs[None], axis=-1)
    return float(max(between.min(axis=0).max(), between.min(axis=1).max()))


def _corners(affine: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """(8, 3) RAS+ mm of the outermost voxels' centres; shape (I, J, K)."""
    corners = np.array(list(product(*((0, n - 1) for n in shape))))
    return corners @ affine[:3, :3].T + affine[:3, 3]


def _page(all_voxels: list[Compared], all_places: list[Compared]) -> str:
    import SimpleITK as sitk

    version = re.search(r"v[\d.]+", subprocess.run(["dcm2niix", "-h"], capture_output=True, text=True).stdout)
    parts = [
        "# Our DICOM reader beside two others",
        "Written by `tests/io/compare_readers.py`, which reads every DICOM scan that `find_scans` finds in the corpora"
        f" {' and '.join(f'`{one}`' for one in CORPORA)} below `$MEDSSL_DATA`. How every single file of them ends"
        " stands in [tests/io/corpus.csv](../tests/io/corpus.csv).",
        f"- **Voxels** beside SimpleITK {sitk.Version.VersionString()}, decoded file by file in our order of slices;"
        f" they agree where no value differs by more than {TOLERANCE:g}.\n"
        f"- **Geometry** beside dcm2niix {version[0]}, given the same files: the outermost voxels of a volume, the"
        f" pixel spacing of a picture or clip; they agree where nothing is more than {TOLERANCE_MM:g} mm apart.",
        "| | both read | agree | differ | we alone, or nothing to compare |\n|---|---|---|---|---|\n"
        + _counts("voxels, SimpleITK", all_voxels)
        + _counts("geometry, dcm2niix", all_places),
    ]
    for title, compared in (("Voxels that differ", all_voxels), ("Geometry that differs", all_places)):
        lines = "".join(f"| `{one.name}` | {one.away} | {one.why} |\n" for one in compared if one.away)
        head = f"## {title}\n\n"
        table = "| scan | apart | who is right, and why |\n|---|---|---|\n"
        parts.append(f"{head}{table}{lines}" if lines else f"{head}None.")
    return "\n\n".join(part.strip() for part in parts) + "\n"


def _counts(title: str, compared: list[Compared]) -> str:
    agree, alone = (sum(one.away == end for one in compared) for end in ("", None))
    both = len(compared) - alone
    return f"| {title} | {both} | {agree} | {both - agree} | {alone} |\n"


def _write() -> None:
    scans = _scans(Path(os.environ["MEDSSL_DATA"]))
    plain = [voxels(name, found, scan) for name, found, scan, resampled in scans if not resampled]
    PAGE.write_text(_page(plain, [geometry(name, found, scan) for name, found, scan, _ in scans]))


if __name__ == "__main__":
    _write()
