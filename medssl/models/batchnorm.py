"""Batch norm over the batches of all processes: Ioffe and Szegedy 2015 (arXiv 1502.03167) as one process would do it.

torch.nn.SyncBatchNorm does this on GPUs alone; this one runs wherever `torch.distributed` does.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from medssl.models.collective import gathered, processes


class SynchronisedBatchNorm(_BatchNorm):
    """nn.BatchNorm1d, 2d and 3d in one, whose mean and variance in training are those of every process's x together.

    x (B, C, *S), of any B and S on each process. Without a process group, and in evaluation, it is nn.BatchNorm.
    """

    def _check_input_dim(self, input: Tensor) -> None:
        """Any number of axes after the channels."""

    def forward(self, input: Tensor) -> Tensor:
        by_batch = self.training or self.running_mean is None
        if processes() == 1 or not by_batch:
            return super().forward(input)
        x = input.to(torch.promote_types(input.dtype, torch.float32))
        mean, variance, count = _moments(x)
        if self.training and self.running_mean is not None:
            self._track(mean, variance * (count / (count - 1)))
        along_channels = (1, -1) + (1,) * (x.ndim - 2)
        x = (x - mean.view(along_channels)) * (variance + self.eps).rsqrt().view(along_channels)
        if self.affine:
            x = x * self.weight.view(along_channels) + self.bias.view(along_channels)
        return x.to(input.dtype)

    @torch.no_grad()
    def _track(self, mean: Tensor, unbiased: Tensor) -> None:
        self.num_batches_tracked.add_(1)
        rate = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), rate)
        self.running_var.lerp_(unbiased.to(self.running_var.dtype), rate)


def synchronise_batch_norms(module: nn.Module) -> nn.Module:
    """Makes every batch norm in `module` a SynchronisedBatchNorm, in place: same tensors, same names, same hooks."""
    for norm in module.modules():
        if type(norm) in (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d):
            norm.__class__ = SynchronisedBatchNorm
    return module


def _moments(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean (C,), variance (C,) and count () of the values of a channel over all processes.

    From each process's own mean and variance (Chan et al. 1979), since sums of squares lose digits.
    """
    variance, mean = torch.var_mean(x, dim=[0, *range(2, x.ndim)], correction=0)
    count = x.new_tensor([x.numel() // x.shape[1]])
    everyones = gathered(torch.cat([mean, variance, count])[None])
    means, variances, counts = everyones.split([len(mean), len(mean), 1], dim=1)
    share = counts / counts.sum()
    mean = (share * means).sum(0)
    return mean, (share * (variances + (means - mean).square())).sum(0), counts.sum()
