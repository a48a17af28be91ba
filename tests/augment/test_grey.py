"""Sobel and the transforms of colour, against scipy, the formula of luma, and the standard library's colorsys."""

import colorsys

import numpy as np
import pytest
import torch
from drawing import build, draws_for, images, run
from scipy.ndimage import sobel

from medssl.augment import TRANSFORMS
from medssl.config import validate
from medssl.errors import ConfigError

SOBEL, DROP, COLOUR = TRANSFORMS["sobel"], TRANSFORMS["colour_drop"], TRANSFORMS["colour_jitter"]
LUMA = np.array([0.299, 0.587, 0.114])


@pytest.mark.parametrize(("shape", "axes", "acting"), [((2, 2, 20, 24), "plane", (0, 1)),
                                                       ((2, 2, 6, 14, 12), "plane", (1, 2)),
                                                       ((2, 2, 6, 14, 12), "volume", (0, 1, 2))])
def test_sobel_agrees_with_scipy(shape, axes, acting):
    transform, batch = build(SOBEL, 1.0, axes=axes), images(shape) * 5 - 2
    for sample, result, draw in zip(batch, run(transform, batch), draws_for(transform, batch), strict=True):
        for channel, found in zip(sample.numpy(), result.numpy(), strict=True):
            planes = channel if axes == "volume" or channel.ndim == 2 else list(channel)
            if isinstance(planes, list):  # slice by slice, which a filter along K would betray
                steep = np.stack([np.hypot(sobel(p, 0, mode="nearest"), sobel(p, 1, mode="nearest")) for p in planes])
            else:
                steep = np.sqrt(sum(sobel(planes, axis, mode="nearest") ** 2 for axis in acting))
            edges = channel.min() + np.ptp(channel) * steep / steep.max()
            np.testing.assert_allclose(found, channel + draw["share"] * (edges - channel), atol=1e-5)


def test_sobel_of_a_constant_image_is_that_image():
    flat = torch.full((2, 1, 6, 6), 0.3)
    assert torch.equal(run(build(SOBEL, 1.0), flat), flat)


def test_a_blend_s_share_lies_between_least_and_share():
    shares = [draw["share"] for draw in draws_for(build(SOBEL, 0.6, least=0.4), images((64, 1, 2, 2)))]
    assert 0.4 <= min(shares) < 0.42
    assert 0.58 < max(shares) <= 0.6
    with pytest.raises(ConfigError, match=r"least 0\.7 lies above share 0\.6"):
        validate(SOBEL.Config, {"share": 0.6, "least": 0.7}, "recipe")


def test_colour_drop_leaves_luma_in_all_channels():
    batch = images((2, 3, 5, 6))
    result = run(build(DROP, 1.0, least=1.0, weights=tuple(LUMA)), batch)
    luma = np.einsum("bcji,c->bji", batch.numpy(), LUMA)
    for channel in range(3):
        np.testing.assert_allclose(result[:, channel].numpy(), luma, atol=1e-6)


def test_colour_drop_of_contrasts_goes_the_drawn_way_to_their_mean():
    transform, batch = build(DROP, 0.8), images((3, 4, 5, 6, 4)) * 4 - 2
    for sample, result, draw in zip(batch.numpy(), run(transform, batch).numpy(), draws_for(transform, batch),
                                    strict=True):
        expected = (1 - draw["share"]) * sample + draw["share"] * sample.mean(axis=0)
        np.testing.assert_allclose(result, expected, atol=1e-6)


def turned(pixel: np.ndarray, hue: float, saturation: float) -> tuple[float, ...]:
    luma = float(pixel @ LUMA)
    h, s, v = colorsys.rgb_to_hsv(*np.clip(luma + saturation * (pixel - luma), 0, 1))
    return colorsys.hsv_to_rgb((h + hue) % 1, s, v)


@pytest.mark.parametrize("shape", [(8, 3, 6, 7), (4, 3, 2, 5, 6)])
def test_colour_jitter_agrees_with_colorsys(shape):
    transform, batch = COLOUR(COLOUR.Config(hue=0.5, saturation=0.9)), images(shape)
    batch[0, :, ..., 0] = 0.4  # grey has no hue
    batch[0, 1, ..., 1] = batch[0, 0, ..., 1]  # two largest, or two least, alike
    for sample, result, draw in zip(batch, run(transform, batch), draws_for(transform, batch), strict=True):
        expected = [turned(pixel, draw["hue"], draw["saturation"]) for pixel in sample.flatten(1).T.numpy()]
        np.testing.assert_allclose(result.flatten(1).T.numpy(), expected, atol=2e-6)


def test_half_a_turn_makes_red_cyan():
    config = COLOUR.Config(hue=0.5, saturation=0.0)
    red = torch.tensor([1.0, 0, 0]).reshape(1, 3, 1, 1)
    params = {"hue": torch.tensor([0.5]), "saturation": torch.tensor([1.0])}
    torch.testing.assert_close(COLOUR(config).apply(red, params).flatten(), torch.tensor([0.0, 1, 1]))


@pytest.mark.parametrize(("transform", "channels"), [(build(DROP, 0.5), 1), (build(COLOUR, 0.5), 1),
                                                     (build(COLOUR, 0.5), 4),
                                                     (build(DROP, 0.5, weights=(1, 2, 1)), 4)])
def test_images_without_the_colours_that_a_transform_needs_are_refused_with_a_remedy(transform, channels):
    with pytest.raises(ConfigError, match=rf"{channels} channel.*Expected .*Remedy"):
        run(transform, images((2, channels, 4, 4)))
