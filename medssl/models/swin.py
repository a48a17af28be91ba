"""A Swin transformer encoder: MONAI's, as SwinUNETR has it, behind our interface, for images and volumes."""

from __future__ import annotations

from typing import Literal

from monai.networks.nets.swin_unetr import BasicLayer, SwinTransformer, compute_mask, get_window_size
from pydantic import Field, PositiveInt, model_validator
from torch import Tensor

from medssl.config import Config as StrictConfig
from medssl.models.encoder import Encoder
from medssl.models.skips import normalised
from medssl.types import Features


class SwinEncoder(Encoder):
    """Hatamizadeh et al., Swin UNETR, BrainLes 2021 (arXiv 2201.01266), its encoder.

    Features: five maps, each half the resolution of the next and the finest that of the patches, normalised over
    their channels as SwinUNETR feeds them to its decoder; and pooled, the mean of the coarsest over space.
    """

    class Config(StrictConfig):
        """The default is the encoder of the SwinUNETR that was pretrained on CT (Tang et al., arXiv 2111.14791)."""

        name: Literal["swin"] = "swin"
        channels: PositiveInt = 1
        dims: Literal[2, 3] = 3
        width: PositiveInt = 48
        """Of the finest map; each coarser map is twice as wide."""
        patch: PositiveInt = 2
        """Voxels of a patch along each axis."""
        window: PositiveInt = 7
        """Patches of a window of attention along each axis."""
        depths: tuple[PositiveInt, PositiveInt, PositiveInt, PositiveInt] = (2, 2, 2, 2)
        """Blocks of each stage, fine to coarse."""
        heads: tuple[PositiveInt, PositiveInt, PositiveInt, PositiveInt] = (3, 6, 12, 24)
        """Of each stage, fine to coarse."""
        drop_path: float = Field(0.0, ge=0, lt=1)
        """Share of samples that skip the last block; earlier blocks less, linearly from 0 (stochastic depth)."""

        @model_validator(mode="after")
        def _fits(self) -> SwinEncoder.Config:
            widths = [self.width * 2**stage for stage in range(4)]
            if any(width % heads for width, heads in zip(widths, self.heads, strict=True)):
                raise ValueError(f"each stage's width {widths} must be a multiple of its heads {self.heads}")
            return self

    def __init__(self, config: SwinEncoder.Config) -> None:
        super().__init__()
        self.config = config
        self.dims, self.channels = config.dims, config.channels
        self.net = SwinTransformer(
            in_chans=config.channels,
            embed_dim=config.width,
            window_size=(config.window,) * config.dims,
            patch_size=(config.patch,) * config.dims,
            depths=config.depths,
            num_heads=config.heads,
            drop_path_rate=config.drop_path,
            spatial_dims=config.dims,
        )
        self.map_widths = tuple(config.width * 2**stage for stage in range(4, -1, -1))
        self.width = self.map_widths[0]
        self.stride = (config.patch,) * config.dims
        self.layers = (("net.patch_embed.",), *((f"net.layers{stage}.",) for stage in (1, 2, 3, 4)))

    def forward(self, x: Tensor) -> Features:
        """x (B, C, *S), any size."""
        self.check_input(x)
        x, net = self.net.patch_embed(x), self.net
        maps = [normalised(x)]
        for (stage,) in (net.layers1, net.layers2, net.layers3, net.layers4):
            x = _through(stage, x)
            maps.insert(0, normalised(x))
        return Features(maps=maps, pooled=maps[0].flatten(2).mean(2))


def _through(stage: BasicLayer, x: Tensor) -> Tensor:
    """(B, D, *S) -> (B, 2 D, *S / 2): what the stage's own forward does, which needs a package more (einops)."""
    size = x.shape[2:]
    window, shift = get_window_size(size, stage.window_size, stage.shift_size)
    filled = [-(-cells // side) * side for cells, side in zip(size, window, strict=True)]
    mask = compute_mask(filled, window, shift, x.device)
    x = x.movedim(1, -1)
    for block in stage.blocks:
        x = block(x, mask)
    return stage.downsample(x).movedim(-1, 1)
