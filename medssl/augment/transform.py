"""What every transform is: a draw for one sample, and its application to a batch.

`draw` runs on the host, from the sample's own random stream, so that a view is the same whatever the batch or the
number of workers. `apply` runs on the batch's device and loops over no sample. Drawn parameters stay on the host until
`column` moves them: what is to be done can then be decided without waiting for the device.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Annotated, ClassVar, Literal

import numpy as np
import torch
from pydantic import AfterValidator, Field
from torch import Tensor

from medssl.config import Config

Params = dict[str, float | int | np.ndarray]
"""One sample's draw. Every draw of a transform has the same keys and shapes."""

Stacked = dict[str, Tensor]
"""A batch's draws, each (B, ...), on the host."""

Axes = Literal["plane", "volume"]
"""plane: act on (J, I), alike for every slice or frame. volume: act on (K, J, I)."""


def _not_empty(axes: tuple[str, ...]) -> tuple[str, ...]:
    if not axes:
        raise ValueError("name one axis or more")
    return axes


NOT_EMPTY = AfterValidator(_not_empty)
"""For axes of which each sample draws one: tells of a wrong letter alone, where a least length would tell of both."""

Probability = Annotated[float, Field(ge=0, le=1)]
Strength = Annotated[float, Field(ge=0)]
"""The draw is uniform between no effect, which is 0, and this. A recipe must state it: there is no default.

`std: Strength = Field(examples=[0.1])` names a typical one, for pictures of what the transform does.
"""

TYPICAL = 0.5
"""The strength that pictures show where its field names none."""


class TransformConfig(Config):
    probability: Probability = 1.0
    """The chance that a sample is touched at all. A sample that is spared stays as it was, bit for bit."""

    @classmethod
    def typical(cls) -> dict[str, float]:
        """The strengths, which are the fields that a recipe must state, each with a typical value."""
        return {name: (field.examples or [TYPICAL])[0] for name, field in cls.model_fields.items()
                if field.is_required()}


class Transform(ABC):
    """A new augmentation is a subclass in the file of its kind, and one line in `policy.TRANSFORMS`."""

    Config: ClassVar[type[TransformConfig]]
    through_slices: ClassVar[bool] = False
    """Acts along K whatever its settings: a clip, whose first axis is time, is refused (suitable.py)."""
    modality: ClassVar[str | None] = None
    """The one modality whose scans it imitates, by DICOM's code. A recipe may use it on any; where scans are to be ones
    that exist, `suitable.strange` tells."""

    def __init__(self, config: TransformConfig) -> None:
        self.config = config

    @abstractmethod
    def draw(self, rng: np.random.Generator, shape: tuple[int, ...]) -> Params:
        """The parameters of one sample of `shape` (C, *S); ConfigError where the transform is not for such images."""

    @abstractmethod
    def apply(self, batch: Tensor, params: Stacked) -> Tensor:
        """(B, C, *S) -> (B, C, *S) of the same dtype; `batch` itself is left alone."""


def apply_draws(apply: Callable[[Tensor, Stacked], Tensor], batch: Tensor, draws: list[Params | None]) -> Tensor:
    """Applies every sample's draw at once; None spares its sample, and costs nothing."""
    chosen = [b for b, draw in enumerate(draws) if draw is not None]
    if not chosen:
        return batch
    params = stack([draws[b] for b in chosen])
    if len(chosen) == len(draws):
        return apply(batch, params)
    index = torch.tensor(chosen, device=batch.device)
    return batch.index_copy(0, index, apply(batch.index_select(0, index), params))


def stack(draws: list[Params]) -> Stacked:
    """Turns a draw per sample into (B, ...) tensors on the host."""
    return {key: torch.from_numpy(np.array([draw[key] for draw in draws])) for key in draws[0]}


def column(values: Tensor, batch: Tensor) -> Tensor:
    """(B, ...) host values -> (B, ..., 1, 1, 1), so that they broadcast over `batch` (B, C, *S), in its dtype."""
    values = values.to(device=batch.device, dtype=batch.dtype)
    return values.reshape(*values.shape, *[1] * (batch.ndim - values.ndim))


def voxel_axes(batch: Tensor) -> tuple[int, ...]:
    """The positions of S in (B, C, *S)."""
    return tuple(range(2, batch.ndim))


def acting_axes(axes: Axes, count: int) -> int:
    """How many of a sample's `count` voxel axes `axes` acts on, counted from the last."""
    return 2 if axes == "plane" else count


def normal_field(batch: Tensor, seeds: Tensor, fields: int = 1) -> Tensor:
    """Standard normal noise (fields, B, C, *S), each sample's from its own seed (B,) on the host.

    One generator on the batch's device is reseeded per sample: the field does not depend on the batch's composition.
    CPU and GPU draw different fields of the same law.
    """
    noise = torch.empty(len(batch), fields, *batch.shape[1:], device=batch.device)
    generator = torch.Generator(device=batch.device)
    for sample, seed in zip(noise, seeds.tolist(), strict=True):
        sample.normal_(generator=generator.manual_seed(seed))
    return noise.transpose(0, 1).to(batch.dtype)


def smooth(batch: Tensor, kernels: Tensor, axis: int) -> Tensor:
    """Convolves one axis of (B, C, *S) with each sample's odd kernel (B, taps); edges are repeated.

    Shifted sums cost about the same along every axis, where a grouped convolution of 96^3 on CPU took from a third to
    14 times as long; and a tap of zero adds exactly nothing, however long the batch's longest kernel.
    """
    size, outside = batch.shape[axis], list(batch.shape)
    outside[axis] = kernels.shape[1] // 2
    first, last = (batch.narrow(axis, place, 1).expand(outside) for place in (0, size - 1))
    padded = torch.cat([first, batch, last], axis)
    first, *others = (column(tap, batch) for tap in kernels.T)
    total = padded.narrow(axis, 0, size) * first
    for shift, tap in enumerate(others, start=1):
        total.addcmul_(padded.narrow(axis, shift, size), tap)
    return total
