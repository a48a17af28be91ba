"""Geometry against independent references: torch.flip, rot90, interpolate, and a 3-D grid."""

import math

import numpy as np
import pytest
import torch
from torch.nn.functional import affine_grid, grid_sample, interpolate

from medssl.augment import Spatial, SpatialConfig
from medssl.augment.transform import apply_draws, stack
from medssl.errors import ConfigError
from medssl.rng import stream, torch_seed

CONFIGS = {
    "siaug": SpatialConfig(scale=(0.3, 0.9), ratio=(3 / 4, 4 / 3)),
    "turned": SpatialConfig(scale=(0.5, 1.0), rotate=20, flip={"j": 0.5, "i": 0.5}, translate=0.1),
}


def images(*shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(torch_seed("images")))


def box(centre: tuple[float, ...], extent: tuple[float, ...], degrees: float = 0.0) -> dict:
    return stack([{"centre": np.array(centre), "extent": np.array(extent), "angle": math.radians(degrees)}])


def draw(spatial: Spatial, shape: tuple[int, ...], count: int) -> list[dict | None]:
    return [spatial.draw(stream("case", b), shape) for b in range(count)]


@pytest.mark.parametrize("shape", [(1, 12, 10), (1, 5, 12, 10)])
def test_the_default_leaves_images_and_labels_bit_for_bit(shape):
    spatial, batch = Spatial(SpatialConfig()), images(3, *shape)
    draws = draw(spatial, shape, 3)
    assert draws == [None] * 3
    assert torch.equal(apply_draws(spatial.apply, batch, draws), batch)
    assert torch.equal(apply_draws(spatial.apply_labels, batch[:, 0].round().long(), draws), batch[:, 0].round().long())


@pytest.mark.parametrize(("axes", "letter", "axis"), [("plane", "j", -2), ("plane", "i", -1), ("volume", "k", -3),
                                                      ("volume", "j", -2), ("volume", "i", -1)])
def test_a_flip_is_torch_s_flip_and_undoes_itself(axes, letter, axis):
    spatial, batch = Spatial(SpatialConfig(axes=axes, flip={letter: 1.0})), images(2, 2, 6, 13, 10)
    draws = draw(spatial, (2, 6, 13, 10), 2)
    once = apply_draws(spatial.apply, batch, draws)
    torch.testing.assert_close(once, batch.flip(axis), atol=1e-5, rtol=0)
    torch.testing.assert_close(apply_draws(spatial.apply, once, draws), batch, atol=1e-5, rtol=0)
    labels = (batch[:, 0] * 5).long()
    assert torch.equal(apply_draws(spatial.apply_labels, labels, draws), labels.flip(axis))


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_a_quarter_turn_is_rot90(turns):
    batch = images(1, 2, 9, 9)
    turned = Spatial(SpatialConfig(rotate=180)).apply(batch, box((4.5, 4.5), (9, 9), 90 * turns))
    torch.testing.assert_close(turned, batch.rot90(-turns, (2, 3)), atol=1e-5, rtol=0)


@pytest.mark.parametrize("view", [(30, 22), (9, 8)])
def test_resizing_a_plane_is_interpolate(view):
    batch = images(1, 3, 12, 10)
    result = Spatial(SpatialConfig(), view).apply(batch, box((6, 5), (12, 10)))
    expected = interpolate(batch, view, mode="bilinear", align_corners=False)
    torch.testing.assert_close(result, expected, atol=1e-5, rtol=0)


def test_resizing_a_volume_is_trilinear():
    batch = images(1, 2, 6, 9, 8)
    result = Spatial(SpatialConfig(axes="volume"), (11, 7, 13)).apply(batch, box((3, 4.5, 4), (6, 9, 8)))
    expected = interpolate(batch, (11, 7, 13), mode="trilinear", align_corners=False)
    torch.testing.assert_close(result, expected, atol=1e-5, rtol=0)


def test_a_turned_and_cropped_volume_agrees_with_a_3d_grid():
    batch, degrees, side = images(1, 1, 10, 12, 12), 25.0, 12
    config = SpatialConfig(axes="volume", rotate=30, padding="border")
    ours = Spatial(config, (8, 9, 9)).apply(batch, box((5.5, 6, 6), (7, 9, 9), degrees))
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    share = 9 / side
    theta = torch.tensor([[[share * cos, share * sin, 0, 0], [-share * sin, share * cos, 0, 0],
                           [0, 0, 7 / 10, 2 * 5.5 / 10 - 1]]])
    grid = affine_grid(theta, (1, 1, 8, 9, 9), align_corners=False)
    torch.testing.assert_close(ours, grid_sample(batch, grid, padding_mode="border", align_corners=False),
                               atol=1e-4, rtol=0)


def test_strong_shrinking_smooths_as_antialiasing_does():
    batch = images(1, 1, 45, 36)
    result = Spatial(SpatialConfig(), (15, 12)).apply(batch, box((22.5, 18), (45, 36)))
    expected = interpolate(batch, (15, 12), mode="bilinear", antialias=True)
    torch.testing.assert_close(result[..., 1:-1, 1:-1], expected[..., 1:-1, 1:-1], atol=1e-5, rtol=0)


@pytest.mark.parametrize("padding", ["zero", "border"])
def test_what_lies_outside_is_padded(padding):
    spatial = Spatial(SpatialConfig(translate=0.5, padding=padding))
    batch, labels = torch.ones(1, 1, 8, 8), torch.ones(1, 8, 8, dtype=torch.long)
    params = box((4, 7), (8, 8))  # three columns to the right
    outside = 0 if padding == "zero" else 1
    for result in (spatial.apply(batch, params)[0, 0], spatial.apply_labels(labels, params)[0]):
        assert (result[:, :5] == 1).all()
        assert (result[:, 5:] == outside).all()


def test_a_volume_is_padded_along_its_slices_too():
    spatial = Spatial(SpatialConfig(axes="volume", translate=0.5))
    params = box((6, 4, 4), (8, 8, 8))  # two slices up
    result = spatial.apply(torch.ones(1, 2, 8, 8, 8), params)
    labels = spatial.apply_labels(torch.ones(1, 8, 8, 8, dtype=torch.long), params)
    assert torch.equal(result[0, 1], labels[0].float())
    assert (labels[0, :6] == 1).all()
    assert (labels[0, 6:] == 0).all()


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
@pytest.mark.parametrize("axes", ["plane", "volume"])
def test_labels_follow_the_image(config, axes):
    config = config.model_copy(update={"axes": axes})
    labels = torch.zeros(6, 12, 48, 40, dtype=torch.long)
    labels[:, 3:9, 14:34, 10:30] = 1
    spatial = Spatial(config, (12, 32, 32) if axes == "volume" else (32, 32))
    draws = draw(spatial, (1, 12, 48, 40), 6)
    seen = apply_draws(spatial.apply, labels[:, None].float(), draws)[:, 0] > 0.5
    moved = apply_draws(spatial.apply_labels, labels, draws) == 1
    assert moved.shape == seen.shape == (6, 12, 32, 32)
    for a, b in zip(seen, moved, strict=True):
        assert a.any()
        assert 2 * (a & b).sum() / (a.sum() + b.sum()) > 0.95


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
@pytest.mark.parametrize("size", [(24, 24), (10, 10)])
def test_a_sample_is_resampled_alike_whatever_stands_beside_it(config, size):
    spatial, batch = Spatial(config, size), images(4, 2, 40, 36)
    draws = draw(spatial, (2, 40, 36), 4)
    together = apply_draws(spatial.apply, batch, draws)
    for b in range(4):
        alone = apply_draws(spatial.apply, batch[b:b + 1], draws[b:b + 1])
        torch.testing.assert_close(alone[0], together[b], atol=1e-6, rtol=0)


def test_samples_that_geometry_spares_stay_bit_for_bit_beside_others():
    spatial, batch = Spatial(SpatialConfig(rotate=20, probability=0.5)), images(16, 1, 12, 12)
    draws = draw(spatial, (1, 12, 12), 16)
    spared = [b for b, one in enumerate(draws) if one is None]
    assert 2 <= len(spared) <= 14
    result = apply_draws(spatial.apply, batch, draws)
    assert [b for b in range(16) if torch.equal(result[b], batch[b])] == spared


def test_all_frames_of_a_clip_move_alike():
    frame = images(2, 1, 1, 30, 30)
    spatial = Spatial(CONFIGS["turned"], (20, 20))
    draws = draw(spatial, (1, 5, 30, 30), 2)
    clip = apply_draws(spatial.apply, frame.expand(2, 1, 5, 30, 30), draws)
    assert clip.shape == (2, 1, 5, 20, 20)
    assert (clip == clip[:, :, :1]).all()
    assert torch.equal(clip[:, :, 0], apply_draws(spatial.apply, frame[:, :, 0], draws))


def test_crops_lie_in_the_image_and_keep_the_drawn_share_and_ratio():
    spatial, image = Spatial(CONFIGS["siaug"], (64, 64)), np.array([100.0, 80.0])
    boxes = draw(spatial, (1, 100, 80), 400)
    shares = np.array([abs(b["extent"]).prod() / image.prod() for b in boxes])
    ratios = np.array([b["extent"][1] / b["extent"][0] for b in boxes])
    assert all((b["centre"] - b["extent"] / 2 >= -1e-9).all() for b in boxes)
    assert all((b["centre"] + b["extent"] / 2 <= image + 1e-9).all() for b in boxes)
    assert 0.3 <= shares.min() < 0.35
    assert 0.8 < shares.max() <= 0.9
    assert 0.75 <= ratios.min() < 0.8
    assert 1.1 < ratios.max() <= 4 / 3


def test_a_volume_s_crop_keeps_its_share():
    spatial = Spatial(SpatialConfig(axes="volume", scale=(0.4, 0.6), ratio=(0.9, 1.1)), (32, 32, 32))
    shares = [abs(b["extent"]).prod() / 40**3 for b in draw(spatial, (1, 40, 40, 40), 100)]
    assert 0.4 <= min(shares) < 0.45
    assert 0.55 < max(shares) <= 0.6 + 1e-9


def test_without_augmentation_the_view_is_the_largest_central_box_undistorted():
    (only,) = draw(Spatial(SpatialConfig(), (32, 32)), (1, 60, 100), 1)
    np.testing.assert_array_equal(only["extent"], [60, 60])
    np.testing.assert_array_equal(only["centre"], [30, 50])
    assert only["angle"] == 0


@pytest.mark.parametrize("bad", [{"scale": [0.9, 0.3]}, {"scale": [0.5, 1.5]}, {"ratio": [0, 1]}, {"flip": {"k": 0.5}},
                                 {"flip": {"x": 0.5}}, {"rotate": -5}])
def test_impossible_geometry_is_refused(bad):
    with pytest.raises(ValueError, match="SpatialConfig"):
        SpatialConfig(**bad)


@pytest.mark.parametrize(("axes", "size", "image", "remedy"), [
    ("volume", None, (20, 20), r"set augment\.spatial\.axes to plane, or, where data\.box\.planar cuts"),
    ("plane", (8, 10, 10), (9, 20, 20), r"\[J, I\], or, for volumes, set augment\.spatial\.axes to volume"),
    ("plane", (8, 10, 10), (20, 20), r"write augment\.size as \[J, I\]\.$"),
    ("volume", (10, 10, 10, 10), (9, 20, 20), r"write augment\.size as \[K, J, I\]\.$")])
def test_a_size_that_does_not_fit_the_images_is_an_error_that_says_how_to_mend_it(axes, size, image, remedy):
    with pytest.raises(ConfigError, match=f"Remedy: .*{remedy}"):
        Spatial(SpatialConfig(axes=axes), size).draw(stream("case"), (1, *image))
