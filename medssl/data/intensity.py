"""The mappings of `prepare.intensity`: a case's values -> what a network is given."""

from __future__ import annotations

import numpy as np


def map_intensity(array: np.ndarray, mapping: str, window: tuple[float, float] | None) -> np.ndarray:
    """(C, *S) float32 -> the same shape, mapped as PrepareConfig.intensity says."""
    if mapping == "percentile":
        low, high = np.percentile(array, (0.5, 99.5))
        return np.clip((array - low) / max(high - low, 1e-6), 0, 1)
    if mapping == "range":
        return array / (255.0 if array.max() <= 255 else float(2 ** np.ceil(np.log2(array.max() + 1)) - 1))
    if mapping == "window":
        low, high = window
        return np.clip((array - low) / (high - low), 0, 1)
    within = array != 0 if mapping == "zscore_nonzero" else np.ones_like(array, dtype=bool)
    mapped = np.zeros_like(array)
    for channel, (values, inside) in enumerate(zip(array, within, strict=True)):
        if inside.any():
            mean, sd = values[inside].mean(dtype=np.float64), values[inside].std(dtype=np.float64)
            mapped[channel][inside] = (values[inside] - mean) / max(sd, 1e-6)
    return np.clip(mapped, -10, 10)
