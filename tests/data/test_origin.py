"""medssl.data.origin: masks go back to the voxels that they were prepared from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from nibabel.orientations import axcodes2ornt, inv_ornt_aff

from medssl.data.decode import PrepareConfig, decode
from medssl.data.files import Files
from medssl.data.origin import Origin
from medssl.errors import GeometryError
from medssl.io.write import write_nifti
from medssl.metrics.segment import dice

PREPARED = [
    {}, {"margin": 2}, {"spacing": (1.5, 1.0, 0.8)}, {"spacing": (2, 1.5, 1.5), "margin": 1}, {"size": (34, 40, 44)},
    {"size": (64, 50)},
]


def phantom(codes: str, folder: Path, turn: float = 0.0) -> Files:
    """A head of two channels and its lesion, stored by these axes (RAS: i to the right, ...), mm (1.2, 0.9, 1.6)."""
    shape = (40, 56, 48)
    grid = np.stack(np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij"))
    head = (np.sqrt((grid**2).sum(0)) < 0.8).astype(np.float32) * (2 + grid[0])
    lesion = (((grid - np.reshape([0.2, -0.1, 0.3], (3, 1, 1, 1)))**2).sum(0) < 0.2).astype(np.uint8)
    affine = np.diag([1.2, 0.9, 1.6, 1]) @ inv_ornt_aff(axcodes2ornt(codes), shape[::-1])
    c, s = np.cos(turn), np.sin(turn)
    affine = np.array([[c, -s, 0, 5], [s, c, 0, -7], [0, 0, 1, 30], [0, 0, 0, 1]]) @ affine
    for name, array in {"t1": head, "t2": head[:, ::-1] * (head > 2), "mask": lesion}.items():
        write_nifti(folder / f"{name}.nii.gz", array, affine)
    return Files("volume", ("t1", "t2"), {name: (folder / f"{name}.nii.gz",) for name in ("t1", "t2", "mask")})


def there_and_back(files: Files, config: PrepareConfig) -> tuple[np.ndarray, np.ndarray, Origin]:
    """The mask as its file has it, what became of it, and the way back."""
    origin = Origin.of(files, config)
    prepared = decode("c", files, config).mask[None] * 8.0 - 4
    return files.open("mask").array[0] > 0, origin.put_back(origin.resized(prepared)[0] > 0), origin


@pytest.mark.parametrize("config", PREPARED, ids=str)
@pytest.mark.parametrize("codes", ["RAS", "LPS", "PIR", "SLA"])
def test_a_mask_comes_back_to_where_it_was(codes, config, tmp_path):
    files = phantom(codes, tmp_path, turn=0.2)
    stored, back, origin = there_and_back(files, PrepareConfig(**config))
    assert back.shape == stored.shape
    assert dice(back, stored) > 0.95
    apart = np.subtract(*(np.argwhere(mask).mean(axis=0) for mask in (back, stored)))
    assert np.abs(apart).max() < 0.25  # voxels: no half of one is lost on the way
    if "spacing" not in config and "size" not in config:
        np.testing.assert_array_equal(back, stored)
    np.testing.assert_array_equal(origin.scan.affine, files.open("t1").affine)
    wrong = stored[::-1] if config == {} else np.roll(stored, 4, axis=0)
    assert dice(back, wrong) < 0.8


def test_a_sheared_volume_is_straightened_and_back(tmp_path):
    files = phantom("RAS", tmp_path)
    tilted = files.open("t1").affine.copy()
    tilted[1, 2] = 0.3
    for name in files.paths:
        write_nifti(tmp_path / f"{name}.nii.gz", files.open(name).array[0], tilted)
    stored, back, origin = there_and_back(files, PrepareConfig(straighten=True, margin=1))
    assert origin.straight.array.shape != origin.scan.array.shape
    assert back.shape == stored.shape
    assert dice(back, stored) > 0.95
    np.testing.assert_allclose(origin.scan.affine, tilted, atol=1e-6)


def test_a_picture_is_no_volume(tmp_path):
    from medssl.io.write import write_png

    picture = np.zeros((20, 30), np.uint8)
    picture[4:10, 5:20] = 255
    write_png(tmp_path / "a.png", picture)
    origin = Origin.of(Files("image", ("image",), {"image": (tmp_path / "a.png",)}), PrepareConfig(size=(10, 15)))
    np.testing.assert_array_equal(origin.put_back(origin.resized(np.ones((1, 10, 15), np.float32))[0] > 0),
                                  np.ones((20, 30), bool))


def test_uneven_slices_make_no_grid(tmp_path):
    from dicom_masks import positions, write_image

    places = positions(6)
    places[3] = places[3] + [0, 0, 0.7]
    write_image(tmp_path, np.arange(6 * 8 * 8).reshape(6, 8, 8), places)
    files = Files("volume", ("image",), {"image": tuple(sorted(tmp_path.iterdir()))})
    with pytest.raises(GeometryError, match="cannot be put back"):
        Origin.of(files, PrepareConfig(straighten=True))
