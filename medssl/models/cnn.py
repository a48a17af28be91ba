"""Convolutional encoders: MONAI's networks behind our interface, for images and volumes."""

from __future__ import annotations

from typing import Literal

import torch
from monai.networks.nets.basic_unet import Down, TwoConv
from monai.networks.nets.resnet import ResNet, ResNetBlock, ResNetBottleneck
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from medssl.config import Config as StrictConfig
from medssl.errors import ConfigError
from medssl.models.encoder import Encoder
from medssl.types import Features

ACTIVATION = ("LeakyReLU", {"negative_slope": 0.1, "inplace": True})
NORM = ("instance", {"affine": True})
NARROW = 8
"""Channels below which torch 2.13's weight gradient of a 1×1 convolution with stride 2, in channels_last, on one thread
of a CPU without AVX-512, writes outside of its memory."""


class ResNetEncoder(Encoder):
    """He et al., Deep Residual Learning, CVPR 2016 (arXiv 1512.03385).

    Features: the maps of stages 4, 3, 2, 1, and pooled, the mean of stage 4 over space. Its tensors run channels-last:
    on CPUs that took 0.5 to 0.75 of the time, forward and backward (a U-Net, whose norms want channels first, lost).
    """

    class Config(StrictConfig):
        """The default is ResNet-18; [3, 4, 6, 3] bottleneck blocks are ResNet-50."""

        name: Literal["resnet"] = "resnet"
        channels: PositiveInt = 1
        dims: Literal[2, 3] = 2
        block: Literal["basic", "bottleneck"] = "basic"
        blocks: tuple[PositiveInt, PositiveInt, PositiveInt, PositiveInt] = (2, 2, 2, 2)
        widths: tuple[PositiveInt, PositiveInt, PositiveInt, PositiveInt] = (64, 128, 256, 512)
        """Inner width of each stage's blocks; a bottleneck block puts out four times as many."""
        stem_kernel: PositiveInt = 7
        stem_stride: PositiveInt = 2
        stem_pool: bool = True
        """Max-pool by 2 after the stem. Crops below about 100 pixels keep more detail without."""
        zero_init_residual: bool = True
        """Each block starts as the identity (Goyal et al., arXiv 1706.02677, section 5.1)."""

    def __init__(self, config: ResNetEncoder.Config) -> None:
        super().__init__()
        self.config = config
        self.dims, self.channels = config.dims, config.channels
        self.net = ResNet(
            config.block,
            list(config.blocks),
            list(config.widths),
            spatial_dims=config.dims,
            n_input_channels=config.channels,
            conv1_t_size=config.stem_kernel,
            conv1_t_stride=config.stem_stride,
            no_max_pool=not config.stem_pool,
            feed_forward=False,
            bias_downsample=False,
        )
        expansion = {"basic": 1, "bottleneck": 4}[config.block]
        self.map_widths = tuple(expansion * width for width in reversed(config.widths))
        self.width = self.map_widths[0]
        self.stride = (config.stem_stride * (2 if config.stem_pool else 1),) * config.dims
        self.layers = (("net.conv1.", "net.bn1."), *((f"net.layer{stage}.",) for stage in (1, 2, 3, 4)))
        if config.zero_init_residual:
            _zero_last_norms(self.net)
        self.memory_format = {2: torch.channels_last, 3: torch.channels_last_3d}[config.dims]
        if min(config.widths) < NARROW:
            self.memory_format = torch.contiguous_format
        self.to(memory_format=self.memory_format)

    def forward(self, x: Tensor) -> Features:
        """x (B, C, *S), any size."""
        self.check_input(x)
        net = self.net
        x = net.act(net.bn1(net.conv1(x.contiguous(memory_format=self.memory_format))))
        if self.config.stem_pool:
            x = net.maxpool(x)
        maps = []
        for stage in (net.layer1, net.layer2, net.layer3, net.layer4):
            x = _staged(stage, x)
            maps.insert(0, x)
        return Features(maps=maps, pooled=_mean_over_space(x))


class UNetEncoder(Encoder):
    """The descending half of MONAI's BasicUNet: two convolutions a level, instance norm, leaky ReLU, max-pooling.

    Features: one map a level, the finest at the input's resolution, and pooled, the mean of the coarsest over space.
    """

    class Config(StrictConfig):
        name: Literal["unet"] = "unet"
        channels: PositiveInt = 1
        dims: Literal[2, 3] = 3
        widths: tuple[PositiveInt, ...] = Field((32, 64, 128, 256, 320), min_length=2)
        """Width of each level, fine to coarse; each level after the first halves the resolution."""

    def __init__(self, config: UNetEncoder.Config) -> None:
        super().__init__()
        self.config = config
        self.dims, self.channels, self.width = config.dims, config.channels, config.widths[-1]
        self.map_widths = config.widths[::-1]
        self.stride = (1,) * config.dims
        first, *rest = config.widths
        levels = [TwoConv(config.dims, config.channels, first, ACTIVATION, NORM, bias=False)]
        for width in rest:
            levels.append(Down(config.dims, first, width, ACTIVATION, NORM, bias=False))
            first = width
        self.levels = nn.ModuleList(levels)
        self.layers = tuple((f"levels.{level}.",) for level in range(len(levels)))

    @property
    def smallest(self) -> tuple[int, ...]:
        """So that the coarsest map has 2 cells along each axis, which its norm needs."""
        return (2 ** len(self.levels),) * self.dims

    def forward(self, x: Tensor) -> Features:
        """x (B, C, *S), of `smallest` or more."""
        self.check_input(x)
        if min(x.shape[2:]) < self.smallest[0]:
            raise ConfigError(
                f"A U-Net of {len(self.levels)} levels was given a picture of size {tuple(x.shape[2:])}",
                expected=f"at least {self.smallest[0]} voxels along each axis",
                remedy="set data.box.size, or augment.size where that is given, so large, or give encoder.widths fewer "
                "levels",
            )
        maps = []
        for level in self.levels:
            x = level(x)
            maps.insert(0, x)
        return Features(maps=maps, pooled=_mean_over_space(x))


def _staged(stage: nn.Module, x: Tensor) -> Tensor:
    """stage(x), in float32 where the last axis of x is down to one cell on a CPU: in bf16 the weights' gradient of a
    3×3 convolution of stride 2 then holds uninitialised memory (torch 2.13)."""
    if x.device.type == "cpu" and x.shape[-1] == 1:
        with torch.autocast("cpu", enabled=False):
            return stage(x.float())
    return stage(x)


def _mean_over_space(x: Tensor) -> Tensor:
    return x.flatten(2).mean(2)


def _zero_last_norms(net: nn.Module) -> None:
    for module in net.modules():
        if isinstance(module, ResNetBlock):
            nn.init.zeros_(module.bn2.weight)
        elif isinstance(module, ResNetBottleneck):
            nn.init.zeros_(module.bn3.weight)
