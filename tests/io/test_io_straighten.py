"""Straightened volumes: what is linear in space stays exact, what is missing stays an error."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from medssl import find_scans, open_scan
from medssl.errors import GeometryError
from medssl.io import FoundScan, SkippedFile
from medssl.io.straighten import is_straight, straight
from medssl.io.write import write_nifti
from medssl.types import Scan


def ramp(positions: np.ndarray, size=(8, 9), spacing=(0.7, 0.5), tilt: float = 0.0):
    """Slices of x + 3y - 2z + 200 (LPS mm) at the positions of their first pixels; and their orientation."""
    column = np.array([0.0, np.cos(tilt), -np.sin(tilt)])
    j, i = np.indices(size)
    places = positions[:, None, None] + (i * spacing[1])[..., None] * [1.0, 0, 0] + (j * spacing[0])[..., None] * column
    return places @ [1.0, 3.0, -2.0] + 200, (1.0, 0.0, 0.0, *column)


def linear(scan: Scan) -> np.ndarray:
    """What a straightened ramp must hold at each of its voxels, (K, J, I)."""
    k, j, i = np.indices(scan.array.shape[1:])
    ras = np.stack([i, j, k, np.ones_like(i)], axis=-1) @ scan.affine.T
    return ras[..., :3] @ [-1.0, -3.0, -2.0] + 200


def test_a_tilt_is_resampled_exactly_in_space(tmp_path, write_slices):
    positions = np.array([[1.0, 2.0 + 0.9 * k, 3.0 * k] for k in range(6)])
    values, orientation = ramp(positions)
    stored = np.round(values * 16).astype(np.uint16)
    write_slices(tmp_path, stored, positions, orientation=orientation, header={"RescaleSlope": 1 / 16})
    sheared, scan = open_scan(tmp_path), open_scan(tmp_path, straighten=True)
    assert not is_straight(sheared.affine)
    assert is_straight(scan.affine)
    assert scan.spacing == pytest.approx((3.0, 0.7, 0.5))
    assert scan.array.shape == (1, 6, 8 + 7, 9)  # 5 × 0.9 mm = 6.4 rows wider
    assert scan.array.dtype == np.float32
    for k in range(6):
        shift = 0.9 * k / 0.7
        rows = slice(int(np.ceil(shift)), int(np.floor(shift)) + 8)
        np.testing.assert_allclose(scan.array[0, k, rows], linear(scan)[k, rows], atol=0.1)
        assert (scan.array[0, k, rows.stop + 1 :] == scan.array.min()).all()


def test_uneven_slices_are_refused_unless_straightened(tmp_path, write_slices):
    heights = np.array([0.0, 4, 8, 12, 13.1, 19.9, 26.7, 33.5])
    positions = heights[:, None] * [0.0, 0.0, 1.0]
    values, orientation = ramp(positions)
    write_slices(tmp_path, np.round(values * 16).astype(np.uint16), positions, orientation=orientation,
                 header={"RescaleSlope": 1 / 16})  # fmt: skip
    with pytest.raises(GeometryError, match=r"lie 1\.10 mm apart.*straighten=True"):
        open_scan(tmp_path)
    assert {type(one) for one in find_scans(tmp_path)} == {SkippedFile}
    (found,) = find_scans(tmp_path, straighten=True)
    scan = open_scan(found, straighten=True)
    assert scan.array.shape == (1, 9, 8, 9)  # 33.5 mm in steps of 4 mm, the median, or nearly so: 8.4 -> 8
    assert scan.spacing[0] == pytest.approx(33.5 / 8)
    np.testing.assert_allclose(scan.array[0], linear(scan), atol=0.1)


def test_slices_off_their_line_are_put_back(tmp_path, write_slices):
    positions = np.array([[0.0, 0.0, 2.0 * k] for k in range(5)])
    positions[2] += [1.0, -0.7, 0.0]  # two columns and one row
    values, orientation = ramp(positions)
    write_slices(tmp_path, np.round(values * 16).astype(np.uint16), positions, orientation=orientation,
                 header={"RescaleSlope": 1 / 16})  # fmt: skip
    with pytest.raises(GeometryError, match="Slice 3 of 5"):
        open_scan(tmp_path)
    scan = open_scan(tmp_path, straighten=True)
    assert scan.array.shape == (1, 5, 9, 11)
    covered = scan.array[0] > scan.array.min()
    assert covered.sum() >= 5 * 72 - 1
    np.testing.assert_allclose(scan.array[0][covered], linear(scan)[covered], atol=0.1)


@pytest.mark.parametrize(
    ("heights", "thickness", "missing"),
    [
        ((0, 2, 4, 8, 10, 12), 2, "Slices 3 and 4 of 6.*1 missing"),
        ((0, 2, 4, 10, 12), None, "Slices 3 and 4 of 5.*2 missing"),
        ((0, 4, 8, 16, 20, 21.1, 28, 35, 42), 4, "Slices 3 and 4 of 9.*1 missing"),
        ((0, 1, 2, 3, 203.4, 204.4), None, "Slices 4 and 5 of 6.*199 missing"),
        ((0, 5, 10, 15, 25, 35, 45), (5, 5, 5, 10, 10, 10, 10), None),
        ((0, 4, 8, 12, 13.1, 20, 27), None, None),
    ],
)
def test_a_missing_slice_is_an_error_even_so(tmp_path, write_slices, heights, thickness, missing):
    positions = np.multiply.outer(heights, [0.0, 0.0, 1.0])
    thick = thickness if isinstance(thickness, tuple) else [thickness] * len(heights)
    write_slices(tmp_path, np.ones((len(heights), 4, 4), np.uint16), positions,
                 header=[{"SliceThickness": one} if one else {} for one in thick])  # fmt: skip
    if missing is None:
        assert open_scan(tmp_path, straighten=True).kind == "volume"
        return
    for straighten in (False, True):
        with pytest.raises(GeometryError, match=missing):
            open_scan(tmp_path, straighten=straighten)
        assert {type(one) for one in find_scans(tmp_path, straighten=straighten)} == {SkippedFile}


def test_what_is_straight_is_not_touched(tmp_path, noise, write_slices):
    volume = noise(4, 5, 6)
    write_slices(tmp_path, volume, np.array([[0.0, 0.0, 1.04 * k] for k in range(4)]))
    plain, scan = open_scan(tmp_path), open_scan(tmp_path, straighten=True)
    np.testing.assert_array_equal(scan.array, volume[None])
    np.testing.assert_allclose(scan.affine, plain.affine)


def test_a_sheared_nifti_is_straightened_too(tmp_path):
    affine = np.array([[0.5, 0, 0, 3], [0, 0.7, 0.6, 1], [0, 0, -2, 4], [0, 0, 0, 1.0]])
    k, j, i = np.indices((5, 8, 9))
    ramp_ = np.stack([i, j, k, np.ones_like(i)], axis=-1) @ affine.T
    write_nifti(tmp_path / "a.nii", (ramp_[..., 1] + 50).astype(np.float32), affine)
    scan = open_scan(tmp_path / "a.nii", straighten=True)
    assert is_straight(scan.affine)
    assert scan.spacing == pytest.approx((2, 0.7, 0.5))
    np.testing.assert_allclose(scan.affine[:3, 2], [0, 0, -2], atol=1e-6)
    k, j, i = np.indices(scan.array.shape[1:])
    expected = (np.stack([i, j, k, np.ones_like(i)], axis=-1) @ scan.affine.T)[..., 1] + 50
    covered = scan.array[0] > scan.array.min() + 1
    assert covered.mean() > 0.5  # and between what is covered and what is not, no value is a mixture
    np.testing.assert_allclose(scan.array[0][covered], expected[covered], atol=1e-3)


def test_a_grid_sheared_in_its_plane_is_refused():
    affine = np.array([[0.5, 0.2, 0.3, 0], [0, 0.7, 0, 0], [0, 0, 2, 0], [0, 0, 0, 1.0]])
    with pytest.raises(GeometryError, match="Rows and columns are not perpendicular"):
        straight(Scan(np.zeros((1, 3, 4, 4)), "volume", "CT", affine=affine))


def test_a_real_head_with_tilt_and_two_slice_distances():
    data = os.environ.get("MEDSSL_DATA")
    if data is None:
        pytest.skip("MEDSSL_DATA names no folder of real scans")
    folder = Path(data, "dicom_corpus/dcm_qa_ct/In/GE")
    with pytest.raises(GeometryError, match="straighten=True"):
        open_scan(folder)
    (found,) = find_scans(folder, straighten=True)
    assert isinstance(found, FoundScan)
    scan = open_scan(found, straighten=True)
    height = (157.7760586 - 5.8360586) * 0.9483237  # mm along the normal of slices tilted by 18.5 degrees
    steps = scan.array.shape[1] - 1
    assert is_straight(scan.affine)
    assert steps == round(height / (4.22 * 0.9483237))
    assert scan.spacing == pytest.approx((height / steps, 250 / 512, 250 / 512), abs=1e-3)
    first = scan.affine @ [0, scan.array.shape[2] - 512, 0, 1]
    np.testing.assert_allclose(first[:3], [125.0, 123.5404569, 5.8360586], atol=1e-3)
    assert scan.array.min() == -1023  # air, and not the padding value of -1500
