"""X-ray transforms against the physics and the histogram that each one claims."""

import numpy as np
import torch
from drawing import build, draws_for, example, images, run

from medssl.augment import TRANSFORMS
from medssl.io.intensity import voi_window

EXPOSURE, WINDOW, EQUALISATION = (TRANSFORMS[name] for name in ("exposure", "window_jitter", "equalisation"))


def test_exposure_multiplies_the_signal_behind_a_logarithmic_image():
    decades, transform, grey = 2.0, build(EXPOSURE, 0.3), images((16, 1, 12, 12))
    signal = 10 ** (-decades * grey.double().numpy())  # bright where little arrives
    for before, after, draw in zip(signal, run(transform, grey).double().numpy(), draws_for(transform, grey),
                                   strict=True):
        dose = 10 ** (-decades * draw["offset"])
        seen = np.clip(dose * before, 10**-decades, 1)  # what the display does not clip
        np.testing.assert_allclose(10 ** (-decades * after), seen, rtol=1e-5)


def test_exposure_goes_either_way_as_far_as_its_offset():
    offsets = [draw["offset"] for draw in draws_for(build(EXPOSURE, 0.3), images((64, 1, 2, 2)))]
    assert -0.3 <= min(offsets) < -0.25
    assert 0.25 < max(offsets) <= 0.3


def test_window_jitter_is_dicom_s_window():
    transform, batch = build(WINDOW, 0.4), images((8, 1, 12, 12))
    draws = draws_for(transform, batch)
    for sample, result, draw in zip(batch.numpy(), run(transform, batch).numpy(), draws, strict=True):
        expected = voi_window(sample, 0.5 + draw["centre"], draw["width"], "LINEAR_EXACT")
        np.testing.assert_allclose(result, expected, atol=1e-6)
    widths = [draw["width"] for draw in draws]
    assert 1 / 1.4 <= min(widths) < 1 < max(widths) <= 1.4


def equalised(values: np.ndarray) -> np.ndarray:
    counts, edges = np.histogram(values, bins=256, range=(0, 1))
    return np.interp(values, edges, np.append(0, counts.cumsum()) / values.size)


def test_equalisation_follows_each_channel_s_own_histogram():
    transform, batch = build(EQUALISATION, 1.0), images((3, 2, 30, 40)) ** 3
    batch[:, :, :5], batch[:, 1, 5:7] = 0, 1  # a collimated border, and saturation
    for sample, result, draw in zip(batch.numpy(), run(transform, batch).numpy(), draws_for(transform, batch),
                                    strict=True):
        for channel, found in zip(sample, result, strict=True):
            expected = channel + draw["share"] * (equalised(channel) - channel)
            np.testing.assert_allclose(found, expected, atol=1e-5)


def test_equalisation_in_full_flattens_the_histogram_and_keeps_black_and_order():
    batch = images((2, 1, 64, 64)) ** 2
    batch[:, :, 0, 0] = 0
    result = run(build(EQUALISATION, 1.0, least=1.0), batch)
    shares = torch.histc(result[0], bins=8, min=0, max=1) / 64**2
    assert (shares - 1 / 8).abs().max() < 0.02
    assert (result[:, :, 0, 0] == 0).all()
    along = result.flatten(2).gather(2, batch.flatten(2).argsort())
    assert (along.diff(dim=2) >= -1e-6).all()


def test_the_heel_effect_of_the_page_is_a_falling_dose_behind_a_logarithm():
    decades, transform, grey = 2.0, build(example(), 0.1), images((6, 1, 9, 5)) * 0.7 + 0.15
    for before, after, draw in zip(grey.double().numpy(), run(transform, grey).double().numpy(),
                                   draws_for(transform, grey), strict=True):
        factor = 10 ** (-decades * after) / 10 ** (-decades * before)
        np.testing.assert_allclose(factor[:, 4], 1, rtol=1e-5)  # the middle row is left as it is
        np.testing.assert_allclose(factor[:, 1:] / factor[:, :-1], 10 ** (-decades * draw["slope"] / 4), rtol=1e-4)
