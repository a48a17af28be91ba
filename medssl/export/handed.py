"""A run as a network that others can call: pixels in, one tensor out, with a description of both."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from medssl.errors import ConfigError
from medssl.export.described import described, described_input, described_output
from medssl.models.encoder import Encoder
from medssl.models.weights import encoder_of, load_parts
from medssl.tasks import LabelledModel, Task
from medssl.tasks.saved import SavedModel


@dataclass(frozen=True, eq=False)
class Handed:
    """network: image (B, C, *size) float32 -> (B, L), (B, R, *size) or (B, D), on the CPU and in eval mode.

    task: None of an encoder alone.
    """

    network: nn.Module
    task: Task | None
    channels: int
    size: tuple[int, ...]
    description: dict[str, Any]

    @classmethod
    def open(cls, run: str | Path, size: tuple[int, ...] | None = None) -> Handed:
        """A finetuned model, or else a pretrained encoder.

        Args:
            size: S of what the network is given; by default as the run says.

        Raises:
            RunError: no such run, or a damaged one.
            ConfigError: a size that the network cannot take, or that nobody knows.
        """
        tensors, description = load_parts(run)
        encoder = encoder_of(tensors, description, run)
        model = SavedModel(encoder, tensors, description).with_task() if "task" in tensors else None
        task = model.task if model else None
        size = size or _known_size(description, encoder, run)
        _require_axes(size, encoder)
        told = described(task, described_input(description, encoder.channels, size, bool(task and task.needs_mask)),
                         described_output(task, encoder.width))
        return cls(_OneTensor(model or encoder).eval(), task, encoder.channels, size, told)

    @property
    def output(self) -> str:
        """The name of what comes out."""
        return self.description["output"]["name"]

    def example(self, batch: int) -> Tensor:
        """(batch, C, *size) of fixed normal noise."""
        generator = torch.Generator().manual_seed(batch)
        return torch.randn(batch, self.channels, *self.size, generator=generator)

    @torch.no_grad()
    def answer(self, image: Tensor) -> Tensor:
        return self.network(image)


class _OneTensor(nn.Module):
    """What tracers take: a tensor in, a tensor out."""

    def __init__(self, model: LabelledModel | Encoder) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: Tensor) -> Tensor:
        return self.model.outputs(image) if isinstance(self.model, LabelledModel) else self.model(image).pooled


def _known_size(description: dict[str, Any], encoder: Encoder, run: str | Path) -> tuple[int, ...]:
    size = description.get("size") or getattr(encoder.config, "size", None)
    if not size:
        raise ConfigError(f"{run} is of an earlier medssl, and does not say which size its network was given",
                          expected=f"{encoder.dims} sides in voxels", remedy="give --size, e.g. --size "
                          + ",".join(["224"] * encoder.dims))
    return tuple(size)


def _require_axes(size: tuple[int, ...], encoder: Encoder) -> None:
    if len(size) != encoder.dims or min(size) < 1:
        found = f"{len(size)} sides" if len(size) != encoder.dims else f"a side of {min(size)}"
        raise ConfigError(f"--size {','.join(map(str, size))} has {found}", remedy="mend --size",
                          expected=f"{encoder.dims} sides of 1 voxel or more, in array order")
