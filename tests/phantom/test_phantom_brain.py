"""The brain phantom: BraTS naming and geometry, nested regions, contrasts as in reality."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest

from medssl.phantom import write_brain
from medssl.phantom.brain import CHANNELS, draw_patient

COUNT = 24


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("brain")
    write_brain(folder, 3, seed=1)
    return folder


@pytest.fixture(scope="module")
def patients() -> list[tuple[dict[str, np.ndarray], np.ndarray]]:
    return [draw_patient(1, index) for index in range(COUNT)]


def test_files_are_named_as_in_brats(folder: Path) -> None:
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*.nii.gz")}
    names = [f"BraTS2021_{k:05d}" for k in range(3)]
    assert found == {f"{name}/{name}_{part}.nii.gz" for name in names for part in ("flair", "t1", "t1ce", "t2", "seg")}


def test_geometry_is_that_of_the_voxels(folder: Path, patients: list) -> None:
    image = nibabel.load(folder / "BraTS2021_00001" / "BraTS2021_00001_t1ce.nii.gz")
    assert image.shape == (64, 64, 20)
    assert image.header.get_zooms() == pytest.approx((3, 3, 6))
    assert nibabel.aff2axcodes(image.affine) == ("L", "P", "S")
    assert image.get_data_dtype() == np.int16
    assert np.array_equal(np.asarray(image.dataobj).T, patients[1][0]["t1ce"])


def test_background_is_exactly_zero_in_every_channel(patients: list) -> None:
    for channels, labels in patients[:6]:
        outside = channels["t1"] == 0
        assert 0.5 < outside.mean() < 0.9
        assert all(np.array_equal(channels[name] == 0, outside) for name in CHANNELS)
        assert not labels[outside].any()


def test_regions_are_nested_and_labels_are_brats(patients: list) -> None:
    for _, labels in patients:
        assert set(np.unique(labels)) <= {0, 1, 2, 4}
        whole, core, enhancing = labels > 0, np.isin(labels, (1, 4)), labels == 4
        assert whole.any()
        assert not (core & ~whole).any()
        assert not (enhancing & ~core).any()


def test_some_tumours_do_not_enhance_and_some_have_no_necrosis(patients: list) -> None:
    without = [[not (labels == value).any() for _, labels in patients] for value in (1, 4)]
    assert all(0 < sum(part) < COUNT / 2 for part in without)


def test_contrasts_are_those_of_the_tissues(patients: list) -> None:
    def level(name: str, region: np.ndarray, channels: dict[str, np.ndarray]) -> float:
        return float(np.median(channels[name][region]) / np.median(channels[name][channels[name] > 0]))

    levels: dict[tuple[str, int], list[float]] = {}
    for channels, labels in patients:
        for value in (1, 2, 4):
            if (labels == value).sum() >= 40:
                for name in CHANNELS:
                    levels.setdefault((name, value), []).append(level(name, labels == value, channels))
    mean = {key: np.mean(found) for key, found in levels.items()}
    assert mean["flair", 2] > 1.3
    assert mean["t2", 2] > 1.1
    assert mean["t1", 2] < 1
    assert mean["t1ce", 4] > 1.2 > mean["t1", 4]
    assert mean["t1ce", 1] < mean["t1ce", 4] - 0.4


def test_flair_alone_does_not_give_the_tumour_away(patients: list) -> None:
    """Age's bright spots: outside the mask there are voxels as bright as the tumour."""
    hits = 0
    for channels, labels in patients:
        bright = np.median(channels["flair"][labels > 0])
        hits += ((channels["flair"] > bright) & (labels == 0)).sum() > 20
    assert hits > COUNT / 2


def test_scanners_differ_in_their_units(patients: list) -> None:
    medians = [np.median(channels["t2"][channels["t2"] > 0]) for channels, _ in patients]
    assert max(medians) > 2 * min(medians)
