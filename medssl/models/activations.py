"""Activation checkpointing (Chen et al. 2016, arXiv 1604.06174): memory for time, where a volume has many tokens."""

from __future__ import annotations

from monai.networks.nets.swin_unetr import SwinTransformerBlock
from torch import nn

from medssl.errors import ConfigError
from medssl.models.vit import Block


def checkpoint_activations(module: nn.Module) -> int:
    """Makes every transformer block in `module` keep its input alone and compute the rest again in the backward pass.

    Loss, gradients and the names of tensors stay as they are: what a block draws (drop_path) it draws alike again.

    Returns:
        how many blocks there are.

    Raises:
        ConfigError: where there is none. Convolutional networks are left alone, since their batch norms would count
            every batch twice.
    """
    blocks = [block for block in module.modules() if isinstance(block, Block | SwinTransformerBlock)]
    if not blocks:
        raise ConfigError(
            f"train.checkpoint_activations has nothing to act on in {type(module).__name__}",
            expected="transformer blocks, for batch norms that are computed twice would track their statistics twice",
            remedy="set train.checkpoint_activations=false, or choose encoder.name=vit or encoder.name=swin",
        )
    for block in blocks:
        if isinstance(block, Block):
            block.recomputed = True
        else:
            block.use_checkpoint = True
    return len(blocks)
