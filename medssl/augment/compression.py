"""What lossy compression leaves of an image, as some archives and viewers keep it."""

from __future__ import annotations

import io
from typing import Annotated, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from medssl.augment.intensity import channel_range
from medssl.augment.transform import Params, Stacked, Transform, TransformConfig, column

BEST = 100
"""The quality that stands for no compression."""
LEVELS = 255
"""Grey levels above black."""


class Jpeg(Transform):
    """Every plane through JPEG, in 256 grey levels of its channel's own range. Any range of values.

    ISO/IEC 10918-1 as libjpeg scales its tables by a quality. The codec works on the host, a plane at a time.
    """

    class Config(TransformConfig):
        name: Literal["jpeg"] = "jpeg"
        loss: Annotated[float, Field(ge=0, le=1, examples=[0.9])]
        """Largest share of the quality that is lost: libjpeg's quality is drawn from 100 (1 - loss), at least 1, to
        100, which here leaves the image as it was."""

    config: Config

    def draw(self, rng: np.random.Generator, shape: tuple[int, ...]) -> Params:
        return {"quality": quality_after(rng.uniform(0, self.config.loss))}

    def apply(self, batch: Tensor, params: Stacked) -> Tensor:
        low, high = channel_range(batch)
        width = (high - low).clamp(min=torch.finfo(batch.dtype).tiny)
        levels = ((batch - low) / width * LEVELS).round().to(torch.uint8).cpu().numpy()
        for sample, quality in zip(levels, params["quality"].tolist(), strict=True):
            if quality < BEST:
                for plane in sample.reshape(-1, *sample.shape[-2:]):
                    plane[...] = _compressed(plane, quality)
        lossy = torch.from_numpy(levels).to(batch.device, batch.dtype) / LEVELS * width + low
        return torch.where(column(params["quality"], batch) < BEST, lossy, batch)


def quality_after(loss: float) -> int:
    """libjpeg's quality, 1 to 100, of which this share was lost."""
    return max(1, round(BEST * (1 - loss)))


def _compressed(plane: np.ndarray, quality: int) -> np.ndarray:
    """(J, I) uint8 as the decoder gives it back."""
    from PIL import Image

    stored = io.BytesIO()
    Image.fromarray(plane).save(stored, "JPEG", quality=quality)
    return np.asarray(Image.open(stored))
