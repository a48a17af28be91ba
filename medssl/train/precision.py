"""In which numbers a network computes, and on which device one process does it."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Literal

import torch
from torch import nn

Precision = Literal["auto", "bf16", "float32"]


def best_device() -> torch.device:
    """This process's own GPU where it has one, else the CPU."""
    return torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")


def autocast(precision: Precision, module: nn.Module, device: torch.device) -> AbstractContextManager:
    """Within it the module's matrix products and convolutions are of that precision; weights stay float32.

    `auto` takes bf16 where the hardware multiplies it, and multiplies it right. On CPUs, torch 2.13's weight gradient
    of a bf16 3-D convolution over an axis of 2 cells came out random: volumes are trained in float32 there.
    """
    if precision == "auto":
        able = device.type == "cuda" or (_cpu_multiplies_bf16() and not _convolves_volumes(module))
        precision = "bf16" if able else "float32"
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")


def _cpu_multiplies_bf16() -> bool:
    """Emulated bf16 is far slower than float32: ask for AVX512-BF16 or AMX."""
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def _convolves_volumes(module: nn.Module) -> bool:
    """A ViT's patch embedding, whose stride is its kernel, is applied as a matrix product and does not count."""
    return any(isinstance(m, nn.Conv3d) and m.kernel_size != m.stride for m in module.modules())
