"""Slices become volumes by geometry alone, and never by names, instance numbers or a guess."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from medssl import find_scans, open_scan
from medssl.errors import AmbiguousSeries, GeometryError, UnreadableScan
from medssl.io import FoundScan, SkippedFile
from medssl.rng import stream


def oblique(count: int, gap: float = 2.5) -> tuple[tuple[float, ...], np.ndarray]:
    """Direction cosines of an oblique plane, and positions along its normal, LPS+ mm."""
    turn = Rotation.from_euler("xyz", [20, -15, 30], degrees=True).as_matrix()
    positions = np.array([-100.0, 80.0, 30.0]) + gap * np.arange(count)[:, None] * turn[:, 2]
    return (*turn[:, 0], *turn[:, 1]), positions


def test_shuffled_slices_are_assembled_by_position(tmp_path, noise, write_slices):
    volume = noise(7, 6, 5)
    orientation, positions = oblique(7)
    order = list(stream("test", "shuffle").permutation(7))
    assert order != sorted(order)
    write_slices(tmp_path, volume, positions, order, orientation=orientation)
    scan = open_scan(tmp_path)
    assert (scan.kind, scan.modality) == ("volume", "CT")
    np.testing.assert_array_equal(scan.array, volume[None])
    np.testing.assert_allclose(scan.spacing, (2.5, 0.7, 0.5), rtol=1e-6)
    row, column = np.reshape(orientation, (2, 3))
    for k, j, i in [(0, 0, 0), (6, 5, 4), (3, 1, 2)]:
        patient = positions[k] + 0.5 * i * row + 0.7 * j * column
        np.testing.assert_allclose((scan.affine @ [i, j, k, 1])[:3], patient * [-1, -1, 1], atol=1e-4)


def test_slices_named_one_by_one_are_sorted_too(tmp_path, noise, write_slices):
    volume = noise(4, 6, 5)
    write_slices(tmp_path, volume, oblique(4)[1], [2, 0, 3, 1], orientation=oblique(4)[0])
    paths = tuple(sorted(tmp_path.iterdir()))
    np.testing.assert_array_equal(open_scan(FoundScan(paths, "volume")).array[0], volume)
    write_slices(tmp_path / "other", noise(1, 6, 6), np.zeros((1, 3)))
    with pytest.raises(GeometryError, match="5 files make 2 stacks"):
        open_scan(FoundScan((*paths, tmp_path / "other" / "000.dcm"), "volume"))


def test_a_volume_agrees_with_simpleitk(tmp_path, noise, write_slices):
    sitk = pytest.importorskip("SimpleITK")
    orientation, positions = oblique(5)
    header = {"RescaleSlope": 2, "RescaleIntercept": -1000}
    write_slices(tmp_path, noise(5, 6, 7), positions, [3, 0, 4, 1, 2], orientation=orientation, header=header)
    scan = open_scan(tmp_path)
    theirs = sitk.ReadImage(sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(tmp_path)))
    np.testing.assert_array_equal(scan.array[0], sitk.GetArrayFromImage(theirs))
    np.testing.assert_allclose(scan.spacing, theirs.GetSpacing()[::-1], rtol=1e-4)
    for index in [(0, 0, 0), (6, 5, 4), (2, 3, 1)]:
        place = np.array(theirs.TransformContinuousIndexToPhysicalPoint([float(n) for n in index])) * [-1, -1, 1]
        np.testing.assert_allclose((scan.affine @ [*index, 1])[:3], place, atol=1e-3)


def test_a_missing_slice_is_named_by_its_neighbours(tmp_path, noise, write_slices):
    positions = np.array([[0.0, 0.0, z] for z in (0, 2, 4, 8, 10, 12)])
    write_slices(tmp_path, noise(6, 4, 4), positions)
    with pytest.raises(GeometryError, match=r"Slices 3 and 4 of 6, at 4\.00 and 8\.00 mm .* 4\.00 mm apart"):
        open_scan(tmp_path)


def test_rounded_positions_are_even_enough(tmp_path, noise, write_slices):
    heights = np.round(np.arange(9) * 0.625, 1)
    write_slices(tmp_path, noise(9, 4, 4), np.array([[0.0, 0.0, z] for z in heights]))
    assert open_scan(tmp_path).spacing[0] == pytest.approx(0.625)


def test_two_images_at_one_position_are_refused(tmp_path, noise, write_slices):
    write_slices(tmp_path, noise(4, 4, 4), np.array([[0.0, 0.0, z] for z in (0, 1, 1, 2)]))
    with pytest.raises(GeometryError, match="1 to 2 times at each of 3 place"):
        open_scan(tmp_path)


def test_a_tilted_gantry_gives_a_sheared_affine_and_a_moving_one_an_error(tmp_path, noise, write_slices):
    volume = noise(5, 4, 4)
    tilted = np.array([[0.0, 0.4 * k, 2.0 * k] for k in range(5)])
    write_slices(tmp_path / "even", volume, tilted)
    affine = open_scan(tmp_path / "even").affine
    np.testing.assert_allclose(affine[:3, 2], [0, -0.4, 2.0], atol=1e-9)
    tilted[2, 1] += 1.0
    write_slices(tmp_path / "moving", volume, tilted)
    with pytest.raises(GeometryError, match="Slice 3 of 5"):
        open_scan(tmp_path / "moving")


def test_several_series_are_listed_and_chosen_by_name(tmp_path, noise, write_slices):
    a, b = noise(3, 4, 4, name="a"), noise(4, 4, 4, name="b")
    write_slices(tmp_path / "x", a, np.array([[0.0, 0.0, z] for z in range(3)]), series="1.2.3")
    write_slices(tmp_path / "y", b, np.array([[0.0, 0.0, z] for z in range(4)]), series="1.2.4")
    listed = r"(?s)CT volume 3 × 4 × 4, 3 file\(s\), series 1\.2\.3.*CT volume 4 × 4 × 4, 4 .*series 1\.2\.4"
    with pytest.raises(AmbiguousSeries, match=listed) as caught:
        open_scan(tmp_path)
    assert "P1" not in str(caught.value)
    np.testing.assert_array_equal(open_scan(tmp_path, series="1.2.4").array[0], b)


def test_perpendicular_planes_of_one_series_are_a_localizer(tmp_path, noise, write_slices):
    planes = {"axial": (1, 0, 0, 0, 1, 0), "coronal": (1, 0, 0, 0, 0, -1), "sagittal": (0, 1, 0, 0, 0, -1)}
    for name, plane in planes.items():
        write_slices(tmp_path / name, noise(1, 4, 4), np.zeros((1, 3)), orientation=plane, modality="MR")
    found = list(find_scans(tmp_path))
    assert len(found) == 3
    assert all(isinstance(one, SkippedFile) and "localizer" in one.reason for one in found)
    with pytest.raises(UnreadableScan, match="localizer"):
        open_scan(tmp_path)
    assert open_scan(tmp_path / "axial" / "000.dcm").kind == "image"


def test_x_rays_of_one_series_stay_images(tmp_path, noise, write_slices):
    write_slices(tmp_path, noise(2, 4, 4), np.zeros((2, 3)), modality="DX")
    assert [(one.kind, len(one.paths)) for one in find_scans(tmp_path)] == [("image", 1), ("image", 1)]
