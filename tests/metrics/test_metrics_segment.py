"""Dice and surface distances: empties, cases written out by hand, and agreement with MONAI."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from monai.metrics import compute_average_surface_distance, compute_hausdorff_distance
from scipy.ndimage import gaussian_filter

from medssl import MedsslError
from medssl.metrics.segment import SurfaceDistances, dice, surface_distances
from medssl.rng import stream

FULL, EMPTY = np.ones((2, 3), bool), np.zeros((2, 3), bool)


def test_empty_masks_as_brats_has_them():
    assert dice(EMPTY, EMPTY) == 1.0
    assert dice(EMPTY, FULL) == 0.0
    assert dice(FULL, EMPTY) == 0.0


def test_known_overlap():
    left, top = np.zeros((4, 4), bool), np.zeros((4, 4), bool)
    left[:, :2], top[:2] = True, True
    assert dice(left, top) == 0.5


@given(st.integers(0, 1000), st.floats(0, 1))
def test_is_symmetric_within_zero_and_one_and_one_only_for_equal_masks(seed, share):
    rng = stream("dice", seed)
    a, b = rng.random((2, 3, 4, 5)) < share
    assert dice(a, b) == dice(b, a)
    assert 0 <= dice(a, b) <= 1
    assert (dice(a, b) == 1) == bool((a == b).all())
    assert dice(a, a) == 1


@pytest.mark.parametrize(("prediction", "what"), [(FULL[:1], "has shape"), (FULL.astype(int), "masks are int64")])
def test_bad_masks_are_named(prediction, what):
    with pytest.raises(MedsslError, match=what):
        dice(prediction, FULL)


def test_surface_distances_to_an_empty_mask_are_brats_penalty():
    brats = np.zeros((155, 240, 240), bool)
    lesion = brats.copy()
    lesion[70, 100, 100] = True
    assert surface_distances(brats, brats, (1, 1, 1)) == (0, 0)
    for pair in ((brats, lesion), (lesion, brats)):
        assert surface_distances(*pair, (1, 1, 1)) == pytest.approx((373.13, 373.13), abs=0.005)
    assert surface_distances(EMPTY, FULL, (1.5, 4 / 3)).hd95 == pytest.approx(5)  # 2 × 1.5 mm by 3 × 4/3 mm


def test_surface_distances_written_out():
    line, longer = np.zeros((3, 30), bool), np.zeros((3, 30), bool)
    line[1, :10], longer[1, :20] = True, True
    # none of the 10 voxels lies off the longer line; its 20 lie 0 (ten times), 2, 4, ..., 20 mm off the shorter one
    assert surface_distances(line, longer, (1, 2)) == pytest.approx((18.1, 110 / 30))
    points = np.zeros((2, 5, 5, 5), bool)
    points[0, 0, 0, 0] = points[1, 1, 2, 3] = True
    assert surface_distances(*points, (4, 1.5, 2)) == pytest.approx([np.sqrt(4**2 + 3**2 + 6**2)] * 2)


def test_only_the_surface_counts_and_the_edge_of_the_image_is_one():
    ring = np.ones((7, 7), bool)
    ring[2:5, 2:5] = False
    whole = surface_distances(ring, np.ones((7, 7), bool), (1, 1))
    assert whole.hd95 == 1  # 12 voxels face the hole, 1 mm off the outer 24, which both masks share
    assert whole.assd == pytest.approx(12 / (24 + 12 + 24))


@given(st.integers(0, 10_000), st.sampled_from([(1.0, 0.7), (3.0, 1.0, 0.8), (0.5, 2.0, 1.3)]))
def test_surface_distances_agree_with_monai(seed, spacing):
    rng = stream("surfaces", seed)
    shape = (14, 17, 19)[: len(spacing)]
    a, b = (gaussian_filter(rng.random(shape), 2) for _ in range(2))
    pair = a > np.quantile(a, rng.uniform(0.3, 0.99)), b > np.quantile(b, rng.uniform(0.3, 0.99))
    tensors = [torch.from_numpy(mask)[None, None] for mask in pair]
    ours = surface_distances(*pair, spacing)
    kwargs = {"include_background": True, "spacing": spacing}
    assert ours.hd95 == pytest.approx(float(compute_hausdorff_distance(*tensors, percentile=95, **kwargs)), rel=1e-5)
    mean = float(compute_average_surface_distance(*tensors, symmetric=True, **kwargs))
    assert ours.assd == pytest.approx(mean, rel=1e-5)
    assert surface_distances(*reversed(pair), spacing) == pytest.approx(ours)
    assert surface_distances(pair[0], pair[0], spacing) == SurfaceDistances(0, 0)


@pytest.mark.parametrize("spacing", [(1,), (1, 1, 1), (1, 0), (1, float("nan"))])
def test_a_spacing_that_is_none_is_refused(spacing):
    with pytest.raises(MedsslError, match="of masks with 2 axes"):
        surface_distances(FULL, FULL, spacing)
