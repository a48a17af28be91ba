"""NIfTI headers that disagree with themselves, and gzip streams of every shape: each on a file that the test writes."""

from __future__ import annotations

import gzip
import math
import struct
from pathlib import Path

import nibabel
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from medssl import find_scans, open_scan
from medssl.errors import GeometryError, UnreadableScan
from medssl.io.write import write_nifti

FIELDS = {"dim": (40, "8h"), "datatype": (70, "h"), "pixdim": (76, "8f"), "vox_offset": (108, "f"),
          "scl": (112, "2f"), "codes": (252, "2h"), "quatern": (256, "3f"), "magic": (344, "4s")}  # fmt: skip
"""Where a NIfTI-1 header keeps what (nifti1.h)."""


def patch(path: Path, **fields) -> None:
    """Overwrite fields of a little-endian NIfTI-1 header: what no library would write."""
    raw = bytearray(path.read_bytes())
    for name, values in fields.items():
        at, form = FIELDS[name]
        struct.pack_into(f"<{form}", raw, at, *values)
    path.write_bytes(raw)


def both_forms(path: Path, volume: np.ndarray, sform: np.ndarray, qform: np.ndarray) -> Path:
    image = nibabel.Nifti1Image(volume.T, None)
    image.set_qform(qform, code=1)
    image.set_sform(sform, code=4)
    nibabel.save(image, path)
    return path


def turned(degrees: float, spacing: tuple[float, float, float] = (0.5, 0.75, 3.0)) -> np.ndarray:
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_euler("xyz", [degrees, 10, 170], degrees=True).as_matrix() * spacing
    affine[:3, 3] = -40, 12.5, 7
    return affine


def test_the_sform_wins_and_the_header_says_how_far_the_qform_lies_off(tmp_path, noise):
    volume = noise(3, 4, 5)
    there = turned(30)
    there[0, 3] += 25
    scan = open_scan(both_forms(tmp_path / "a.nii.gz", volume, there, turned(30)))
    assert dict(scan.header) == {"affine_from": "sform", "qform_off_mm": pytest.approx(25, abs=1e-3)}
    np.testing.assert_allclose(scan.affine, there, atol=1e-5)
    np.testing.assert_allclose(scan.affine, nibabel.load(tmp_path / "a.nii.gz").affine, atol=1e-6)


@pytest.mark.parametrize("degrees", [0, 30, 90, 180])
def test_rounding_is_no_disagreement(tmp_path, noise, degrees):
    scan = open_scan(both_forms(tmp_path / "a.nii", noise(30, 40, 50), turned(degrees), turned(degrees)))
    assert "qform_off_mm" not in scan.header
    there = turned(degrees)
    there[1, 3] += 0.04  # less than a tenth of the smallest voxel size
    scan = open_scan(both_forms(tmp_path / "b.nii", noise(3, 4, 5), there, turned(degrees)))
    assert "qform_off_mm" not in scan.header


def test_mirrored_forms_are_refused(tmp_path, noise):
    mirrored = turned(30) @ np.diag([-1.0, 1, 1, 1])
    with pytest.raises(GeometryError, match="mirror images.*left and right"):
        open_scan(both_forms(tmp_path / "a.nii", noise(3, 4, 5), mirrored, turned(30)))


@pytest.mark.parametrize(("factor", "refused"), [(1.9, False), (2.1, True), (0.45, True)])
def test_forms_may_differ_by_a_registration_and_by_no_more(tmp_path, noise, factor, refused):
    path = both_forms(tmp_path / "a.nii", noise(3, 4, 5), turned(0, (1, 1, factor)), turned(0, (1, 1, 1)))
    if refused:
        with pytest.raises(GeometryError, match=f"Voxels are {factor}×1×1 mm .* and 1×1×1 mm by the qform"):
            open_scan(path)
    else:
        assert open_scan(path).header["qform_off_mm"] > 1


def test_a_qform_that_is_no_rotation_matters_only_where_it_is_needed(tmp_path, noise):
    path = both_forms(tmp_path / "a.nii", noise(3, 4, 5), turned(0), turned(0))
    patch(path, quatern=(2, 1, 1))
    scan = open_scan(path)
    assert scan.header["qform_off_mm"] == math.inf
    np.testing.assert_allclose(scan.affine, turned(0), atol=1e-5)
    patch(path, codes=(1, 0))
    with pytest.raises(GeometryError, match="affine of the qform is singular or not finite"):
        open_scan(path)


def test_voxel_sizes_of_zero_are_not_made_up(tmp_path, noise):
    write_nifti(tmp_path / "a.nii", noise(3, 4, 5), np.diag([0.5, 0.75, 3, 1.0]))
    patch(tmp_path / "a.nii", codes=(0, 0), pixdim=(1, 0, -0.75, 3, 1, 1, 1, 1))
    scan = open_scan(tmp_path / "a.nii")
    assert (scan.affine, scan.spacing, scan.header["affine_from"]) == (None, None, "none")
    patch(tmp_path / "a.nii", pixdim=(1, 0.5, -0.75, 3, 1, 1, 1, 1))  # a sign in pixdim is a common slip
    assert open_scan(tmp_path / "a.nii").spacing == (3, 0.75, 0.5)
    patch(tmp_path / "a.nii", codes=(1, 0), pixdim=(1, 0, 0.75, 3, 1, 1, 1, 1))
    with pytest.raises(GeometryError, match="qform"):
        open_scan(tmp_path / "a.nii")


@pytest.mark.parametrize("slope", [-0.5, -1, 2, 0, math.nan, math.inf])
@pytest.mark.parametrize("intercept", [0, -1024])
def test_slopes(tmp_path, noise, slope, intercept):
    volume = noise(3, 4, 5, dtype=np.int16)
    write_nifti(tmp_path / "a.nii", volume, np.eye(4))
    patch(tmp_path / "a.nii", scl=(slope, intercept))
    scan = open_scan(tmp_path / "a.nii")
    scaled = slope != 0 and math.isfinite(slope)
    assert scan.array.dtype == (np.float32 if scaled else np.int16)
    np.testing.assert_array_equal(scan.array[0], slope * volume + intercept if scaled else volume)
    np.testing.assert_array_equal(scan.array[0].T, nibabel.load(tmp_path / "a.nii").get_fdata())


def test_a_slope_without_an_intercept_is_refused(tmp_path, noise):
    write_nifti(tmp_path / "a.nii", noise(3, 4, 5), np.eye(4))
    patch(tmp_path / "a.nii", scl=(2, math.nan))
    with pytest.raises(UnreadableScan, match="scl_slope 2 with scl_inter nan"):
        open_scan(tmp_path / "a.nii")


def test_nan_stays(tmp_path):
    volume = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    volume[1, 2, :2] = np.nan, np.inf
    write_nifti(tmp_path / "a.nii", volume, np.eye(4))
    np.testing.assert_array_equal(open_scan(tmp_path / "a.nii").array[0], volume)


@pytest.mark.parametrize("endian", ["<", ">"])
@pytest.mark.parametrize("kind", [nibabel.Nifti1Image, nibabel.Nifti2Image])
@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz", "a.hdr", "a.img.gz"])
def test_every_endianness_version_and_packing_of_four_axes(tmp_path, noise, endian, kind, name):
    series = noise(2, 3, 4, 5, dtype=np.int16)
    paired = not name.startswith("a.nii")
    if paired:
        kind = {nibabel.Nifti1Image: nibabel.Nifti1Pair, nibabel.Nifti2Image: nibabel.Nifti2Pair}[kind]
    header = kind.header_class(endianness=endian)
    header.set_data_dtype(np.dtype(np.int16).newbyteorder(endian))
    nibabel.save(kind(series.T, turned(30), header=header), tmp_path / name)
    (found,) = find_scans(tmp_path)
    assert len(found.paths) == 1 + paired
    for path in (found, *found.paths):
        scan = open_scan(path)
        np.testing.assert_array_equal(scan.array, series)
        assert scan.array.dtype.isnative
        np.testing.assert_allclose(scan.affine, turned(30), atol=1e-5)


def test_analyze_is_refused_by_name(tmp_path, noise):
    nibabel.save(nibabel.AnalyzeImage(noise(3, 4, 5, dtype=np.int16), np.eye(4)), tmp_path / "a.hdr")
    for name in ("a.hdr", "a.img"):
        with pytest.raises(UnreadableScan, match="Analyze 7.5.*left from right"):
            open_scan(tmp_path / name)


@pytest.mark.parametrize(("fields", "reason"), [
    ({"datatype": (1,)}, "NIfTI of data type 1"),
    ({"datatype": (32,)}, "NIfTI of complex64"),
    ({"dim": (5, 5, 4, 1, 1, 3, 1, 1)}, r"NIfTI of shape \(5, 4, 1, 1, 3\)"),
    ({"dim": (3, 5, -4, 3, 1, 1, 1, 1)}, r"NIfTI of shape \(5, -4, 3\)"),
    ({"vox_offset": (math.nan,)}, "voxels from byte nan on"),
    ({"vox_offset": (1e9,)}, r"ends after \d+ of 1000000120 bytes"),
    ({"dim": (3, 32767, 32767, 32767, 1, 1, 1, 1)}, "6.55e\\+04 GiB"),
    ({"dim": (3, 500, 500, 500, 1, 1, 1, 1)}, "ends after 472 of 250000352 bytes"),
])  # fmt: skip
def test_what_no_header_should_say_is_named(tmp_path, noise, fields, reason):
    write_nifti(tmp_path / "a.nii", noise(3, 4, 5), np.eye(4))
    patch(tmp_path / "a.nii", **fields)
    with pytest.raises(UnreadableScan, match=reason):
        open_scan(tmp_path / "a.nii")


# ------------------------------------------------------------------------------------------------------------- gzip

@pytest.fixture
def plain(tmp_path, noise) -> tuple[np.ndarray, bytes]:
    """A volume, and its bytes as .nii."""
    volume = noise(6, 20, 20)
    write_nifti(tmp_path / "plain.nii", volume, np.eye(4))
    return volume, (tmp_path / "plain.nii").read_bytes()


@pytest.mark.parametrize("packed", [
    lambda raw: gzip.compress(raw[:1000]) + gzip.compress(raw[1000:1001]) + gzip.compress(raw[1001:]),
    lambda raw: gzip.compress(b"") + gzip.compress(raw),
    lambda raw: gzip.compress(raw) + bytes(512),
    lambda raw: gzip.compress(raw) + b"a note that somebody appended",
    lambda raw: gzip.compress(raw + b"more than the header declares"),
    lambda raw: gzip.compress(raw, 0),
])  # fmt: skip
def test_gzip_of_several_members_and_with_something_behind(tmp_path, plain, packed):
    volume, raw = plain
    (tmp_path / "a.nii.gz").write_bytes(packed(raw))
    np.testing.assert_array_equal(open_scan(tmp_path / "a.nii.gz").array[0], volume)


@pytest.mark.parametrize("packed", [
    lambda raw: gzip.compress(raw)[:-1],
    lambda raw: gzip.compress(raw)[:-8] + bytes(8),
    lambda raw: gzip.compress(raw[:1000]) + gzip.compress(raw[1000:])[:-9],
    lambda raw: gzip.compress(raw[:1000]) + b"instead of the rest",
    lambda raw: gzip.compress(raw[:-1]),
    lambda raw: gzip.compress(raw)[:12],
])  # fmt: skip
def test_gzip_that_is_not_whole_is_refused(tmp_path, plain, packed):
    (tmp_path / "a.nii.gz").write_bytes(packed(plain[1]))
    with pytest.raises(UnreadableScan, match="cut off or damaged|ends after"):
        open_scan(tmp_path / "a.nii.gz")
