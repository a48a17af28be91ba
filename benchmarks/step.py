"""One training step of a network, and the precision that it is done in."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext

import torch
from torch import Tensor, nn

Loss = Callable[[], Tensor]
PRECISIONS = ("float32", "bf16")


def step(model: nn.Module, loss: Loss, precision: str = "float32") -> Callable[[], None]:
    """Forward and backward; the gradients are dropped, as an optimiser's `zero_grad` does."""
    def work() -> None:
        with torch.autocast("cpu", torch.bfloat16) if precision == "bf16" else nullcontext():
            value = loss()
        value.backward()
        model.zero_grad()
    return work
