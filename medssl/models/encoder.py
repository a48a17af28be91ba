"""What every encoder is: pixels in, a coarse-to-fine pyramid and one vector out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from medssl.config import Config
from medssl.errors import ConfigError
from medssl.types import Features


class Encoder(nn.Module):
    """Base of all encoders. An encoder is built from its own Config alone, so that a saved one can be rebuilt.

    Attributes:
        config: what it was built from; holds at least `name` and `channels`.
        dims: number of spatial axes of its input, len(S).
        channels: C of its input.
        width: D of `Features.pooled`.
        map_widths: D_l of each of `Features.maps`, coarse to fine.
        skip_widths: D_l of each of `Features.skips`, late to early; none for an encoder whose maps are a pyramid.
        stride: voxels per cell of the finest map along each spatial axis; all 1 where it has the input's resolution.
        memory_format: how its maps lie in memory: a decoder's weights do well to follow it.
        layers: how the names of its parts begin, layer by layer from the input on. What comes after all of them, such
            as a last norm, is in none.
        preprocessing: how the scans that it learnt from were prepared, as `load_encoder` found it beside the weights.
    """

    config: Config
    dims: int
    channels: int
    width: int
    map_widths: tuple[int, ...]
    skip_widths: tuple[int, ...] = ()
    stride: tuple[int, ...]
    memory_format: torch.memory_format = torch.contiguous_format
    layers: tuple[tuple[str, ...], ...]

    def __init__(self) -> None:
        super().__init__()
        self.preprocessing: Mapping[str, Any] = {}

    @property
    def smallest(self) -> tuple[int, ...]:
        """The least size S of a picture that it makes something of: one cell of its finest map."""
        return self.stride

    def layer_of(self, name: str) -> int:
        """Which of the `layers` a part or parameter of that name is in; their number where it comes after them."""
        found = (number for number, begins in enumerate(self.layers) if f"{name}.".startswith(begins))
        return next(found, len(self.layers))

    def forward(self, x: Tensor) -> Features:
        """x (B, C, *S) -> maps [(B, D_l, *S_l), ...] coarse to fine, and pooled (B, D)."""
        raise NotImplementedError

    def check_input(self, x: Tensor) -> None:
        """ConfigError unless x is (B, C, *S) with this encoder's channels and number of spatial axes."""
        kind = type(self).__name__
        if x.ndim != self.dims + 2:
            raise ConfigError(
                f"{kind} was given a batch of shape {tuple(x.shape)}",
                expected=f"(batch, channel) and {self.dims} spatial axes",
                remedy="make the encoder's number of axes that of the data, or give an encoder of slices a volume's "
                       "slices as a batch: volume.swapaxes(0, 1)",
            )
        if x.shape[1] != self.channels:
            raise ConfigError(
                f"{kind} was given {x.shape[1]} channels",
                expected=f"{self.channels}, as the encoder was built for",
                remedy="set the encoder's `channels` to the data's, or choose the same channels in the card",
            )
