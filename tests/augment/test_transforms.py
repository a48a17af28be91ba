"""What holds for every transform in the table, by no name; then what each one promises."""

import math

import numpy as np
import pytest
import torch
from drawing import build, draws_for, example, images, run
from pydantic import ValidationError
from scipy.ndimage import gaussian_filter

from medssl.augment import TRANSFORMS, PolicyConfig, ViewPolicy
from medssl.augment.transform import apply_draws
from medssl.errors import ConfigError
from medssl.rng import stream
from medssl.types import Batch, ViewSpec

SHAPES = {"image": (4, 1, 20, 24), "picture": (4, 3, 20, 24), "volume": (4, 2, 8, 12, 10)}
KINDS = TRANSFORMS | {"example": example()}
EVERY = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
OF_THE_TABLE = pytest.mark.parametrize("kind", TRANSFORMS.values(), ids=TRANSFORMS)
SHAPED = pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)


def fits(kind, shape: tuple[int, ...]) -> bool:
    """Whether the transform takes images of this shape. One that does not says so as it draws."""
    try:
        build(kind, 0.0).draw(stream("fits"), shape[1:])
    except ConfigError:
        return False
    return True


def images_for(kind, shape: tuple[int, ...]) -> torch.Tensor:
    if not fits(kind, shape):
        pytest.skip("this transform is for images of another shape")
    return images(shape)


@EVERY
@SHAPED
def test_zero_strength_is_the_identity(kind, shape):
    batch = images_for(kind, shape)
    torch.testing.assert_close(run(build(kind, 0.0), batch), batch, atol=1e-6, rtol=0)


@EVERY
@SHAPED
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_strength_changes_the_images_but_not_their_shape_type_or_source(kind, shape, dtype):
    batch = images_for(kind, shape).to(dtype)
    before = batch.clone()
    result = run(build(kind, 0.5), batch)
    assert result.shape == batch.shape
    assert result.dtype == dtype
    assert result.isfinite().all()
    assert torch.equal(batch, before)
    assert (result != batch).flatten(1).any(1).sum() >= 2  # a draw may come near zero


@EVERY
@SHAPED
def test_a_sample_is_changed_alike_whatever_stands_beside_it(kind, shape):
    transform, batch = build(kind, 0.5), images_for(kind, shape)
    draws = draws_for(transform, batch)
    together = apply_draws(transform.apply, batch, draws)
    assert torch.equal(together, apply_draws(transform.apply, batch, draws)), "apply must be deterministic"
    for b in range(len(batch)):
        alone = apply_draws(transform.apply, batch[b:b + 1], draws[b:b + 1])
        torch.testing.assert_close(alone[0], together[b], atol=1e-6, rtol=0)
    backwards = apply_draws(transform.apply, batch.flip(0), draws[::-1])
    torch.testing.assert_close(backwards.flip(0), together, atol=1e-6, rtol=0)


@OF_THE_TABLE
def test_probability_spares_samples_bit_for_bit(kind):
    shape = next(shape for shape in SHAPES.values() if fits(kind, shape))
    batch = Batch([f"case{b}" for b in range(64)], images((64, *shape[1:])))
    config = build(kind, 0.5, probability=0.25).config
    (view,) = ViewPolicy(PolicyConfig(intensity=[config]), ViewSpec(), seed=1)(batch).images
    spared = sum(torch.equal(new, old) for new, old in zip(view, batch.image, strict=True))
    assert 36 <= spared <= 60  # 48 expected, standard deviation 3.5


@OF_THE_TABLE
def test_the_table_s_name_is_the_recipe_s_name(kind):
    assert TRANSFORMS[build(kind, 0.0).config.name] is kind


@EVERY
def test_strengths_are_not_negative(kind):
    with pytest.raises(ValidationError):
        build(kind, -0.1)


def test_jitter_scales_about_the_mean_and_clips():
    transform = TRANSFORMS["jitter"](TRANSFORMS["jitter"].Config(brightness=0.7, contrast=0.7))
    batch = images((8, 1, 16, 16))
    draws = draws_for(transform, batch)
    assert all(0.3 <= value <= 1.7 for draw in draws for value in draw.values())
    for sample, result, draw in zip(batch.numpy(), run(transform, batch).numpy(), draws, strict=True):
        contrasted = sample.mean() + draw["contrast"] * (sample - sample.mean())
        np.testing.assert_allclose(result, np.clip(draw["brightness"] * contrasted, 0, 1), atol=1e-6)


def test_a_range_to_clip_to_that_is_upside_down_is_an_error():
    with pytest.raises(ValidationError, match=r"clip must be \[lowest, highest\]"):
        TRANSFORMS["jitter"].Config(brightness=0.5, contrast=0.5, clip=(1, 0))


def test_jitter_without_clipping_leaves_the_range():
    config = TRANSFORMS["jitter"].Config(brightness=1.0, contrast=0.0, clip=None)
    assert run(TRANSFORMS["jitter"](config), images((16, 1, 16, 16))).max() > 1.2


def test_gamma_keeps_each_channel_s_range_and_order():
    batch = images((4, 2, 8, 8)) * 6 - 3
    result = run(build(TRANSFORMS["gamma"], 0.5), batch)
    for find in (torch.amin, torch.amax):
        torch.testing.assert_close(find(result, dim=(2, 3)), find(batch, dim=(2, 3)))
    assert torch.equal(result.flatten(2).argsort(), batch.flatten(2).argsort())


def test_gamma_of_a_constant_image_is_that_image():
    flat = torch.full((1, 1, 4, 4), 0.3)
    assert torch.equal(run(build(TRANSFORMS["gamma"], 0.5), flat), flat)


def test_noise_has_the_drawn_standard_deviation_and_no_mean():
    transform, batch = build(TRANSFORMS["noise"], 0.5), torch.zeros(4, 1, 128, 128)
    for result, draw in zip(run(transform, batch), draws_for(transform, batch), strict=True):
        assert float(result.std()) == pytest.approx(draw["std"], rel=0.03)
        assert abs(float(result.mean())) < 4 * draw["std"] / 128


@pytest.mark.parametrize(("shape", "axes", "acting"), [((2, 1, 20, 24), "plane", (1, 2)),
                                                       ((2, 1, 9, 14, 12), "plane", (2, 3)),
                                                       ((2, 1, 9, 14, 12), "volume", (1, 2, 3))])
def test_blur_agrees_with_scipy(shape, axes, acting):
    transform, batch = build(TRANSFORMS["blur"], 1.5, axes=axes), images(shape)
    for sample, result, draw in zip(batch.numpy(), run(transform, batch).numpy(), draws_for(transform, batch),
                                    strict=True):
        radius = math.ceil(3 * draw["sigma"])
        expected = gaussian_filter(sample, draw["sigma"], mode="nearest", radius=radius, axes=acting)
        np.testing.assert_allclose(result, expected, atol=1e-5)


@pytest.mark.parametrize("axes", ["plane", "volume"])
def test_cutout_replaces_one_box_by_the_mean(axes):
    transform, batch = build(TRANSFORMS["cutout"], 0.8, axes=axes), images((6, 2, 10, 16, 18))
    result = run(transform, batch)
    for sample, new, draw in zip(batch, result, draws_for(transform, batch), strict=True):
        changed = (sample != new)[0]
        assert torch.equal(changed, (sample != new)[1])
        rows = changed.any(0) if axes == "plane" else changed
        assert rows.sum() <= np.prod(2 * draw["half"] * np.array(rows.shape) + 1)
        torch.testing.assert_close(new[:, changed], sample.mean((1, 2, 3))[:, None].expand_as(new[:, changed]))
        if axes == "plane":
            assert (changed == changed[0]).all(), "a clip loses the same place in every frame"
