"""The peer of benchmarks/simsiam.py: SimSiam as its paper describes it (Chen and He, CVPR 2021, arXiv 2011.10566), on a
ResNet-18 as its paper describes that (He et al., CVPR 2016, arXiv 1512.03385), with nothing done to be faster.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class PlainSimSiam(nn.Module):
    """Two views (B, 1, J, I) -> the loss (): algorithm 1 of the paper."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.encoder = resnet18()
        self.projector = nn.Sequential(  # section 3, baseline settings
            nn.Linear(512, 512, bias=False), nn.BatchNorm1d(512), nn.ReLU(inplace=True),
            nn.Linear(512, 512, bias=False), nn.BatchNorm1d(512), nn.ReLU(inplace=True),
            nn.Linear(512, width, bias=False), nn.BatchNorm1d(width, affine=False),
        )  # fmt: skip
        self.predictor = nn.Sequential(
            nn.Linear(width, width // 4, bias=False), nn.BatchNorm1d(width // 4), nn.ReLU(inplace=True),
            nn.Linear(width // 4, width),
        )  # fmt: skip

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        z1, z2 = self.projector(self.encoder(first)), self.projector(self.encoder(second))
        return (distance(self.predictor(z1), z2) + distance(self.predictor(z2), z1)) / 2


def distance(p: Tensor, z: Tensor) -> Tensor:
    """Minus the mean cosine of p and z (B, D), of which z gets no gradient."""
    return -(F.normalize(p, dim=1) * F.normalize(z.detach(), dim=1)).sum(1).mean()


def resnet18() -> nn.Sequential:
    """(B, 1, J, I) -> (B, 512)."""
    widths = (64, 64, 128, 256, 512)
    stages = [Residual(before if first else after, after, 2 if first and before != after else 1)
              for before, after in zip(widths, widths[1:], strict=False) for first in (True, False)]
    return nn.Sequential(nn.Conv2d(1, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU(inplace=True),
                         nn.MaxPool2d(3, 2, 1), *stages, nn.AdaptiveAvgPool2d(1), nn.Flatten())


class Residual(nn.Module):
    """(B, before, J, I) -> (B, after, J / stride, I / stride); it starts as its shortcut, as large-scale training has
    it (Goyal et al., arXiv 1706.02677)."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.branch = nn.Sequential(
            nn.Conv2d(before, after, 3, stride, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU(inplace=True),
            nn.Conv2d(after, after, 3, 1, 1, bias=False), nn.BatchNorm2d(after),
        )  # fmt: skip
        nn.init.zeros_(self.branch[-1].weight)
        self.shortcut = nn.Identity() if stride == 1 else nn.Sequential(
            nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.branch(x) + self.shortcut(x))
