"""R(2+1)D: a ResNet for clips whose convolutions over space and over time are separate."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import PositiveInt
from torch import Tensor, nn

from medssl.config import Config as StrictConfig
from medssl.models.encoder import Encoder
from medssl.types import Features


class R2Plus1DEncoder(Encoder):
    """Tran et al., A Closer Look at Spatiotemporal Convolutions, CVPR 2018 (arXiv 1711.11248).

    Parts and their names are torchvision's `r2plus1d_18`, by which EchoNet-Dynamic measures the ejection fraction, so
    that its Kinetics weights fit. Features: the maps of stages 4, 3, 2, 1, and pooled, the mean of stage 4 over time
    and space.
    """

    class Config(StrictConfig):
        """The default is R(2+1)D-18."""

        name: Literal["r2plus1d"] = "r2plus1d"
        channels: PositiveInt = 3
        blocks: tuple[PositiveInt, PositiveInt, PositiveInt, PositiveInt] = (2, 2, 2, 2)
        widths: tuple[PositiveInt, PositiveInt, PositiveInt, PositiveInt] = (64, 128, 256, 512)
        """Of each stage's maps."""
        stem_width: PositiveInt = 45
        """Between the stem's convolution over space and the one over time."""

    def __init__(self, config: R2Plus1DEncoder.Config) -> None:
        super().__init__()
        self.config = config
        self.dims, self.channels, self.width = 3, config.channels, config.widths[-1]
        self.map_widths = config.widths[::-1]
        self.stride = (1, 2, 2)
        first = config.widths[0]
        self.stem = nn.Sequential(
            nn.Conv3d(config.channels, config.stem_width, (1, 7, 7), (1, 2, 2), (0, 3, 3), bias=False),
            nn.BatchNorm3d(config.stem_width), nn.ReLU(inplace=True),
            nn.Conv3d(config.stem_width, first, (3, 1, 1), 1, (1, 0, 0), bias=False),
            nn.BatchNorm3d(first), nn.ReLU(inplace=True))
        entering = (first, *config.widths[:-1])
        for stage, (given, width, blocks) in enumerate(zip(entering, config.widths, config.blocks, strict=True), 1):
            stride = 1 if stage == 1 else 2
            rest = (_Block(width, width, 1) for _ in range(blocks - 1))
            setattr(self, f"layer{stage}", nn.Sequential(_Block(given, width, stride), *rest))
        self.layers = (("stem.",), *((f"layer{stage}.",) for stage in (1, 2, 3, 4)))
        for module in self.modules():
            if isinstance(module, nn.Conv3d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Features:
        """x (B, C, T, J, I), any size. On a CPU always in float32: in bf16 the weights' gradient of a convolution over
        a few frames holds uninitialised memory (torch 2.13)."""
        self.check_input(x)
        if x.device.type == "cpu":
            with torch.autocast("cpu", enabled=False):
                return self._transform(x.float() if x.dtype == torch.bfloat16 else x)
        return self._transform(x)

    def _transform(self, x: Tensor) -> Features:
        x, maps = self.stem(x), []
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = stage(x)
            maps.insert(0, x)
        return Features(maps=maps, pooled=x.flatten(2).mean(2))


class _Block(nn.Module):
    """Two factored convolutions and a residual."""

    def __init__(self, given: int, width: int, stride: int) -> None:
        super().__init__()
        # so wide that the two have as many weights as one convolution of 3 × 3 × 3 would
        middle = (given * width * 27) // (given * 9 + 3 * width)
        self.conv1 = nn.Sequential(_factored(given, width, middle, stride), nn.BatchNorm3d(width),
                                   nn.ReLU(inplace=True))
        self.conv2 = nn.Sequential(_factored(width, width, middle, 1), nn.BatchNorm3d(width))
        self.relu = nn.ReLU(inplace=True)
        self.downsample = None
        if stride > 1 or given != width:
            self.downsample = nn.Sequential(nn.Conv3d(given, width, 1, stride, bias=False), nn.BatchNorm3d(width))

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        return self.relu(self.conv2(self.conv1(x)) + shortcut)


def _factored(given: int, width: int, middle: int, stride: int) -> nn.Sequential:
    """Over space, then over time."""
    return nn.Sequential(
        nn.Conv3d(given, middle, (1, 3, 3), (1, stride, stride), (0, 1, 1), bias=False),
        nn.BatchNorm3d(middle), nn.ReLU(inplace=True),
        nn.Conv3d(middle, width, (3, 1, 1), (stride, 1, 1), (1, 0, 0), bias=False))
