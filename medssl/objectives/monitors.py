"""Figures that tell a healthy embedding from a collapsed one."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


@torch.no_grad()
def feature_std(z: Tensor) -> Tensor:
    """Spread over the batch of z / ‖z‖, times √D, (): near 1 when z (B, D) fills the sphere, 0 after a collapse."""
    return F.normalize(z.float(), dim=1).std(0).mean() * z.shape[1] ** 0.5


@torch.no_grad()
def effective_rank(z: Tensor) -> Tensor:
    """In how many directions z (B, D) varies, (): the participation ratio (Σλ)² / Σλ² of its covariance's eigenvalues.

    From 1 (a line) to min(B - 1, D). Needs no eigenvalues: both sums are traces. After a full collapse only rounding
    errors vary and it says nothing; `feature_std` tells that.
    """
    centred = z.float() - z.float().mean(0)
    with torch.autocast(z.device.type, enabled=False):
        gram = centred @ centred.T if z.shape[0] < z.shape[1] else centred.T @ centred
    return gram.trace() ** 2 / gram.square().sum().clamp_min(torch.finfo(torch.float32).tiny)
