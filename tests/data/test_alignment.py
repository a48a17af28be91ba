"""Channels and masks on different grids: refused, resampled by their headers, or registered by what they show."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from dicom_masks import positions, write_image, write_segmentation
from small_sets import make

from medssl.data.alignment import on_one_grid
from medssl.data.decode import PrepareConfig
from medssl.data.files import Files
from medssl.data.grid import require_straight, resample
from medssl.data.manifest import Manifest
from medssl.data.prepare import prepare
from medssl.errors import GeometryError, ManifestError
from medssl.io.write import write_nifti
from medssl.rng import stream
from medssl.types import Scan

TWO = {"kind": "volume", "files": {"t1": "{case}/t1.nii.gz", "t2": "{case}/t2.nii.gz"}, "mask": "{case}/seg.nii.gz"}
RAW = {"intensity": "window", "window": (0.0, 1.0)}


def grid(spacing: tuple[float, float, float], origin: tuple[float, float, float] = (0, 0, 0)) -> np.ndarray:
    """Affine of a box with spacing (i, j, k) mm whose first voxel lies at `origin`, RAS+ mm."""
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = origin
    return affine


def ramp(shape: tuple[int, int, int], affine: np.ndarray) -> np.ndarray:
    """A linear function of the place in the patient, from 0 to 1 within [0, 40] mm along each axis; (K, J, I)."""
    k, j, i = np.mgrid[tuple(slice(n) for n in shape)]
    x, y, z = np.einsum("rc,c...->r...", affine[:3], np.stack([i, j, k, np.ones_like(i)]))
    return ((x + 2 * y + 3 * z) / 240).astype(np.float32)


def volume(array: np.ndarray, affine: np.ndarray) -> Scan:
    spacing = tuple(float(s) for s in np.linalg.norm(affine[:3, :3], axis=0)[::-1])
    return Scan(array[None], "volume", "MR", affine=affine, spacing=spacing)


def prepared(manifest: Manifest, root: Path, **config: object) -> tuple[np.ndarray, np.ndarray | None]:
    cache, _ = prepare(manifest, root, PrepareConfig(**RAW, **config), workers=0)
    (case,) = manifest.cases["case_id"]
    return cache.array(case), cache.mask(case) if cache.has_mask(case) else None


# Refused, and resampled


def test_channels_on_different_grids_are_refused_with_both_remedies(tmp_path: Path) -> None:
    write_nifti(tmp_path / "in/a/t1.nii.gz", ramp((9, 10, 11), np.eye(4)), np.eye(4))
    write_nifti(tmp_path / "in/a/t2.nii.gz", ramp((9, 10, 11), grid((1, 1, 2))), grid((1, 1, 2)))
    with pytest.raises(ManifestError, match="channel 't2' lies on another grid: an affine 8 mm away"):
        prepared(make(tmp_path / "in", **TWO), tmp_path / "cache")
    paths = {name: (tmp_path / f"in/a/{name}.nii.gz",) for name in ("t1", "t2")}
    with pytest.raises(GeometryError) as error:
        on_one_grid(Files("volume", ("t1", "t2"), paths), "refuse", False)
    assert "resample" in error.value.remedy
    assert "register" in error.value.remedy


def test_resampling_keeps_every_value_at_its_place_in_the_patient(tmp_path: Path) -> None:
    first, other = grid((2, 2, 4), (4, 4, 4)), grid((1.5, -2.5, 3), (1, 39, 2))
    write_nifti(tmp_path / "in/a/t1.nii.gz", ramp((8, 12, 14), first), first)
    write_nifti(tmp_path / "in/a/t2.nii.gz", ramp((13, 16, 25), other), other)
    found, _ = prepared(make(tmp_path / "in", **TWO), tmp_path / "cache", align="resample")
    np.testing.assert_allclose(found[1], found[0], atol=1e-3)


def test_beyond_a_channels_edge_lies_its_least_value_and_too_little_is_refused() -> None:
    fixed = volume(ramp((8, 8, 8), np.eye(4)), np.eye(4))
    half = volume(np.full((8, 8, 8), 7, np.float32) + ramp((8, 8, 8), np.eye(4)), grid((1, 1, 1), (3, 0, 0)))
    found = resample(half, fixed).array[0]
    np.testing.assert_allclose(found[..., :2], half.array.min())
    np.testing.assert_allclose(found[..., 3:], half.array[0, ..., :5], rtol=1e-6)
    with pytest.raises(GeometryError, match="covers 38% of the first channel's grid"):
        resample(replace(half, affine=grid((1, 1, 1), (5, 0, 0))), fixed)


def test_a_mask_on_another_grid_is_refused_or_put_on_the_nearest_voxels(tmp_path: Path) -> None:
    mask = (stream("alignment").random((4, 5, 6)) < 0.5) * np.uint8(3)
    fine = np.repeat(np.repeat(np.repeat(mask, 2, 0), 2, 1), 2, 2)
    write_nifti(tmp_path / "in/a/t1.nii.gz", ramp((4, 5, 6), np.eye(4)), np.eye(4))
    write_nifti(tmp_path / "in/a/seg.nii.gz", fine, grid((0.5, 0.5, 0.5), (-0.25, -0.25, -0.25)))
    one = {**TWO, "files": {"t1": "{case}/t1.nii.gz"}}
    with pytest.raises(ManifestError, match="the mask lies on another grid: shape"):
        prepared(make(tmp_path / "in", **one), tmp_path / "cache")
    _, found = prepared(make(tmp_path / "in", **one), tmp_path / "cache", align="resample")
    np.testing.assert_array_equal(found, mask)


def test_a_structure_that_would_vanish_is_refused() -> None:
    mask = np.zeros((8, 8, 8), np.uint8)
    mask[1, 1, 1] = 2
    coarse = volume(np.zeros((2, 2, 2), np.float32), grid((4, 4, 4), (0, 0, 0)))
    with pytest.raises(GeometryError, match="mask's value 2 comes nowhere"):
        resample(volume(mask, np.eye(4)), coarse, labels=True)


def test_the_same_voxels_stored_the_other_way_round_need_no_resampling(tmp_path: Path) -> None:
    array = stream("alignment", "turned").random((4, 5, 6)).astype(np.float32)
    mask = (array > 0.5).astype(np.uint8)
    write_nifti(tmp_path / "in/a/t1.nii.gz", array, grid((1, 2, 3)))
    write_nifti(tmp_path / "in/a/seg.nii.gz", mask[:, ::-1, ::-1], grid((-1, -2, 3), (5, 8, 0)))
    turned = np.array([[0, 0, 1, 0], [0, 2, 0, 0], [3, 0, 0, 0], [0, 0, 0, 1.0]])
    write_nifti(tmp_path / "in/a/t2.nii.gz", array.transpose(2, 1, 0), turned)
    found, labels = prepared(make(tmp_path / "in", **TWO), tmp_path / "cache")
    np.testing.assert_array_equal(found[1], found[0])
    np.testing.assert_array_equal(labels, mask)


def test_series_in_different_frames_of_reference_are_not_compared_by_position(tmp_path: Path) -> None:
    shape = (6, 12, 10)
    for name, frame, step in (("t1", "1.9", 2.0), ("t2", "1.8", 2.5)):
        write_image(tmp_path / name, np.full(shape, 5), positions(6, step), frame=frame, modality="MR")
    files = Files("volume", ("t1", "t2"), {name: tuple(sorted((tmp_path / name).iterdir())) for name in ("t1", "t2")})
    with pytest.raises(GeometryError, match="channel 't2' lies in another frame of reference"):
        on_one_grid(files, "resample", False)
    write_image(tmp_path / "t2", np.full(shape, 5), positions(6, 2.5), frame="1.9", modality="MR")
    assert on_one_grid(files, "resample", False)["t2"].array.shape == (1, *shape)


def test_a_segmentation_of_another_grid_comes_onto_the_image_where_that_is_asked(tmp_path: Path) -> None:
    write_image(tmp_path / "ct", np.full((4, 8, 8), 5), positions(4, 2.0), spacing=(1.0, 1.0))
    mask = np.zeros((8, 16, 16), dtype=bool)
    mask[2:6, 4:10, 6:12] = True
    places = [place - 0.25 * np.array([1, 1, 0]) + (0, 0, -0.5) for place in positions(8, 1.0)]
    write_segmentation(tmp_path / "seg.dcm", [(1, places[k], mask[k]) for k in range(2, 6)], ["GTV"],
                       spacing=(0.5, 0.5))
    paths = {"ct": tuple(sorted((tmp_path / "ct").iterdir())), "mask": (tmp_path / "seg.dcm",)}
    files = Files("volume", ("ct",), paths, structures={1: ["gtv"]})
    with pytest.raises(GeometryError, match="does not lie on the image's voxels"):
        on_one_grid(files, "refuse", False)
    found = on_one_grid(files, "resample", False)["mask"].array[0]
    expected = np.zeros((4, 8, 8), dtype=bool)
    expected[1:3, 2:5, 3:6] = True
    np.testing.assert_array_equal(found == 1, expected[:, ::-1, ::-1])


def test_a_sheared_grid_is_refused_with_the_remedy() -> None:
    affine = grid((0.5, 0.5, 2))
    require_straight(volume(np.zeros((20, 9, 9), np.float32), affine))
    affine[1, 2] = 0.02  # 0.4 mm over the stack: rounding
    require_straight(volume(np.zeros((20, 9, 9), np.float32), affine))
    affine[1, 2] = 0.2
    with pytest.raises(GeometryError, match="sheared") as error:
        require_straight(volume(np.zeros((20, 9, 9), np.float32), affine))
    assert "prepare.straighten" in error.value.remedy
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(0.5), -np.sin(0.5)], [np.sin(0.5), np.cos(0.5)]]
    require_straight(volume(np.zeros((20, 9, 9), np.float32), turn @ grid((0.5, -0.7, 2))))


# What the settings cost


def test_older_caches_stay_good_and_new_settings_make_new_ones() -> None:
    assert PrepareConfig().digest() == "afebbeac3fba"
    assert len({PrepareConfig(**one).digest() for one in ({}, {"align": "resample"}, {"align": "register"},
                                                           {"straighten": True})}) == 4
