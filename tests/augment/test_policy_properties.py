"""What holds for any geometry and for every transform of the table together, whatever is drawn."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from medssl.augment import TRANSFORMS, PolicyConfig, SpatialConfig, ViewPolicy
from medssl.data.loader import Loader
from medssl.data.source import DataConfig, open_data
from medssl.errors import ConfigError
from medssl.rng import torch_seed
from medssl.types import Batch, ViewSpec

QUICK = settings(max_examples=25, deadline=None)
PLANES = st.tuples(st.integers(1, 40), st.integers(1, 40))
VOLUMES = st.tuples(st.integers(1, 12), st.integers(1, 24), st.integers(1, 24))
SEEDS = st.integers(0, 2**31)


def images(*shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(torch_seed("images", *shape)))


def everything(image: torch.Tensor, probability: float) -> tuple:
    """Every transform of the table that takes such images, (B, C, *S), at a typical strength."""
    configs = [kind.Config(**kind.Config.typical(), probability=probability) for kind in TRANSFORMS.values()]
    return tuple(config for config in configs if _takes(config, image))


def _takes(config, image: torch.Tensor) -> bool:
    try:
        ViewPolicy(PolicyConfig(intensity=[config]), ViewSpec(), 0)(Batch(["a"] * len(image), image))
    except ConfigError:
        return False
    return True


@st.composite
def geometry(draw, axes: str) -> SpatialConfig:
    shares = sorted(draw(st.tuples(st.floats(0.2, 1), st.floats(0.2, 1))))
    flips = st.dictionaries(st.sampled_from("kji" if axes == "volume" else "ji"), st.floats(0, 1))
    return SpatialConfig(
        axes=axes, scale=tuple(shares), ratio=draw(st.sampled_from([(1.0, 1.0), (0.75, 1.33)])),
        rotate=draw(st.sampled_from([0, 10, 180])), translate=draw(st.sampled_from([0, 0.3])), flip=draw(flips),
        padding=draw(st.sampled_from(["zero", "border"])), probability=draw(st.floats(0, 1)))


@QUICK
@given(size=PLANES | VOLUMES, seed=SEEDS, chance=st.floats(0, 1), data=st.data())
def test_flips_done_twice_give_image_and_mask_back_bit_for_bit(size, seed, chance, data):
    axes = "kji" if len(size) == 3 else "ji"
    flip = dict.fromkeys(data.draw(st.sets(st.sampled_from(axes))), chance)
    spatial = SpatialConfig(axes="volume" if len(size) == 3 else "plane", flip=flip)
    policy = ViewPolicy(PolicyConfig(spatial=spatial), ViewSpec(), seed)
    batch = Batch(["a", "b", "c"], images(3, 2, *size), mask=(images(3, *size) * 5).long())
    once = policy(batch)
    again = policy(Batch(batch.case_ids, once.images[0], mask=once.mask))
    assert torch.equal(again.images[0], batch.image)
    assert torch.equal(again.mask, batch.mask)


@pytest.mark.parametrize("size", [(31, 26), (9, 20, 17)], ids=["image", "volume"])
@QUICK
@given(data=st.data(), seed=SEEDS)
def test_a_mask_stays_with_what_it_marks_under_any_geometry_and_every_transform(size, data, seed):
    """A mask that is a threshold of the image still is, save nearer to the threshold than neighbours differ."""
    spatial = data.draw(geometry("volume" if len(size) == 3 else "plane"))
    waves = [torch.sin(torch.linspace(0.5 + n, 5 + n, side)) for n, side in enumerate(size)]
    image = sum(wave.reshape(-1, *[1] * (len(size) - 1 - n)) for n, wave in enumerate(waves)) / (2 * len(size)) + 0.5
    step = sum(image.diff(dim=axis).abs().max() for axis in range(len(size)))
    batch = Batch(["a", "b"], image.expand(2, 1, *size), mask=(image > 0.55).long().expand(2, *size))
    views = ViewPolicy(PolicyConfig(spatial=spatial), ViewSpec(), seed)(batch)
    clear = (views.images[0][:, 0] - 0.55).abs() > step
    assert torch.equal((views.images[0][:, 0] > 0.55)[clear], (views.mask == 1)[clear])
    assert clear.float().mean() > 0.2

    policy = PolicyConfig(spatial=spatial, intensity=everything(batch.image, 1.0))
    greys = ViewPolicy(policy, ViewSpec(), seed)(batch)
    assert torch.equal(greys.mask, views.mask)
    assert not torch.equal(greys.images[0], views.images[0])


def test_a_case_s_view_is_the_same_whatever_the_workers_the_order_and_the_batch(discs: DataConfig):
    data = open_data(discs)
    ids = data.cases["case_id"].to_list()[:12]
    spatial = SpatialConfig(scale=(0.5, 1.0), rotate=20, flip={"i": 0.5})
    policy = ViewPolicy(PolicyConfig(spatial=spatial, intensity=everything(images(1, 1, 24, 24), 0.5)), ViewSpec(), 3)

    def views(batch_size: int, seed: int, workers: int) -> dict:
        loader = Loader(data.cache, ids, discs.box, batch_size, seed, with_mask=True)
        found = {}
        for batch in loader.batches(0, 24 // batch_size, workers):  # two passes
            made = policy(batch)
            found |= {key: (image, mask) for key, image, mask in
                      zip(zip(batch.epochs, batch.case_ids, strict=True), made.images[0], made.mask, strict=True)}
        return found

    plain = views(4, 0, workers=0)
    assert len(plain) == 24
    rounding = 1e-4  # products and Fourier transforms of other batch sizes sum in another order
    for other, apart in ((views(4, 0, workers=2), 0), (views(6, 1, workers=0), rounding), (views(1, 2, 0), rounding)):
        assert other.keys() == plain.keys()
        for key, (image, mask) in other.items():
            torch.testing.assert_close(image, plain[key][0], atol=apart, rtol=0)
            assert torch.equal(mask, plain[key][1])
