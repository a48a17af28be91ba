"""medssl.augment.compression: what a decoder gives back, on the image's own scale."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from drawing import build, images, run
from PIL import Image

from medssl.augment import TRANSFORMS
from medssl.augment.compression import quality_after

JPEG = TRANSFORMS["jpeg"]


def compressed(batch: torch.Tensor, quality: int) -> torch.Tensor:
    return JPEG(JPEG.Config(loss=1.0)).apply(batch, {"quality": torch.full((len(batch),), quality)})


def test_every_plane_is_what_a_decoder_gives_back_on_the_channel_s_own_scale():
    batch = images((1, 2, 3, 24, 32)) * torch.tensor([1.0, 40.0]).reshape(1, 2, 1, 1, 1) - 5
    found = compressed(batch, 30)
    for channel, result in zip(batch[0].numpy(), found[0].numpy(), strict=True):
        low, high = channel.min(), channel.max()
        for plane, seen in zip(channel, result, strict=True):
            file = io.BytesIO()
            levels = np.round((plane - low) / (high - low) * 255).astype(np.uint8)
            Image.fromarray(levels).save(file, "JPEG", quality=30)
            expected = np.asarray(Image.open(file)) / 255 * (high - low) + low
            np.testing.assert_allclose(seen, expected, rtol=0, atol=1e-5 * (high - low))


def test_the_lower_the_quality_the_larger_the_error():
    batch = images((1, 1, 48, 48))
    errors = [float((compressed(batch, quality) - batch).abs().mean()) for quality in (90, 60, 30, 10)]
    assert errors == sorted(errors)
    assert errors[0] < errors[-1]


def test_a_constant_image_stays():
    flat = torch.full((1, 1, 16, 16), 0.3)
    torch.testing.assert_close(run(build(JPEG, 0.9), flat), flat)


@pytest.mark.parametrize(("loss", "quality"), [(0.0, 100), (0.25, 75), (0.93, 7), (1.0, 1)])
def test_a_loss_is_a_share_of_the_quality(loss, quality):
    assert quality_after(loss) == quality
