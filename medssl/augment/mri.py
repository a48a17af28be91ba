"""What magnetic resonance does to grey values: coil inhomogeneity, magnitude noise, units of each contrast's own, thick
slices. What happens line by line is in kspace.py.

No signal, which is called air, is taken to be each channel's least value. That holds for percentiles and for `zscore`.
By `zscore_nonzero` the background is 0, in the middle of the tissue's values, and the least value is the darkest
tissue: there the background is changed as a tissue is, by `bias_field` too unless its `air` is 0.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Annotated, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from medssl.augment.transform import (
    NOT_EMPTY,
    Params,
    Stacked,
    Strength,
    Transform,
    TransformConfig,
    column,
    normal_field,
    voxel_axes,
)
from medssl.errors import ConfigError


class BiasField(Transform):
    """Multiplies the signal by exp(p), p a polynomial over the field of view, the same for all channels.

    After Van Leemput et al., IEEE TMI 18 (1999), eq. 1. Z-scored images, or any range of values. Not for clips.
    """

    through_slices = True
    modality = "MR"

    class Config(TransformConfig):
        name: Literal["bias_field"] = "bias_field"
        strength: Strength = Field(examples=[0.3])
        """Each coefficient is drawn from -strength to strength; coordinates run from -1 to 1 along each axis."""
        order: Annotated[int, Field(ge=1, le=5)] = 3
        """The polynomial's total degree."""
        air: float | None = None
        """The prepared value of no signal, which stays as it is; null takes each channel's least value."""

    config: Config

    def draw(self, rng: np.random.Generator, shape: tuple[int, ...]) -> Params:
        terms = _polynomial_terms(self.config.order, len(shape) - 1)
        return {"coefficients": rng.uniform(-self.config.strength, self.config.strength, terms.shape) * terms}

    def apply(self, batch: Tensor, params: Stacked) -> Tensor:
        field = params["coefficients"].to(batch.device, torch.float32)  # (B, order + 1, ...), an axis for each of S
        for size in batch.shape[2:]:
            place = torch.linspace(-1, 1, size, device=batch.device)
            powers = torch.stack([place**power for power in range(self.config.order + 1)])
            field = torch.tensordot(field, powers, dims=([1], [0]))  # the axes of S take the powers' places in turn
        gain = field.exp_().unsqueeze(1).to(batch.dtype)
        air = least(batch) if self.config.air is None else batch.new_tensor(self.config.air)
        return torch.lerp(air, batch, gain)  # air + gain * (batch - air)


class Rician(Transform):
    """Noise of a magnitude image, |x + complex Gaussian noise|. Z-scored images, or any range of values.

    Gudbjartsson and Patz, Magn. Reson. Med. 34 (1995). Each channel's least value is taken for zero signal.
    """

    modality = "MR"

    class Config(TransformConfig):
        name: Literal["rician"] = "rician"
        std: Strength = Field(examples=[0.2])
        """Largest standard deviation of either part of the complex noise, in the image's own units."""

    config: Config

    def draw(self, rng: np.random.Generator, shape: tuple[int, ...]) -> Params:
        return {"std": rng.uniform(0, self.config.std), "seed": rng.integers(2**63)}

    def apply(self, batch: Tensor, params: Stacked) -> Tensor:
        std, air = column(params["std"], batch), least(batch)
        real, imaginary = normal_field(batch, params["seed"], fields=2)
        return torch.addcmul(batch - air, real, std).square_().add_((imaginary * std).square_()).sqrt_().add_(air)


class ScaleShift(Transform):
    """x -> a x + b with a and b of each channel's own, as scanners have no common unit. Z-scored images."""

    class Config(TransformConfig):
        name: Literal["scale_shift"] = "scale_shift"
        scale: Strength = Field(examples=[0.1])
        """Values are multiplied by a, drawn from 1 - scale to 1 + scale."""
        shift: Strength = Field(examples=[0.1])
        """The offset b is drawn from -shift to shift, in the image's own units (standard deviations where
        z-scored)."""

    config: Config

    def draw(self, rng: np.random.Generator, shape: tuple[int, ...]) -> Params:
        scale, shift = self.config.scale, self.config.shift
        return {"scale": 1 + rng.uniform(-scale, scale, shape[0]), "shift": rng.uniform(-shift, shift, shape[0])}

    def apply(self, batch: Tensor, params: Stacked) -> Tensor:
        return torch.addcmul(column(params["shift"], batch), batch, column(params["scale"], batch))


class Anisotropy(Transform):
    """One axis as a scanner with fewer, thicker voxels sees it: averaged over each, and drawn out again linearly.

    A whole number of thick voxels, round(N / f), fills the N voxels of the axis. Each is the mean of what it covers,
    where TorchIO's RandomAnisotropy picks voxels. Any range of values.
    """

    class Config(TransformConfig):
        name: Literal["anisotropy"] = "anisotropy"
        thickening: Strength = Field(examples=[4.0])
        """The thick voxels' size f, in voxels, is drawn from 1 to 1 + thickening."""
        axes: Annotated[tuple[Literal["k", "j", "i"], ...], NOT_EMPTY] = ("k", "j", "i")
        """Each sample draws one of these, of which an image has no k."""

    config: Config

    def draw(self, rng: np.random.Generator, shape: tuple[int, ...]) -> Params:
        axes = [axis for axis in self.config.axes if axis in "kji"[1 - len(shape):]]
        if not axes:
            raise ConfigError(f"anisotropy.axes is {list(self.config.axes)}, but the images have {len(shape) - 1} axes",
                              expected="volumes (K, J, I)", remedy="set anisotropy's axes to [j, i]")
        return {"axis": "kji".index(axes[rng.integers(len(axes))]) - 3,
                "factor": 1 + rng.uniform(0, self.config.thickening)}

    def apply(self, batch: Tensor, params: Stacked) -> Tensor:
        for axis in params["axis"].unique().tolist():
            factor = torch.where(params["axis"] == axis, params["factor"], 1)
            coarse = _coarse(factor, batch.shape[axis]).to(batch.device, batch.dtype)  # (B, N, N)
            coarse = coarse.reshape(len(batch), *[1] * (batch.ndim - 3), *coarse.shape[1:])
            batch = (coarse @ batch.movedim(axis, -2)).movedim(-2, axis)
        return batch


def least(batch: Tensor) -> Tensor:
    """Each channel's least value, (B, C, 1, ..., 1): what no signal was prepared as."""
    return batch.amin(dim=voxel_axes(batch), keepdim=True)


def _coarse(factor: Tensor, size: int) -> Tensor:
    """(B,) sizes of thick voxels -> (B, N, N) from N voxels to means over thick ones, and linearly back to N."""
    count = (size / factor).round().clamp(min=1)[:, None, None]
    width = size / count
    fine, thick = torch.arange(size, dtype=width.dtype), torch.arange(size, dtype=width.dtype)[:, None]
    covered = torch.minimum((thick + 1) * width, fine + 1) - torch.maximum(thick * width, fine)
    average = covered.clamp(min=0) * (thick < count) / width
    place = ((fine[:, None] + 0.5) / width - 0.5).clamp(min=0).minimum(count - 1)
    return (1 - (place - fine).abs()).clamp(min=0) @ average


@lru_cache
def _polynomial_terms(order: int, axes: int) -> np.ndarray:
    """1 for every monomial of total degree 1 to `order`, else 0, (order + 1,) * axes: a constant is no bias."""
    degree = np.indices((order + 1,) * axes).sum(axis=0)
    return ((degree >= 1) & (degree <= order)).astype(float)
