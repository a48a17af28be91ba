"""Synthetic volumes of real sizes: the brain phantom's scan, blown up and given a scanner's noise."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from scipy.ndimage import zoom

from medssl.phantom.brain import draw_patient
from medssl.rng import stream

HEAD = (155, 240, 240)
"""(K, J, I) of BraTS."""
CHEST = (200, 512, 512)
"""(K, J, I) of a CT of 200 slices."""
TINY = (12, 24, 20)


@lru_cache(maxsize=2)
def head(shape: tuple[int, int, int], index: int = 0) -> np.ndarray:
    """(K, J, I) int16: FLAIR, exactly 0 outside the brain, with noise of 2 % inside, which is what makes it compress
    about as a real scan does."""
    flair = draw_patient(0, index)[0]["flair"].astype(np.float32)
    large = zoom(flair, [n / m for n, m in zip(shape, flair.shape, strict=True)], order=1)
    noise = stream("benchmark", index).normal(0, 0.02 * large.max(), size=large.shape)
    return np.where(large > 0, np.clip(large + noise, 1, 32000), 0).astype(np.int16)
