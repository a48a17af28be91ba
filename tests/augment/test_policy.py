"""Recipes become views: reproducible, of the asked size and count, from YAML that is checked."""

import time

import pytest
import torch
import yaml

from medssl.augment import BlockMask, PolicyConfig, ViewPolicy, policy
from medssl.config import validate
from medssl.errors import ConfigError
from medssl.rng import torch_seed
from medssl.types import Batch, ViewSpec

SIAUG = """
size: [24, 24]
spatial:
  scale: [0.3, 0.9]
  ratio: [0.75, 1.3333]
intensity:
  - {name: jitter, brightness: 0.7, contrast: 0.7}
"""
BRATS = """
size: [8, 16, 16]
spatial: {axes: volume, scale: [0.5, 1.0], rotate: 15, flip: {k: 0.5, j: 0.5, i: 0.5}}
intensity:
  - {name: bias_field, strength: 0.3, probability: 0.5}
  - {name: noise, std: 0.1, probability: 0.5}
  - {name: scale_shift, scale: 0.1, shift: 0.1}
"""
ECHO = """
size: [16, 16]
spatial: {rotate: 10, translate: 0.1, scale: [0.7, 1.0]}
intensity:
  - {name: speckle, std: 0.2}
  - {name: depth_gain, slope: 0.3}
  - {name: blur, sigma: 1.0, probability: 0.3}
"""
RECIPES = {"siaug": (SIAUG, (1, 30, 28)), "brats": (BRATS, (4, 10, 20, 18)), "echo": (ECHO, (1, 6, 20, 20))}
EVERY = pytest.mark.parametrize(("recipe", "shape"), RECIPES.values(), ids=RECIPES)


def config(recipe: str) -> PolicyConfig:
    return validate(PolicyConfig, yaml.safe_load(recipe), "recipe.yaml")


def batch_of(shape: tuple[int, ...], cases: int = 4, epochs: list[int] | None = None) -> Batch:
    image = torch.rand(cases, *shape, generator=torch.Generator().manual_seed(torch_seed("policy")))
    return Batch([f"case{b}" for b in range(cases)], image, mask=(image[:, 0] * 3).long(),
                 target=torch.arange(float(cases)), epochs=epochs or [0] * cases)


def choose(batch: Batch, order: list[int]) -> Batch:
    return Batch([batch.case_ids[b] for b in order], batch.image[order], mask=batch.mask[order],
                 target=batch.target[order], epochs=[batch.epochs[b] for b in order])


@EVERY
def test_the_default_policy_gives_the_batch_itself(recipe, shape):
    batch = batch_of(shape)
    views = ViewPolicy(PolicyConfig(), ViewSpec(count=2), seed=0)(batch)
    assert all(torch.equal(image, batch.image) for image in views.images)
    assert torch.equal(views.mask, batch.mask)
    assert views.target is batch.target
    assert views.drawn == {}


@EVERY
@pytest.mark.parametrize("order", [[2], [3, 1], [3, 2, 1, 0]])
def test_a_case_s_views_do_not_depend_on_its_batch(recipe, shape, order):
    batch = batch_of(shape)
    tiles = BlockMask(0.75, (2, 8, 8)[-len(shape) + 1:])
    policy = ViewPolicy(config(recipe), ViewSpec(count=2, draw=tiles.draw), seed=7)
    whole, part = policy(batch), policy(choose(batch, order))
    for all_of, some in zip(whole.images, part.images, strict=True):
        torch.testing.assert_close(some, all_of[order], atol=1e-6, rtol=0)
    assert torch.equal(part.mask, whole.mask[order])
    assert torch.equal(part.drawn["hidden"], whole.drawn["hidden"][order])


@EVERY
@pytest.mark.parametrize("samples", [1, 3])
def test_views_are_the_same_however_few_samples_a_cpu_does_at_a_time(recipe, shape, samples, monkeypatch):
    batch, make = batch_of(shape), ViewPolicy(config(recipe), ViewSpec(count=2), seed=7)
    whole = make(batch)
    monkeypatch.setattr(policy, "CACHED", samples * batch.image[0].numel())
    for few, all_at_once in zip(make(batch).images, whole.images, strict=True):
        torch.testing.assert_close(few, all_at_once, atol=1e-6, rtol=0)


@EVERY
def test_views_differ_by_index_epoch_and_seed_and_repeat_otherwise(recipe, shape):
    policy = ViewPolicy(config(recipe), ViewSpec(count=2), seed=7)
    first, second = policy(batch_of(shape)).images
    assert torch.equal(first, policy(batch_of(shape)).images[0])
    later = policy(batch_of(shape, epochs=[0, 0, 1, 1])).images[0]
    other = ViewPolicy(config(recipe), ViewSpec(), seed=8)(batch_of(shape)).images[0]
    for b in range(4):
        assert not torch.equal(first[b], second[b])
        assert torch.equal(first[b], later[b]) == (b < 2)
        assert not torch.equal(first[b], other[b])


@EVERY
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_views_have_the_asked_size_and_the_images_type(recipe, shape, dtype):
    batch = batch_of(shape)
    batch.image = batch.image.to(dtype)
    size = config(recipe).size
    views = ViewPolicy(config(recipe), ViewSpec(), seed=7)(batch)
    assert views.images[0].dtype == dtype
    assert views.images[0].shape == (4, *shape[:-len(size)], *size)
    assert views.mask.shape == (4, *shape[1:-len(size)], *size)
    assert views.mask.dtype == torch.long


def test_the_mask_follows_view_0():
    batch = batch_of((1, 40, 40))
    batch.image = torch.zeros(4, 1, 40, 40)
    batch.image[..., 12:28, 10:30] = 1
    batch.mask = batch.image[:, 0].long()
    geometry = config(SIAUG).model_copy(update={"intensity": ()})
    views = ViewPolicy(geometry, ViewSpec(count=2), seed=7)(batch)
    agree = [((image[:, 0] > 0.5) == (views.mask == 1)).float().mean() for image in views.images]
    assert agree[0] > 0.97
    assert agree[1] < agree[0]


@pytest.mark.parametrize(("ratio", "count"), [(0.0, 0), (0.75, 7), (1.0, 9)])
def test_hidden_blocks_are_counted_on_the_view_s_grid(ratio, count):
    views = ViewPolicy(config(SIAUG), ViewSpec(draw=BlockMask(ratio, (8, 8)).draw), seed=7)(batch_of((1, 30, 28)))
    assert views.drawn["hidden"].shape == (4, 9)
    assert views.drawn["hidden"].sum(1).tolist() == [count] * 4


def test_hidden_blocks_stay_the_same_when_the_augmentation_changes():
    spec = ViewSpec(draw=BlockMask(0.5, (8, 8)).draw)
    plain = ViewPolicy(PolicyConfig(size=(24, 24)), spec, seed=7)(batch_of((1, 30, 28)))
    other = ViewPolicy(config(SIAUG), spec, seed=7)(batch_of((1, 30, 28)))
    assert torch.equal(plain.drawn["hidden"], other.drawn["hidden"])


def test_a_batch_without_epochs_is_of_epoch_0():
    policy, batch = ViewPolicy(config(SIAUG), ViewSpec(), seed=7), batch_of((1, 30, 28))
    unnamed = Batch(batch.case_ids, batch.image)
    assert torch.equal(policy(unnamed).images[0], policy(batch).images[0])
    assert policy(unnamed).mask is None


def test_all_mistakes_of_a_policy_are_reported_with_the_nearest_right_key():
    recipe = SIAUG.replace("contrast:", "contrsat:").replace("scale:", "scael:")
    with pytest.raises(ConfigError) as error:
        config(recipe)
    assert "did you mean 'contrast'?" in str(error.value)
    assert "did you mean 'scale'?" in str(error.value)
    with pytest.raises(ConfigError, match=r"spatial\.scale: should be a list, in brackets \(got 0\.5\)"):
        config(SIAUG.replace("[0.3, 0.9]", "0.5"))
    with pytest.raises(ConfigError, match=r"has 1 mistake:\n.*phase_encode.*'j' or 'i' \(got 'k'\)"):
        config(SIAUG.replace("jitter, brightness: 0.7, contrast: 0.7", "ghosting, intensity: 0.5, phase_encode: [k]"))
    with pytest.raises(ConfigError, match="phase_encode: name one axis or more"):
        config(SIAUG.replace("jitter, brightness: 0.7, contrast: 0.7", "ghosting, intensity: 0.5, phase_encode: []"))
    with pytest.raises(ConfigError, match="jitter"):
        config(SIAUG.replace("name: jitter", "name: jiter"))
    with pytest.raises(ConfigError, match="required, but not given"):
        config(SIAUG.replace(", contrast: 0.7", ""))


def test_views_that_blocks_do_not_tile_are_an_error():
    with pytest.raises(ConfigError, match="not tiled"):
        ViewPolicy(config(SIAUG), ViewSpec(draw=BlockMask(0.75, (16, 16)).draw), seed=7)(batch_of((1, 30, 28)))


def test_throughput_is_printed(capsys):
    policy = ViewPolicy(config(SIAUG.replace("24, 24", "96, 96")), ViewSpec(count=2), seed=7)
    batch = batch_of((1, 112, 112), cases=128)
    policy(batch)
    start = time.perf_counter()
    views = policy(batch)
    took = time.perf_counter() - start
    with capsys.disabled():
        print(f"\n  two views of 128 images of 96 x 96, crop and jitter: {1000 * took:.0f} ms")
    assert [image.shape for image in views.images] == [(128, 1, 96, 96)] * 2
