"""What the processes of one run say to each other in the middle of a forward pass, with gradient.

A run on W processes averages gradients over them (DDP), so its loss is the mean of theirs. Both functions here hand back to
each process the gradient of the sum of all losses, so that after the averaging nothing shows how the batch was shared out.
Without `torch.distributed`, or in a group of one, they do nothing.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd import Function


def processes() -> int:
    """How many processes share the batch; 1 where no process group was set up."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def summed(x: Tensor) -> Tensor:
    """The sum of every process's `x`, which is of one shape everywhere."""
    return _Sum.apply(x) if processes() > 1 else x


def gathered(x: Tensor) -> Tensor:
    """Every process's `x` (n, ...) one after another, (W n, ...), in the order of their ranks; n is the same everywhere."""
    return _Gather.apply(x) if processes() > 1 else x


def own_rows(n: int, device: torch.device) -> Tensor:
    """Where this process's n rows stand in what `gathered` returns, (n,)."""
    return torch.arange(n, device=device) + (dist.get_rank() * n if processes() > 1 else 0)


class _Sum(Function):
    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        total = x.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        return _Sum.apply(gradient)


class _Gather(Function):
    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        parts = [torch.empty_like(x, memory_format=torch.contiguous_format) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, x.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        return _Sum.apply(gradient).chunk(dist.get_world_size())[dist.get_rank()]
