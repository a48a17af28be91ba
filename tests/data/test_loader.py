"""medssl.data.loader: an order that seed and step alone decide, and boxes of every kind."""

from __future__ import annotations

import logging
import os
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from small_sets import make

from medssl.augment.policy import PolicyConfig, ViewPolicy
from medssl.data.loader import BoxConfig, Loader, _Steps, cut
from medssl.data.prepare import Cache, PrepareConfig, prepare
from medssl.errors import ConfigError, ManifestError
from medssl.io.write import write_nifti, write_png
from medssl.rng import stream
from medssl.types import ViewSpec

RAW = {"intensity": "window", "window": (0, 1)}
SHAPE = (6, 8, 10)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Cache:
    """7 images (8, 8), each of one grey."""
    folder = tmp_path_factory.mktemp("images")
    for number in range(7):
        write_png(folder / f"in/{number}.png", np.full((8, 8), 20 * number, np.uint8))
    manifest = make(folder / "in", kind="image", files={"image": "{case}.png"})
    return prepare(manifest, folder / "cache", PrepareConfig(intensity="range"), workers=0)[0]


@pytest.fixture(scope="module")
def volumes(tmp_path_factory: pytest.TempPathFactory) -> Cache:
    """3 volumes (6, 8, 10) whose every voxel is another value, with one labelled voxel at (1, 6, 7)."""
    folder = tmp_path_factory.mktemp("volumes")
    for number in range(3):
        values = (np.arange(480).reshape(SHAPE) + 500 * number).astype(np.float32) / 2000
        write_nifti(folder / f"in/{number}/t1.nii.gz", values, np.eye(4))
        mask = np.zeros(SHAPE, np.uint8)
        mask[1, 6, 7] = 2
        write_nifti(folder / f"in/{number}/seg.nii.gz", mask, np.eye(4))
    manifest = make(folder / "in", kind="volume", files={"t1": "{case}/t1.nii.gz"}, mask="{case}/seg.nii.gz")
    return prepare(manifest, folder / "cache", PrepareConfig(**RAW), workers=0)[0]


def ids(cache: Cache) -> list[str]:
    return cache.case_ids


def loader(cache: Cache, batch_size: int = 3, seed: int = 5, mask: bool = False, target=None, **box) -> Loader:
    return Loader(cache, ids(cache), BoxConfig(**box), batch_size, seed, target, mask)


def equal(a, b) -> bool:
    return a.case_ids == b.case_ids and a.epochs == b.epochs and torch.equal(a.image, b.image)


def test_a_batch_depends_on_seed_and_step_only(volumes):
    every = list(loader(volumes, size=(3, 4, 5)).batches(0, 6))
    resumed = list(loader(volumes, size=(3, 4, 5)).batches(4, 6))
    backwards = loader(volumes, size=(3, 4, 5))
    assert all(equal(a, b) for a, b in zip(every[4:], resumed, strict=True))
    assert all(equal(every[step], backwards.batch(step)) for step in (5, 0, 3))
    assert not any(equal(a, b) for a, b in zip(every, loader(volumes, seed=6, size=(3, 4, 5)).batches(0, 6),
                                               strict=True))


def test_processes_read_the_same_batches_in_the_same_order(volumes):
    alone = list(loader(volumes, size=(3, 4, 5), mask=True).batches(2, 7))
    ahead = list(loader(volumes, size=(3, 4, 5), mask=True).batches(2, 7, workers=2))
    assert all(equal(a, b) and torch.equal(a.mask, b.mask) for a, b in zip(alone, ahead, strict=True))


def test_where_shared_memory_is_short_batches_come_through_pipes(volumes, monkeypatch, caplog):
    alone = list(loader(volumes, size=(3, 4, 5), mask=True).batches(2, 7))
    monkeypatch.setattr(os, "statvfs", lambda path: SimpleNamespace(f_bavail=1, f_frsize=4096))
    with caplog.at_level(logging.WARNING):
        piped = list(loader(volumes, size=(3, 4, 5), mask=True).batches(2, 7, workers=2))
    assert "/dev/shm has 0.0 MiB left" in caplog.text
    assert "--shm-size=1m" in caplog.text
    assert all(equal(a, b) and torch.equal(a.mask, b.mask) for a, b in zip(alone, piped, strict=True))
    ahead = _Steps(loader(volumes, size=(3, 4, 5), mask=True), 0, 1, is_piped=True)[2]
    assert all(isinstance(array, np.ndarray) for array in (ahead.image, ahead.mask)), "tensors would be shared"


def test_reading_leaves_the_runs_own_random_numbers_alone(images):
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    list(loader(images).batches(0, 2))
    assert torch.equal(torch.rand(3), expected)


def test_every_pass_shows_every_case_once_in_another_order(images):
    batches = list(loader(images, batch_size=7).batches(0, 3))
    orders = [batch.case_ids for batch in batches]
    assert all(sorted(order) == ids(images) for order in orders)
    assert len({tuple(order) for order in orders}) == 3
    straddling = Counter(case for batch in loader(images, batch_size=5).batches(0, 7) for case in batch.case_ids)
    assert set(straddling.values()) == {5}  # 7 steps of 5 are 5 passes over 7 cases


def test_a_batch_larger_than_the_set_repeats_cases_with_other_boxes_and_views(volumes):
    batch = loader(volumes, batch_size=9, size=(3, 4, 5)).batch(0)
    assert Counter(batch.epochs) == {0: 3, 1: 3, 2: 3}
    for case in ids(volumes):
        mine = [n for n, each in enumerate(batch.case_ids) if each == case]
        assert len({float(batch.image[n].sum()) for n in mine}) > 1
    same = loader(volumes, batch_size=9, size=SHAPE).batch(0)
    policy = ViewPolicy(PolicyConfig.model_validate({"spatial": {"scale": [0.3, 0.9]}}), ViewSpec(), seed=0)
    view = policy(same).images[0]
    for case in ids(volumes):
        mine = [n for n, each in enumerate(same.case_ids) if each == case]
        assert len({float(same.image[n].sum()) for n in mine}) == 1
        assert len({float(view[n].sum()) for n in mine}) == 3


def test_targets_and_masks_belong_to_their_cases(volumes):
    target = {case: np.array([n, -n], np.float32) for n, case in enumerate(ids(volumes))}
    batch = loader(volumes, mask=True, target=target).batch(0)
    for n, case in enumerate(batch.case_ids):
        np.testing.assert_array_equal(batch.target[n], target[case])
        np.testing.assert_array_equal(batch.mask[n], volumes.mask(case))
        np.testing.assert_array_equal(batch.image[n], volumes.array(case).astype(np.float32))
    assert batch.mask.dtype == torch.int64
    assert batch.image.dtype == torch.float32


def test_image_and_mask_are_cut_from_the_same_place(volumes):
    for batch in loader(volumes, mask=True, size=(3, 4, 5)).batches(0, 8):
        for image, mask, case in zip(batch.image, batch.mask, batch.case_ids, strict=True):
            place = volumes.array(case)[0, 1, 6, 7].astype(np.float32)
            assert torch.equal(mask == 2, image[0] == float(place))


def test_planar_boxes_are_single_slices(volumes):
    batch = loader(volumes, batch_size=30, planar=True, mask=True).batch(0)
    assert batch.image.shape == (30, 1, 8, 10)
    assert batch.mask.shape == (30, 8, 10)
    slices = set()
    for image, case in zip(batch.image.numpy(), batch.case_ids, strict=True):
        k = int(np.flatnonzero((volumes.array(case)[0] == image[0].astype(np.float16)).all(axis=(1, 2)))[0])
        slices.add(k)
    assert slices == set(range(6))
    assert loader(volumes, planar=True, size=(4, 4)).batch(0).image.shape == (3, 1, 4, 4)


def test_period_keeps_every_nth_frame_and_fills_up_with_zeros(volumes):
    case = ids(volumes)[0]
    array = volumes.array(case)
    whole = BoxConfig(period=2).read(array, (0, 0, 0))
    np.testing.assert_array_equal(whole, array[:, ::2])
    starts = {tuple(batch.image[0, 0, :, 0, 0].tolist())
              for batch in Loader(volumes, [case], BoxConfig(size=(2, 8, 10), period=3), 1, 0).batches(0, 30)}
    first = array[0, :, 0, 0].astype(np.float32)
    assert starts == {(first[k], first[k + 3]) for k in (0, 1, 2)}
    long = BoxConfig(size=(6, 8, 10), period=2).read(array, (0, 0, 0))
    np.testing.assert_array_equal(long[:, :3], array[:, ::2])
    assert (long[:, 3:] == 0).all()


def test_cases_smaller_than_the_box_are_padded_at_the_end(volumes):
    batch = loader(volumes, size=(6, 12, 10), mask=True).batch(0)
    assert batch.image.shape == (3, 1, 6, 12, 10)
    assert (batch.image[:, :, :, 8:] == 0).all()
    assert (batch.mask[:, :, 8:] == 0).all()
    np.testing.assert_array_equal(batch.image[0, 0, :, :8], volumes.array(batch.case_ids[0])[0].astype(np.float32))


@pytest.mark.parametrize(("foreground", "low", "high"), [(0.0, 0.0, 0.25), (1.0, 1.0, 1.0), (0.5, 0.3, 0.75)])
def test_foreground_is_the_share_of_boxes_around_a_labelled_voxel(volumes, foreground, low, high):
    batches = loader(volumes, batch_size=20, mask=True, size=(2, 2, 2), foreground=foreground).batches(0, 5)
    share = np.mean([bool((mask == 2).any()) for batch in batches for mask in batch.mask])
    assert low <= share <= high


def test_cut_against_plain_indexing():
    array = stream("cut").normal(size=(2, 5, 6, 7))
    np.testing.assert_array_equal(cut(array, (1, 2, 3), (2, 3, 4)), array[:, 1:3, 2:5, 3:7])
    np.testing.assert_array_equal(cut(array, (0, 0, 0), (3, 6, 7), period=2), array[:, ::2])
    padded = cut(array, (4, 5, 0), (3, 2, 7))
    np.testing.assert_array_equal(padded[:, :1, :1], array[:, 4:, 5:])
    assert padded.shape == (2, 3, 2, 7)
    assert padded[:, 1:].any() == padded[:, :, 1:].any() == False  # noqa: E712 (all of it is padding)


def test_what_cannot_be_read_says_what_to_mend(images, volumes):
    with pytest.raises(ManifestError, match="no case to train on"):
        Loader(images, [], BoxConfig(), 2, 0)
    with pytest.raises(ConfigError, match="expected|Expected 3"):
        loader(volumes, size=(4, 4)).batch(0)
    with pytest.raises(ConfigError, match="volumes and clips"):
        loader(images, planar=True).batch(0)


def test_cases_of_different_shape_need_a_box(tmp_path):
    for side in (4, 6):
        write_png(tmp_path / f"in/{side}.png", np.zeros((side, side), np.uint8))
    manifest = make(tmp_path / "in", kind="image", files={"image": "{case}.png"})
    cache = prepare(manifest, tmp_path / "cache", PrepareConfig(), workers=0)[0]
    with pytest.raises(ManifestError, match=r"\(1, 4, 4\), \(1, 6, 6\).*data.box.size"):
        loader(cache, batch_size=2).batch(0)
    assert loader(cache, batch_size=2, size=(5, 5)).batch(0).image.shape == (2, 1, 5, 5)
