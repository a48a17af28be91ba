"""CT transforms against HU that are windowed anew, and slices that are averaged one by one."""

import numpy as np
import pytest
import torch
from drawing import build, draws_for, images, run

from medssl.augment import TRANSFORMS
from medssl.config import validate
from medssl.data.intensity import map_intensity
from medssl.errors import ConfigError
from medssl.io.intensity import voi_window

WINDOW, SHIFT, THICKNESS = (TRANSFORMS[name] for name in ("hu_window", "hu_shift", "slice_thickness"))
SOFT_TISSUE = (-160.0, 240.0)


def scan() -> tuple[np.ndarray, torch.Tensor]:
    """HU from air to bone, far beyond the window on both sides, and the batch that prepare makes of them."""
    hu = images((12, 1, 3, 10, 10)).numpy() * 2000 - 1000
    return hu, torch.from_numpy(map_intensity(hu, "window", SOFT_TISSUE))


def within(hu: np.ndarray) -> np.ndarray:
    return (hu > SOFT_TISSUE[0]) & (hu < SOFT_TISSUE[1])


def test_hu_shift_is_a_shift_of_hu_before_the_window():
    (hu, batch), transform = scan(), SHIFT(SHIFT.Config(shift=30, window=SOFT_TISSUE))
    draws = draws_for(transform, batch)
    for before, after, old, draw in zip(hu, run(transform, batch).numpy(), batch.numpy(), draws, strict=True):
        shifted = map_intensity(before + draw["shift"] * 400, "window", SOFT_TISSUE)
        np.testing.assert_allclose(after, np.where(within(before), shifted, old), atol=1e-5)
    reach = [draw["shift"] * 400 for draw in draws]
    assert -30 <= min(reach) < -10
    assert 10 < max(reach) <= 30


def test_hu_window_shows_the_same_hu_through_another_window():
    (hu, batch), transform = scan(), WINDOW(WINDOW.Config(centre=40, width=0.5, window=SOFT_TISSUE))
    draws = draws_for(transform, batch)
    for before, after, old, draw in zip(hu, run(transform, batch).numpy(), batch.numpy(), draws, strict=True):
        shown = voi_window(before, 40 + draw["centre"] * 400, 400 * draw["width"], "LINEAR_EXACT")
        np.testing.assert_allclose(after, np.where(within(before), shown, old), atol=1e-5)
    assert max(abs(draw["centre"] * 400) for draw in draws) <= 40
    assert 1 / 1.5 <= min(draw["width"] for draw in draws) < 1 < max(draw["width"] for draw in draws) <= 1.5


@pytest.mark.parametrize("transform", [build(SHIFT, 0.3), build(WINDOW, 0.3)])
def test_what_the_window_cut_off_stays_cut_off(transform):
    hu, batch = scan()
    beyond = ~within(hu)
    assert np.array_equal(run(transform, batch).numpy()[beyond], batch.numpy()[beyond])


def test_a_window_upside_down_is_an_error():
    with pytest.raises(ConfigError, match="must be"):
        validate(SHIFT.Config, {"shift": 5, "window": [240, -160]}, "recipe")


def thick(volume: np.ndarray, thickness: float, start: float) -> np.ndarray:
    """Fine samples along K stand for the anatomy; each thick slice is the mean of those in it."""
    fine, slices = 2000, len(volume)
    depth = (np.arange(slices * fine) + 0.5) / fine
    slice_of = np.floor((depth - start) / thickness).astype(int)
    values = volume[depth.astype(int)]
    means = [values[slice_of == n].mean() for n in range(slice_of.max() + 1)]
    centres = start + thickness * (np.arange(len(means)) + 0.5)
    return np.interp(np.arange(slices) + 0.5, centres, means)


def test_slice_thickness_averages_contiguous_slices_and_interpolates_between_them():
    transform, batch = build(THICKNESS, 4.0), images((6, 2, 13, 3, 2))
    draws = draws_for(transform, batch)
    assert max(draw["extra"] for draw in draws) > 2
    for sample, result, draw in zip(batch.double().numpy(), run(transform, batch).numpy(), draws, strict=True):
        thickness, start = 1 + draw["extra"], -draw["phase"] * draw["extra"]
        expected = np.apply_along_axis(thick, 1, sample, thickness, start)
        np.testing.assert_allclose(result, expected, atol=2e-3)


def test_a_slice_as_thick_as_the_volume_shows_one_mean():
    batch, transform = images((1, 1, 5, 2, 2)), build(THICKNESS, 20.0)
    params = {"extra": torch.tensor([20.0]), "phase": torch.tensor([0.2])}
    torch.testing.assert_close(transform.apply(batch, params), batch.mean(2, keepdim=True).expand_as(batch))


def test_slices_of_images_have_no_thickness():
    with pytest.raises(ConfigError, match=r"2 axes.*Expected volumes.*Remedy"):
        run(build(THICKNESS, 1.0), images((2, 1, 4, 4)))
