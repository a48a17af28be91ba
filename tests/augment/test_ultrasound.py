"""What an ultrasound machine does to grey values, each against its formula; and crops that keep the fan."""

import math

import numpy as np
import pytest
import torch

from medssl.augment import TRANSFORMS, PolicyConfig, SpatialConfig, ViewPolicy
from medssl.augment.spatial import Spatial
from medssl.augment.transform import apply_draws
from medssl.augment.ultrasound import sector
from medssl.rng import stream, torch_seed
from medssl.types import Batch, ViewSpec

SIDE = 64
CASES = 8


def fan(tip: float = 0.0, inner: float = 0.0, reach: float = 60.0) -> torch.Tensor:
    """(J, I) bool: a fan of 35 degrees either way about the middle of the top edge."""
    j, i = np.mgrid[:SIDE, :SIDE] + 0.5
    radius, angle = np.hypot(j - tip, i - SIDE / 2), np.arctan2(i - SIDE / 2, j - tip)
    return torch.from_numpy((radius >= inner) & (radius <= reach) & (abs(angle) <= math.radians(35)))


def clip(frames: int = 3) -> torch.Tensor:
    """(CASES, 1, frames, J, I): a bright fan with a black chamber, which moves."""
    brightness = torch.rand(CASES, 1, frames, 1, 1, generator=torch.Generator().manual_seed(torch_seed("fan")))
    picture = fan() * (0.5 + brightness / 3)
    for frame in range(frames):
        picture[:, :, frame, 20 + frame:34 + frame, 26:38] = 0
    return picture


def build(name: str, **settings):
    kind = TRANSFORMS[name]
    return kind(kind.Config(**settings))


def run(transform, batch: torch.Tensor) -> tuple[torch.Tensor, list[dict]]:
    draws = [transform.draw(stream("case", b), tuple(batch.shape[1:])) for b in range(len(batch))]
    return apply_draws(transform.apply, batch, draws), draws


def test_speckle_spares_black_and_differs_between_frames():
    batch = torch.full((1, 1, 3, 16, 16), 0.5)
    batch[..., :8] = 0
    result, _ = run(build("speckle", std=0.3), batch)
    assert (result[..., :8] == 0).all()
    assert not torch.equal(result[0, 0, 0], result[0, 0, 1])


@pytest.mark.parametrize("grain", [0.0, 1.0, 2.0])
def test_speckle_has_the_drawn_strength_and_grain(grain):
    batch = torch.full((2, 1, 256, 256), 0.5)
    for result, draw in zip(*run(build("speckle", std=0.2, grain=grain), batch), strict=True):
        noise = (result[0] / 0.5 - 1) / draw["std"]
        assert float(noise.std()) == pytest.approx(1, rel=0.05)
        for axis in (0, 1):
            neighbours = noise.narrow(axis, 0, 255) * noise.narrow(axis, 1, 255)
            expected = math.exp(-1 / (4 * grain**2)) if grain else 0  # of white noise smoothed by that Gaussian
            assert float(neighbours.mean() / noise.var()) == pytest.approx(expected, abs=0.03)


def test_depth_gain_rises_or_falls_with_the_rows_alike_in_every_frame():
    batch = torch.full((4, 1, 3, 9, 5), 0.5)
    for result, draw in zip(*run(build("depth_gain", slope=0.3), batch), strict=True):
        expected = 0.5 * torch.exp(draw["slope"] * torch.linspace(-1, 1, 9))
        torch.testing.assert_close(result, expected[:, None].expand(1, 3, 9, 5))


def test_gain_multiplies_the_echo_that_the_picture_shows_the_logarithm_of():
    amplitude = 10 ** torch.linspace(-2.9, -0.1, SIDE)  # -58 to -2 dB
    shown = 1 + 20 * amplitude.log10() / 60
    batch = shown[:, None].expand(4, 1, SIDE, SIDE).contiguous()
    for result, draw in zip(*run(build("gain", gain=12), batch), strict=True):
        louder = amplitude * 10 ** (draw["gain"] / 20)
        expected = (1 + 20 * louder.log10() / 60).clamp(0, 1)
        torch.testing.assert_close(result[0], expected[:, None].expand(SIDE, SIDE), atol=1e-5, rtol=0)


def test_gain_leaves_what_surrounds_the_fan_black():
    result, draws = run(build("gain", gain=12), clip())
    assert (result * ~fan() == 0).all()
    chamber = result[:, 0, 0, 25, 32]
    torch.testing.assert_close(chamber, torch.tensor([max(draw["gain"], 0) / 60 for draw in draws]), atol=1e-6, rtol=0)


@pytest.mark.parametrize("shape", [fan(), fan(tip=-20, inner=24, reach=80), fan(reach=50)])
def test_the_fan_is_found_with_a_tip_or_a_curved_probe_and_dark_chambers(shape):
    picture = shape * 0.5 + 0.01 * torch.rand(1, 2, 4, SIDE, SIDE, generator=torch.Generator().manual_seed(1))
    picture[..., 36:44, 28:36] = 0
    found = sector(picture)
    assert found.shape == (1, 1, 1, SIDE, SIDE)
    assert torch.equal(found[0, 0, 0], shape)
    picture[..., 30:, 30:36] = 0  # the shadow of a rib, to the far edge; and one from a side
    picture[..., 25:40, :24] = 0
    shadowed = sector(picture)[0, 0, 0]
    assert not (shadowed & ~shape).any()
    assert (shape & ~shadowed).sum() <= 0.01 * shape.sum()


def test_a_shadow_from_a_linear_probe_s_face_is_within_its_fan():
    picture = torch.zeros(1, 1, 1, SIDE, SIDE)
    picture[..., 4:60, 10:50] = 0.5
    picture[..., 30:36] = 0
    assert sector(picture)[0, 0, 0, 4:60, 10:50].all()


def views(spatial: dict, size=None) -> tuple[torch.Tensor, torch.Tensor, Batch]:
    image = clip()
    batch = Batch([f"case{b}" for b in range(CASES)], image, mask=(image[:, 0] > 0.1).long() + 1)
    made = ViewPolicy(PolicyConfig(size=size, spatial=SpatialConfig(**spatial)), ViewSpec(), seed=3)(batch)
    return made.images[0], made.mask, batch


def test_a_crop_is_a_smaller_depth_in_the_same_fan():
    """About its tip a fan without end is its own enlargement, so the outline is full and nothing else is lit."""
    seen, mask, _ = views({"scale": [0.3, 0.9], "keep_sector": True})
    outline = (seen[:, 0] > 0.02).any(1) | fan().expand(CASES, -1, -1)
    assert torch.equal(outline, fan().expand(CASES, -1, -1))
    rim = fan() & ~fan(reach=57)  # was the fan's far edge, now from its inside
    deep = (seen[:, 0, 0] > 0.3)[:, rim].float().mean(1)
    assert (deep > 0.97).all()
    assert (mask * ~fan() == 0).all()
    assert (mask > 0)[:, :, fan()].all()


def test_the_probe_s_axis_is_read_at_the_share_of_the_depth_that_was_drawn():
    image = torch.linspace(0.1, 0.9, SIDE)[:, None].expand(CASES, 1, SIDE, SIDE) * fan()
    policy = ViewPolicy(PolicyConfig(spatial=SpatialConfig(scale=(0.25, 0.81), keep_sector=True)), ViewSpec(), seed=3)
    seen = policy(Batch([f"case{b}" for b in range(CASES)], image)).images[0][:, 0, 8:56, SIDE // 2]
    slope = (seen[:, -1] - seen[:, 0]) / (image[0, 0, 55, SIDE // 2] - image[0, 0, 8, SIDE // 2])
    assert slope.min() >= 0.5  # a share 0.25 of the area is half the depth
    assert slope.max() <= 0.9
    assert slope.max() - slope.min() > 0.1
    start = 0.1 + (0.8 / (SIDE - 1)) * (1 + 7.5 * slope - 0.5)  # row 8 shows depth 1 + 7.5 z: the tip, row 1, stays
    torch.testing.assert_close(seen[:, 0], start, atol=1e-3, rtol=0)


def test_a_crop_of_another_ratio_about_a_probe_at_the_side_lies_within_the_picture():
    spatial = Spatial(SpatialConfig(scale=(0.3, 1.0), ratio=(0.4, 2.5), keep_sector=True), (SIDE, SIDE))
    for case in range(200):
        drawn = spatial.draw(stream("ratio", case), (1, 64, 96), probe=[0.0, 10.0])
        low, high = (drawn["centre"] + side * drawn["extent"] / 2 for side in (-1, 1))
        assert min(low) >= -1e-9
        assert (high <= np.array([64, 96]) + 1e-9).all()


def test_a_fan_below_a_margin_and_beside_the_middle_keeps_its_tip():
    image = torch.from_numpy(np.roll(fan(reach=45).numpy(), (9, 5), (0, 1))).float().expand(CASES, 1, SIDE, SIDE)
    policy = ViewPolicy(PolicyConfig(spatial=SpatialConfig(scale=(0.3, 0.5), keep_sector=True)), ViewSpec(), seed=3)
    for view in policy(Batch([f"case{b}" for b in range(CASES)], image)).images[0][:, 0]:
        first = view.amax(1).gt(0.3).nonzero().min()
        assert abs(int(first) - 10) <= 1  # row 1 of the fan
        columns = view[20].gt(0.5).nonzero().double()
        assert abs(float(columns.mean()) - (SIDE / 2 + 5 - 0.5)) <= 1


@pytest.mark.parametrize("spatial", [{"rotate": 20}, {"translate": 0.2}, {"flip": {"i": 1.0}}])
def test_no_geometry_leaves_the_fan_and_image_and_mask_leave_it_together(spatial):
    seen, mask, batch = views(spatial | {"keep_sector": True})
    free, free_mask, _ = views(spatial)
    inside = sector(batch.image)
    assert torch.equal(seen, free * inside)
    assert torch.equal(mask, free_mask * inside[:, 0])


def test_the_outline_follows_a_change_of_size():
    seen, mask, _ = views({"scale": [0.3, 0.9], "keep_sector": True}, size=(32, 32))
    smaller = torch.nn.functional.interpolate(fan()[None, None].float(), (32, 32), mode="area")[0, 0]
    assert seen.shape[-2:] == mask.shape[-2:] == (32, 32)
    assert (seen[..., smaller == 0] == 0).all()
    assert (mask[..., smaller == 1] > 0).all()


def test_a_volume_has_no_fan():
    with pytest.raises(ValueError, match="keep_sector"):
        SpatialConfig(axes="volume", keep_sector=True)
