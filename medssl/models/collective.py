"""What the processes of one run show each other in the middle of a forward pass, with gradient."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd import Function


def processes() -> int:
    """How many processes share the batch; 1 where no process group was set up."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def gathered(x: Tensor) -> Tensor:
    """Every process's `x` (n, ...), by rank one after another, (W n, ...); n is the same everywhere.

    A run on W processes averages their gradients (DDP): what it minimises is the mean of their losses. So each process
    is handed back the gradient of all of these losses with respect to its own `x`, and after the averaging nothing
    shows how the batch was shared out. Without a process group, or in a group of one, it is `x` itself.
    """
    return _Gather.apply(x) if processes() > 1 else x


def over_all(x: Tensor) -> Tensor:
    """The sum of every process's `x`, of its shape, with gradient as `gathered`."""
    return gathered(x[None]).sum(dim=0) if processes() > 1 else x


def own_rows(n: int, device: torch.device) -> Tensor:
    """Where this process's n rows stand in what `gathered` returns, (n,)."""
    return torch.arange(n, device=device) + (dist.get_rank() * n if processes() > 1 else 0)


class _Gather(Function):
    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        parts = [torch.empty_like(x, memory_format=torch.contiguous_format) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, x.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        total = gradient.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total.chunk(dist.get_world_size())[dist.get_rank()]
