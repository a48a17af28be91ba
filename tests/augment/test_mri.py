"""What magnetic resonance does to grey values, each against its formula."""

import math

import numpy as np
import pytest
import torch

from medssl.augment import TRANSFORMS
from medssl.augment.transform import apply_draws, stack
from medssl.errors import ConfigError
from medssl.rng import stream, torch_seed


def images(*shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(torch_seed("mri")))


def build(name: str, **settings):
    kind = TRANSFORMS[name]
    return kind(kind.Config(**settings))


def run(transform, batch: torch.Tensor) -> tuple[torch.Tensor, list[dict]]:
    draws = [transform.draw(stream("case", b), tuple(batch.shape[1:])) for b in range(len(batch))]
    return apply_draws(transform.apply, batch, draws), draws


def test_bias_field_is_smooth_alike_for_channels_and_leaves_air():
    batch = images(3, 2, 12, 14, 10) + 0.1
    batch[:, :, 0] = 0
    result, _ = run(build("bias_field", strength=0.5, air=0.0), batch)
    gain = result[:, :, 1:] / batch[:, :, 1:]
    assert (result[:, :, 0] == 0).all()
    torch.testing.assert_close(gain[:, 0], gain[:, 1])
    assert gain.min() > 0
    fourth = gain.double().log().diff(dim=-1, n=4)  # of a cubic: none
    assert fourth.abs().max() < 1e-5


def test_bias_field_is_the_exponential_of_the_drawn_polynomial():
    batch = images(4, 1, 9, 7) + 1
    result, draws = run(build("bias_field", strength=0.5, order=2, air=0.0), batch)
    j, i = np.meshgrid(np.linspace(-1, 1, 9), np.linspace(-1, 1, 7), indexing="ij")
    for x, new, draw in zip(batch, result, draws, strict=True):
        c = draw["coefficients"]
        log = c[1, 0] * j + c[0, 1] * i + c[1, 1] * j * i + c[2, 0] * j**2 + c[0, 2] * i**2
        np.testing.assert_allclose(new[0], x[0].numpy() * np.exp(log), rtol=1e-5)


def test_rician_noise_of_air_has_rayleigh_s_mean():
    batch = torch.full((3, 1, 128, 128), -2.0)
    for result, draw in zip(*run(build("rician", std=0.5), batch), strict=True):
        assert float(result.mean()) + 2 == pytest.approx(draw["std"] * math.sqrt(math.pi / 2), rel=0.02)
        assert result.min() >= -2


def test_rician_noise_of_a_signal_has_rice_s_second_moment():
    batch = torch.full((3, 1, 128, 128), 1.0)
    batch[..., 0, 0] = 0
    for result, draw in zip(*run(build("rician", std=0.5), batch), strict=True):
        assert float(result.square().mean()) == pytest.approx(1 + 2 * draw["std"] ** 2, rel=0.02)


def test_scale_shift_draws_for_each_channel():
    batch = images(2, 3, 6, 6)
    result, draws = run(build("scale_shift", scale=0.1, shift=0.1), batch)
    params = stack(draws)
    expected = batch * params["scale"][..., None, None].float() + params["shift"][..., None, None].float()
    torch.testing.assert_close(result, expected)
    assert params["scale"].shape == (2, 3)
    assert len(params["scale"].unique()) == 6


def thick(x: np.ndarray, axis: int, factor: float) -> np.ndarray:
    """Means over round(N / factor) equal parts of an axis, from its running integral; then linear between centres."""
    size = x.shape[axis]
    count = round(size / factor)
    edges = np.linspace(0, size, count + 1)

    def along(line: np.ndarray) -> np.ndarray:
        integral = np.interp(edges, np.arange(size + 1), np.concatenate([[0], line.cumsum()]))
        return np.interp(np.arange(size) + 0.5, (edges[1:] + edges[:-1]) / 2, np.diff(integral) / (size / count))

    return np.apply_along_axis(along, axis, x)


@pytest.mark.parametrize("shape", [(8, 2, 19, 16), (8, 1, 11, 19, 16)])
def test_anisotropy_averages_over_thick_voxels_of_one_axis(shape):
    batch = images(*shape)
    result, draws = run(build("anisotropy", thickening=4), batch)
    assert {draw["axis"] for draw in draws} == set(range(2 - len(shape), 0))
    for x, new, draw in zip(batch.double().numpy(), result, draws, strict=True):
        np.testing.assert_allclose(new, thick(x, draw["axis"], draw["factor"]), atol=1e-5)


def test_anisotropy_leaves_what_has_no_structure_and_may_thicken_beyond_the_axis():
    flat = torch.full((2, 1, 6, 5), 0.3)
    result, _ = run(build("anisotropy", thickening=100), flat)
    torch.testing.assert_close(result, flat)


def test_anisotropy_of_slices_only_is_refused_for_images():
    with pytest.raises(ConfigError, match=r"expected: volumes|volumes \(K, J, I\)"):
        run(build("anisotropy", thickening=1, axes=("k",)), images(1, 1, 8, 8))
