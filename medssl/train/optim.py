"""Optimisers and the learning rate's way through a run."""

from __future__ import annotations

import math
from typing import Literal

import torch
from pydantic import Field, NonNegativeFloat, PositiveFloat
from torch import nn

from medssl.config import Config


class OptimConfig(Config):
    """AdamW or SGD with linear warm-up and a cosine to zero."""

    name: Literal["adamw", "sgd"] = "adamw"
    lr: PositiveFloat = 1e-3
    weight_decay: NonNegativeFloat = 0.05
    """Not applied to biases and norms under AdamW; applied to everything under SGD, as SimSiam's reference has it."""
    betas: tuple[float, float] = (0.9, 0.95)
    momentum: float = 0.9
    warmup: float = Field(0.05, ge=0, le=1)
    """Share of the steps over which the rate rises from zero."""


def build_optimizer(module: nn.Module, config: OptimConfig) -> torch.optim.Optimizer:
    """Groups carry `fixed_lr`: parameters that `module.fixed_lr_parameters()` names keep their rate throughout; and
    `lr_share`: of the rate, as `module.lr_shares()` has it."""
    fixed, shares = {id(p) for p in module.fixed_lr_parameters()}, module.lr_shares()
    groups: dict[tuple[bool, bool, float], list[nn.Parameter]] = {}
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            decayed = config.name == "sgd" or parameter.ndim > 1
            groups.setdefault((id(parameter) in fixed, decayed, shares.get(name, 1.0)), []).append(parameter)
    described = [{"params": parameters, "fixed_lr": is_fixed, "lr_share": share,
                  "weight_decay": config.weight_decay if decayed else 0.0}
                 for (is_fixed, decayed, share), parameters in groups.items()]
    if config.name == "sgd":
        return torch.optim.SGD(described, lr=config.lr, momentum=config.momentum)
    return torch.optim.AdamW(described, lr=config.lr, betas=config.betas, fused=True)


def set_lr(optimizer: torch.optim.Optimizer, config: OptimConfig, step: int, steps: int) -> float:
    """Sets the rate of step `step` of `steps`, and returns it."""
    warm = max(1, round(config.warmup * steps)) if config.warmup else 0
    rising = (step + 1) / max(1, warm)
    falling = 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))
    share = rising if step < warm else falling
    for group in optimizer.param_groups:
        group["lr"] = config.lr * group["lr_share"] * (1.0 if group["fixed_lr"] else share)
    return config.lr * share
