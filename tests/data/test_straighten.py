"""Tilted and uneven CT: refused, or straightened where a recipe asks, and the mask with it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from dicom_masks import positions, write_image, write_segmentation

from medssl.data.alignment import on_one_grid
from medssl.data.files import Files
from medssl.errors import GeometryError
from medssl.io.write import write_nifti
from medssl.rng import stream


def slices(folder: Path) -> tuple[Path, ...]:
    return tuple(sorted(folder.iterdir(), key=lambda path: int(path.stem.split(".")[-1])))


def test_a_tilted_gantry_is_refused_or_straightened_with_the_mask_that_was_drawn_on_it(tmp_path: Path) -> None:
    places = positions(5, 2.0, tilt=0.7)  # each slice slides by a row
    drawn = stream("straighten", "tilted").random((5, 9, 8)) < 0.4
    write_image(tmp_path / "ct", 100 * drawn, places)
    write_segmentation(tmp_path / "seg.dcm", [(1, places[k], drawn[k]) for k in range(5)], ["GTV"])
    paths = {"ct": slices(tmp_path / "ct"), "mask": (tmp_path / "seg.dcm",)}
    files = Files("volume", ("ct",), paths, structures={3: ["gtv"]})
    with pytest.raises(GeometryError, match="sheared") as error:
        on_one_grid(files, "refuse", False)
    assert "prepare.straighten" in error.value.remedy
    scans = on_one_grid(files, "refuse", True)
    assert scans["ct"].array.shape == scans["mask"].array.shape == (1, 5, 9 + 4, 8)
    assert (scans["mask"].array == 3).sum() == drawn.sum()
    np.testing.assert_array_equal(scans["mask"].array == 3, scans["ct"].array > 50)


def test_labels_are_never_mixed_where_a_mask_is_straightened(tmp_path: Path) -> None:
    sheared = np.diag([1.0, 1.0, 2.0, 1.0])
    sheared[1, 2] = 0.55
    labels = stream("straighten", "labels").choice(np.array([0, 1, 3], np.uint8), size=(6, 9, 8))
    write_nifti(tmp_path / "ct.nii.gz", labels.astype(np.float32), sheared)
    write_nifti(tmp_path / "seg.nii.gz", labels, sheared)
    paths = {"ct": (tmp_path / "ct.nii.gz",), "mask": (tmp_path / "seg.nii.gz",)}
    scans = on_one_grid(Files("volume", ("ct",), paths), "refuse", True)
    assert scans["ct"].array.shape == scans["mask"].array.shape == (1, 6, 9 + 3, 8)
    assert set(np.unique(scans["mask"].array)) == {0, 1, 3}
    near = np.abs(scans["ct"].array - scans["mask"].array)
    assert np.median(near) < 0.5


def test_uneven_slices_are_left_to_the_recipe_and_nothing_is_drawn_between_them(tmp_path: Path) -> None:
    heights = [0.0, 4, 8, 12, 13.1, 20, 27, 34]
    places = [np.array([0, 0, height]) for height in heights]
    write_image(tmp_path / "ct", np.stack([np.full((8, 8), round(10 * height)) for height in heights]), places)
    files = Files("volume", ("ct",), {"ct": slices(tmp_path / "ct")})
    with pytest.raises(GeometryError, match=r"7\.00 mm apart"):
        on_one_grid(files, "refuse", False)
    found = on_one_grid(files, "refuse", True)["ct"].array[0, :, 0, 0]
    np.testing.assert_allclose(found, np.linspace(0, 340, len(found)), atol=0.5)
    write_segmentation(tmp_path / "seg.dcm", [(1, places[0], np.ones((8, 8), bool))], ["GTV"])
    drawn = Files("volume", ("ct",), {**files.paths, "mask": (tmp_path / "seg.dcm",)}, structures={1: ["gtv"]})
    with pytest.raises(GeometryError, match="between which it is not drawn"):
        on_one_grid(drawn, "refuse", True)
