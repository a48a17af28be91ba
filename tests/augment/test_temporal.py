"""Time: rate, crop and phase against np.interp, forwards and inside the clip; and the whole way through a policy."""

import math
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest
import torch

from medssl.augment import PolicyConfig, SpatialConfig, Temporal, TemporalConfig, ViewPolicy
from medssl.augment.transform import apply_draws
from medssl.data.loader import BoxConfig
from medssl.data.source import DataConfig
from medssl.errors import ConfigError
from medssl.models.vit import ViT
from medssl.rng import stream, torch_seed
from medssl.train.build import fitted_encoder, view_size
from medssl.types import Batch, ViewSpec

CASES, FRAMES = 6, 20
JITTER = TemporalConfig(frames=8, speed=0.6, shift=1.0)


def clips(*shape: int) -> torch.Tensor:
    return torch.rand(shape or (CASES, 2, FRAMES, 5, 4), generator=torch.Generator().manual_seed(torch_seed("clips")))


def ramp() -> torch.Tensor:
    """Clips whose value is the frame's index."""
    return torch.arange(float(FRAMES))[:, None, None].expand(CASES, 1, FRAMES, 5, 4).contiguous()


def drawn(config: TemporalConfig, shape: tuple[int, ...] = (2, FRAMES, 5, 4), count: int = CASES) -> list:
    temporal = Temporal(config)
    return [temporal.draw(stream("case", b), shape) for b in range(count)]


def times(config: TemporalConfig, count: int = 400) -> np.ndarray:
    """(count, T'): when each frame of many views is read."""
    size = Temporal(config).output_size((FRAMES, 5, 4))[0]
    lines = [draw or {"start": 0.0, "speed": 1.0} for draw in drawn(config, count=count)]
    return np.array([line["start"] + line["speed"] * np.arange(size) for line in lines])


def test_the_default_leaves_clips_and_images_alone():
    temporal = Temporal(TemporalConfig())
    assert drawn(TemporalConfig()) == [None] * CASES
    assert temporal.output_size((20, 24)) == (20, 24)


def test_frames_are_read_linearly_in_time():
    draws, batch = drawn(JITTER), clips()
    result = apply_draws(Temporal(JITTER).apply, batch, draws)
    assert result.shape == (CASES, 2, 8, 5, 4)
    for x, new, draw in zip(batch.double().numpy(), result, draws, strict=True):
        when = draw["start"] + draw["speed"] * np.arange(8)
        expected = np.apply_along_axis(lambda series, t=when: np.interp(t, np.arange(FRAMES), series), 1, x)
        np.testing.assert_allclose(new, expected, atol=1e-5)


@pytest.mark.parametrize("config", [JITTER, TemporalConfig(speed=1.0), TemporalConfig(frames=19, speed=2.0, shift=1.0),
                                    TemporalConfig(frames=1, speed=0.5, shift=1.0), TemporalConfig(frames=20)])
def test_time_runs_forwards_and_stays_within_the_clip(config):
    when = times(config)
    assert when.min() >= 0
    assert when.max() <= FRAMES - 1 + 1e-9
    assert (np.diff(when) > 0).all()


def test_the_rate_is_drawn_between_its_bounds_and_as_often_slower_as_faster():
    when = times(TemporalConfig(frames=6, speed=0.6, shift=1.0))
    speed = when[:, 1] - when[:, 0]
    assert 1 / 1.6 <= speed.min() < 0.66
    assert 1.5 < speed.max() <= 1.6
    assert abs(np.log(speed).mean()) < 4 * math.log(1.6) / math.sqrt(3 * len(speed))


def test_a_view_of_every_frame_can_only_run_slower():
    speed = times(TemporalConfig(speed=0.6))[:, 1] - times(TemporalConfig(speed=0.6))[:, 0]
    assert 1 / 1.6 <= speed.min() < 0.66
    assert speed.max() <= 1
    assert speed.max() > 0.97


def test_a_phase_shift_alone_takes_whole_frames_each_start_as_often():
    when = times(TemporalConfig(frames=16, shift=1.0), count=1000)
    starts, counts = np.unique(when[:, 0], return_counts=True)
    assert starts.tolist() == [0, 1, 2, 3, 4]
    assert abs(counts - 200).max() < 4 * math.sqrt(200 * 0.8)
    half = np.unique(times(TemporalConfig(frames=16, shift=0.5))[:, 0])
    assert half.min() >= 1
    assert half.max() <= 3


def test_without_a_shift_the_view_is_the_clip_s_middle():
    assert (times(TemporalConfig(frames=10))[:, 0] == 5).all()
    jittered = times(TemporalConfig(frames=10, speed=0.3))
    np.testing.assert_allclose(jittered[:, 0] + jittered[:, -1], FRAMES - 1)


def test_labels_are_those_of_the_nearest_frame():
    draws, temporal = drawn(JITTER), Temporal(JITTER)
    labels = apply_draws(temporal.apply_labels, ramp()[:, 0].long(), draws)
    seen = apply_draws(temporal.apply, ramp(), draws)[:, 0]
    assert labels.dtype == torch.long
    assert labels.shape == seen.shape
    assert ((labels - seen).abs() <= 0.5 + 1e-5).all()
    assert labels.unique().numel() > 10


def batch_of(image: torch.Tensor) -> Batch:
    return Batch([f"case{b}" for b in range(len(image))], image, mask=image[:, 0].long(),
                 target=torch.arange(float(len(image))))


def test_two_views_of_a_clip_are_of_moments_of_their_own_and_the_mask_is_the_first_s():
    policy = ViewPolicy(PolicyConfig(temporal=JITTER), ViewSpec(count=2), seed=5)
    batch = batch_of(ramp())
    views = policy(batch)
    first, second = views.images
    assert first.shape == second.shape == (CASES, 1, 8, 5, 4)
    assert all(not torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert ((views.mask - first[:, 0]).abs() <= 0.5 + 1e-5).all()
    assert views.target is batch.target
    alone = policy(Batch(["case3"], batch.image[3:4]))
    torch.testing.assert_close(alone.images[0][0], first[3])


def test_time_leaves_the_draws_of_geometry_as_they_were():
    geometry = SpatialConfig(scale=(0.5, 0.9), rotate=10)
    still_frames = clips(CASES, 1, 1, 12, 12).expand(CASES, 1, FRAMES, 12, 12)
    timed, plain = (ViewPolicy(PolicyConfig(spatial=geometry, temporal=temporal), ViewSpec(), seed=5)
                    (batch_of(still_frames)).images[0] for temporal in (JITTER, TemporalConfig()))
    torch.testing.assert_close(timed, plain[:, :, :8])


def test_a_model_is_judged_on_the_middle_at_the_clip_s_own_rate():
    policy = ViewPolicy(PolicyConfig(temporal=JITTER).still(), ViewSpec(), seed=5)
    assert torch.equal(policy(batch_of(ramp())).images[0], ramp()[:, :, 6:14])


def data_of(kind: str, box: BoxConfig, shape: tuple[int, ...]) -> SimpleNamespace:
    cases = pl.DataFrame({"case_id": ["a"], "kind": [kind], "modality": ["OT"]})
    return SimpleNamespace(cases=cases, channels=1, dims=box.dims(kind), cache=SimpleNamespace(
        shape=lambda case: (1, *shape)), config=DataConfig(manifest="m.parquet", box=box))


def test_an_encoder_is_made_for_the_view_s_frames():
    data = data_of("cine", BoxConfig(size=(20, 32, 32)), (60, 32, 32))
    assert view_size(data, PolicyConfig(temporal=JITTER)) == (8, 32, 32)
    assert view_size(data, PolicyConfig(temporal=JITTER, size=(16, 16))) == (8, 16, 16)
    vit = ViT.Config(size=(20, 32, 32), patch=(2, 8, 8), width=12, depth=1, heads=1)
    assert fitted_encoder(vit, data, PolicyConfig(temporal=JITTER)).config.size == (8, 32, 32)


@pytest.mark.parametrize("kind", ["volume", "image"])
def test_a_volume_s_slices_are_no_time(kind):
    data = data_of(kind, BoxConfig(), (20, 32, 32)[-3 if kind == "volume" else -2:])
    with pytest.raises(ConfigError, match=f"each case is one {kind}"):
        fitted_encoder(ViT.Config(), data, PolicyConfig(temporal=JITTER))


def test_time_is_refused_where_there_is_none_or_too_little():
    with pytest.raises(ConfigError, match="2 axes"):
        ViewPolicy(PolicyConfig(temporal=JITTER), ViewSpec(), seed=0)(batch_of(clips(2, 1, 8, 8)))
    with pytest.raises(ConfigError, match="boxes have 6 frames"):
        ViewPolicy(PolicyConfig(temporal=JITTER), ViewSpec(), seed=0)(batch_of(clips(2, 1, 6, 8, 8)))
    with pytest.raises(ConfigError, match=r"shift is 1, but views of 6 frames.*Remedy: set augment\.temporal\.frames"):
        ViewPolicy(PolicyConfig(temporal=TemporalConfig(shift=1.0)), ViewSpec(), seed=0)(batch_of(clips(2, 1, 6, 8, 8)))
    with pytest.raises(ValueError, match=r"spatial\.axes is plane"):
        PolicyConfig(temporal=JITTER, spatial=SpatialConfig(axes="volume"))
