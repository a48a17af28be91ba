"""Devices and precision, through Lightning Fabric."""

from __future__ import annotations

import logging
from typing import Literal

import torch
from lightning_fabric import Fabric
from torch import nn

Precision = Literal["auto", "bf16", "float32"]


def launch(precision: Precision, module: nn.Module) -> Fabric:
    """One device, the best there is; `auto` takes bf16 where the hardware multiplies it, and multiplies it right.

    On CPUs, torch 2.13's weight gradient of a bf16 3-D convolution over an axis of 2 cells came out random: volumes are
    trained in float32 there.
    """
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # it says its precision once a launch
    on_gpu = torch.cuda.is_available()
    if precision == "auto":
        precision = "bf16" if on_gpu or (_cpu_multiplies_bf16() and not _convolves_volumes(module)) else "float32"
    return Fabric(accelerator="cuda" if on_gpu else "cpu", devices=1,
                  precision={"bf16": "bf16-mixed", "float32": "32-true"}[precision])


def _cpu_multiplies_bf16() -> bool:
    """Emulated bf16 is far slower than float32: ask for AVX512-BF16 or AMX."""
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def _convolves_volumes(module: nn.Module) -> bool:
    """A ViT's patch embedding, whose stride is its kernel, is applied as a matrix product and does not count."""
    return any(isinstance(m, nn.Conv3d) and m.kernel_size != m.stride for m in module.modules())
