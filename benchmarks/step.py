"""One training step of a network, and the precision that it is done in."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext

import torch
from torch import Tensor, nn

Loss = Callable[[], Tensor]
PRECISIONS = ("float32", "bf16")


def step(model: nn.Module, loss: Loss, precision: str = "float32",
         optimizer: torch.optim.Optimizer | None = None) -> Callable[[], None]:
    """Forward, backward and the optimiser's step, where there is one; then the gradients are dropped."""
    device = next(model.parameters()).device.type

    def work() -> None:
        with torch.autocast(device, torch.bfloat16) if precision == "bf16" else nullcontext():
            value = loss()
        value.backward()
        if optimizer:
            optimizer.step()
        model.zero_grad()
    return work
