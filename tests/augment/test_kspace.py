"""Ghosting, ringing and motion against their formulas: shifted copies, a DFT written out, the image moved."""

import math

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from medssl.augment import TRANSFORMS, Transform
from medssl.augment.transform import Params, apply_draws, stack
from medssl.config import validate
from medssl.errors import ConfigError
from medssl.rng import stream, torch_seed

CASES = 6


def images(*shape: int) -> torch.Tensor:
    """Noise above air of 0, so that each channel's least value is known; never negative, so that nothing folds."""
    batch = torch.rand(shape, generator=torch.Generator().manual_seed(torch_seed("k-space")))
    batch.flatten(2)[:, :, 0] = 0
    return batch


def build(name: str, **settings) -> Transform:
    kind = TRANSFORMS[name]
    return kind(validate(kind.Config, settings, name))


def drawn(transform: Transform, shape: tuple[int, ...]) -> list[Params]:
    return [transform.draw(stream("case", b), shape) for b in range(CASES)]


def dft(size: int) -> tuple[np.ndarray, np.ndarray]:
    """The frequencies -N/2 .. N/2 - 1 and the matrix that takes N voxels to them."""
    k = np.arange(size) - size // 2
    return k, np.exp(-2j * np.pi * np.outer(k, np.arange(size)) / size)


@pytest.mark.parametrize("shape", [(CASES, 2, 24, 20), (CASES, 1, 3, 24, 20)])
def test_ghosts_are_shifted_copies_of_the_object(shape):
    transform, batch = build("ghosting", intensity=0.9, ghosts=[4, 4]), images(*shape)  # 4 divides both sides
    draws = drawn(transform, shape[1:])
    assert {draw["axis"] for draw in draws} == {-2, -1}
    for x, result, draw in zip(batch, apply_draws(transform.apply, batch, draws), draws, strict=True):
        axis, side, s = draw["axis"], x.shape[draw["axis"]], draw["intensity"]
        copies = sum(x.roll(n * side // 4, axis) for n in range(4)) / 4
        expected = (x - s * (copies - x.mean(axis, keepdim=True))).abs()
        torch.testing.assert_close(result, expected, atol=1e-5, rtol=0)


def test_ghosts_of_any_number_follow_the_comb_on_the_axis_asked_for():
    transform, batch = build("ghosting", intensity=1.0, ghosts=[3, 7], phase_encode=["j"]), images(CASES, 1, 23, 20)
    draws = drawn(transform, (1, 23, 20))
    k, matrix = dft(23)
    for x, result, draw in zip(batch, apply_draws(transform.apply, batch, draws), draws, strict=True):
        comb = 1 - draw["intensity"] * ((k % draw["ghosts"] == 0) & (k != 0))
        expected = np.linalg.inv(matrix) @ (comb[:, None] * (matrix @ x[0].numpy()))
        np.testing.assert_allclose(result[0], np.abs(expected), atol=1e-5)
    assert len({int(draw["ghosts"]) for draw in draws}) > 1


@pytest.mark.parametrize(("axes", "acting"), [("plane", (-2, -1)), ("volume", (-3, -2, -1))])
def test_ringing_is_the_cut_spectrum_s_image(axes, acting):
    transform, batch = build("gibbs", cut=0.8, axes=axes), images(CASES, 1, 9, 16, 14)
    draws = drawn(transform, (1, 9, 16, 14))
    for x, result, draw in zip(batch, apply_draws(transform.apply, batch, draws), draws, strict=True):
        expected = x[0].numpy().astype(complex)
        for axis in acting:
            k, matrix = dft(x.shape[axis])
            low = np.linalg.inv(matrix) @ np.diag(abs(k) <= (1 - draw["cut"]) * len(k) / 2) @ matrix
            expected = np.moveaxis(np.tensordot(low, expected, axes=(1, axis)), 0, axis)
        np.testing.assert_allclose(result[0], np.abs(expected), atol=1e-5)


def test_ringing_overshoots_an_edge_by_nine_percent_of_the_step():
    step = torch.zeros(1, 1, 4, 512)
    step[..., 128:384] = 1
    result = build("gibbs", cut=0.5).apply(step, {"cut": torch.tensor([0.9])})
    sine_integral = 1.0895  # 1/2 + Si(pi) / pi, Gibbs's constant
    assert float(result.max()) == pytest.approx(sine_integral, abs=0.01)
    assert float(result.mean()) == pytest.approx(0.5, abs=0.02)  # where it rings below air, the magnitude folds


def test_a_head_that_is_elsewhere_before_and_after_its_centre_lines_leaves_their_sum():
    """Each run of lines is the shifted image's own, whole voxels being a roll."""
    transform, batch = build("motion", translate=4, rotate=0, moves=2), images(CASES, 1, 20, 16)
    draws = drawn(transform, (1, 20, 16))
    for draw in draws:
        draw["shift"] = draw["shift"].round()
    for x, result, draw in zip(batch[:, 0].numpy(), apply_draws(transform.apply, batch, draws), draws, strict=True):
        axis = draw["axis"]
        k, matrix = dft(x.shape[axis])
        pose = ((k / len(k) + 0.5)[:, None] > draw["times"]).sum(1)
        spectra = [matrix @ np.moveaxis(np.roll(x, shift.astype(int), (0, 1)), axis, 0) for shift in draw["shift"]]
        mixed = np.stack([spectra[pose[line]][line] for line in range(len(k))])
        expected = np.abs(np.moveaxis(np.linalg.inv(matrix) @ mixed, 0, axis))
        np.testing.assert_allclose(result[0], expected, atol=1e-5)


def test_a_turn_is_the_turned_image_s_own_lines():
    batch, degrees = images(1, 2, 17, 17), 90.0
    params = stack([{"axis": -2, "times": np.array([0.3]), "shift": np.zeros((2, 2)),
                     "angle": np.radians([degrees, 0.0])}])
    result = build("motion", translate=0, rotate=90, moves=1).apply(batch, params)
    k, matrix = dft(17)
    turned = batch.rot90(-1, (2, 3))
    early = (k / 17 + 0.5 <= 0.3)[:, None]
    mixed = np.where(early, matrix @ turned.numpy(), matrix @ batch.numpy())
    assert 0 < early.sum() < 8
    np.testing.assert_allclose(result, np.abs(np.linalg.inv(matrix) @ mixed), atol=1e-4)


@pytest.mark.parametrize("moves", [1, 2, 5])
def test_the_centre_of_k_space_is_measured_in_the_image_s_own_pose(moves):
    transform = build("motion", translate=3, rotate=10, moves=moves)
    for draw in drawn(transform, (1, 16, 16)):
        centre = int((draw["times"] < 0.5).sum())
        moved = np.arange(moves + 1) != centre
        assert not draw["angle"][centre]
        assert not draw["shift"][centre].any()
        assert draw["angle"][moved].all()
        assert draw["shift"][moved].all()
        assert abs(draw["angle"]).max() <= math.radians(10)
        assert abs(draw["shift"]).max() <= 3


def test_a_smooth_head_stays_where_it_was_however_it_moves():
    """What the mask of a moved head relies on: its centre of mass stays within a fraction of the shift."""
    head = torch.zeros(CASES, 1, 48, 48)
    head[..., 14:32, 18:36] = 1
    head = torch.from_numpy(gaussian_filter(head.numpy(), 2, axes=(-2, -1)))
    transform = build("motion", translate=6, rotate=8)
    result = apply_draws(transform.apply, head, drawn(transform, (1, 48, 48)))
    best = [np.unravel_index(int(torch.fft.ifft2(torch.fft.fft2(a) * torch.fft.fft2(b).conj()).real.argmax()), (48, 48))
            for a, b in zip(result[:, 0], head[:, 0], strict=True)]
    assert all(min(n, 48 - n) <= 2 for place in best for n in place)


@pytest.mark.parametrize("name", ["ghosting", "gibbs", "motion"])
def test_spectra_of_bfloat16_are_computed_in_float32(name):
    kind = TRANSFORMS[name]
    settings = {field: 0.5 for field, info in kind.Config.model_fields.items() if info.is_required()}
    transform, batch = kind(kind.Config(**settings)), images(CASES, 1, 16, 16).bfloat16()
    draws = drawn(transform, (1, 16, 16))
    with torch.autocast("cpu", torch.bfloat16):
        result = apply_draws(transform.apply, batch, draws)
    torch.testing.assert_close(result, apply_draws(transform.apply, batch.float(), draws).bfloat16())


@pytest.mark.parametrize("settings", [{"ghosts": [6, 4]}, {"ghosts": [1, 4]}, {"phase_encode": []},
                                      {"phase_encode": ["k"]}, {"intensity": 1.5}])
def test_impossible_ghosts_are_refused(settings):
    with pytest.raises(ConfigError):
        build("ghosting", **{"intensity": 0.5} | settings)
