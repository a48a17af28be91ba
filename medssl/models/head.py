"""The last layer of a task: numbers a case, or numbers a voxel."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class LinearHead(nn.Module):
    """pooled (B, D) -> (B, L).

    Args:
        bias: what each output starts from, L numbers, e.g. the training targets' mean (EchoNet starts EF at 55.6), so
            that the first steps are not spent on finding it.
    """

    def __init__(self, width: int, labels: int, bias: Sequence[float] | None = None) -> None:
        super().__init__()
        self.linear = nn.Linear(width, labels)
        nn.init.trunc_normal_(self.linear.weight, std=0.01)
        with torch.no_grad():
            self.linear.bias.copy_(torch.zeros(labels) if bias is None else torch.tensor(bias))

    def forward(self, pooled: Tensor) -> Tensor:
        return self.linear(pooled)


class DenseHead(nn.Module):
    """features (B, D0, *S) -> (B, R, *S), a 1×1 convolution."""

    def __init__(self, width: int, regions: int, dims: int) -> None:
        super().__init__()
        self.conv = (nn.Conv2d if dims == 2 else nn.Conv3d)(width, regions, 1)

    def forward(self, features: Tensor) -> Tensor:
        return self.conv(features)
