"""NIfTI files of every kind, a few voxels each, as nibabel writes them or with a header that it would not write."""

from __future__ import annotations

import math
from pathlib import Path

import nibabel
import numpy as np
from test_io_nifti import both_forms, patch, turned

from medssl.io.write import write_nifti
from medssl.rng import stream

_CLASSES = {1: (nibabel.Nifti1Image, nibabel.Nifti1Pair), 2: (nibabel.Nifti2Image, nibabel.Nifti2Pair)}


def write_kinds(folder: Path) -> dict[str, Path]:
    """{what it is: its file}, a folder each."""
    return {**_packed(folder), **_typed(folder), **_placed(folder), **_scaled(folder)}


def _packed(folder: Path) -> dict[str, Path]:
    files = {}
    for version, classes in _CLASSES.items():
        for order, word in (("<", "little"), (">", "big")):
            for suffix in (".nii", ".nii.gz", ".hdr", ".img.gz"):
                kind = f"NIfTI-{version}, {word} endian, {suffix}, 4-D, oblique"
                made = classes[suffix not in (".nii", ".nii.gz")]
                header = made.header_class(endianness=order)
                header.set_data_dtype(np.dtype(np.int16).newbyteorder(order))
                path = _in(folder, kind, f"a{suffix}")
                nibabel.save(made(_values(2, 3, 4, 5).T, turned(30), header=header), path)
                files[kind] = path
    return files


def _typed(folder: Path) -> dict[str, Path]:
    files = {}
    for code in ("u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f4", "f8"):
        files[f"voxels of {np.dtype(code).name}"] = path = _in(folder, code, "a.nii")
        nibabel.save(nibabel.Nifti1Image(_values(3, 4, 5).astype(code).T, turned(30), dtype=code), path)
    for names in ("RGB", "RGBA"):
        files[f"{names} voxels"] = path = _in(folder, names, "a.nii")
        colours = _values(3, 4, 5, len(names)).astype(np.uint8).view([(name, "u1") for name in names])[..., 0]
        nibabel.save(nibabel.Nifti1Image(colours.T, turned(30)), path)
    holes = _values(3, 4, 5).astype(np.float32)
    holes[0, 1] = np.nan
    files["NaN among the voxels"] = path = _in(folder, "nan", "a.nii")
    write_nifti(path, holes, turned(30))
    return files


def _placed(folder: Path) -> dict[str, Path]:
    there, other = turned(30), turned(30)
    other[0, 3] += 25
    sheared = turned(30)
    sheared[:3, 2] += 0.4 * sheared[:3, 1]
    mirrored = turned(30) @ np.diag([-1.0, 1, 1, 1])
    forms = {
        "sform and qform 25 mm apart": (other, there, (1, 4)),
        "sform and qform 25 mm apart, both of the scanner": (other, there, (1, 1)),
        "sform only": (there, other, (0, 1)),
        "qform only": (other, there, (1, 0)),
        "neither form, voxel sizes only": (there, there, (0, 0)),
        "left-handed, by both forms": (mirrored, mirrored, (1, 1)),
        "sheared sform only": (sheared, there, (0, 1)),
    }
    files = {}
    for kind, (sform, qform, codes) in forms.items():
        files[kind] = both_forms(_in(folder, kind, "a.nii"), _values(3, 4, 5), sform, qform)
        patch(files[kind], codes=codes)
    for unit, size in (("metres", 1), ("micrometres", 3)):
        files[f"in {unit}"] = path = _in(folder, unit, "a.nii")
        image = nibabel.Nifti1Image(_values(3, 4, 5).T, turned(30))
        image.header["xyzt_units"] = size
        nibabel.save(image, path)
    return files


def _scaled(folder: Path) -> dict[str, Path]:
    files = {}
    for slope, intercept in ((2, -1024), (-0.5, 3), (0, 3), (math.nan, 3), (math.inf, 3)):
        kind = f"scl_slope {slope}, scl_inter {intercept}"
        files[kind] = path = _in(folder, kind, "a.nii")
        write_nifti(path, _values(3, 4, 5), turned(30))
        patch(path, scl=(slope, intercept))
    for shape in ((4, 5), (1, 4, 5), (1, 1, 3, 4, 5)):
        files[f"{len(shape)} axes, {'×'.join(map(str, shape[::-1]))}"] = path = _in(folder, f"{shape}", "a.nii")
        nibabel.save(nibabel.Nifti1Image(_values(*shape).T, turned(0)), path)
    return files


def _values(*shape: int) -> np.ndarray:
    return stream("test", "nifti", "kinds").integers(0, 128, shape).astype(np.int16)


def _in(folder: Path, kind: str, name: str) -> Path:
    path = folder / kind.replace(" ", "_") / name
    path.parent.mkdir(parents=True)
    return path
