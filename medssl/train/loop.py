"""The only training loop: whatever has `forward(views) -> (loss, figures)` goes through it, labelled or not."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from lightning_fabric import Fabric
from torch import nn

from medssl.augment.policy import ViewPolicy
from medssl.config import Config
from medssl.data.loader import Loader
from medssl.train.checkpoint import load_checkpoint, save_checkpoint
from medssl.train.launch import Precision, launch
from medssl.train.monitor import Metrics, require_finite
from medssl.train.optim import OptimConfig, build_optimizer, set_lr


class TrainConfig(Config):
    """How long and how."""

    steps: int = 1000
    batch_size: int = 64
    optim: OptimConfig = OptimConfig()
    precision: Precision = "auto"
    clip: float | None = None
    """Greatest norm of the gradient."""
    workers: int = 0
    """Processes that read ahead."""
    log_every: int = 20
    """Steps between lines of metrics.jsonl."""
    checkpoint_seconds: float = 60.0
    """Seconds between checkpoints."""


@dataclass(frozen=True)
class Fitted:
    """What a finished run can tell: mean loss over the last tenth of the steps, seconds of this process's share."""

    loss: float
    seconds: float


def fit(
    module: nn.Module, loader: Loader, policy: ViewPolicy, config: TrainConfig, folder: Path | None = None,
    progress: Callable[..., None] | None = None,
) -> Fitted:
    """Trains `module` in place. With a run folder it writes metrics and checkpoints there, and resumes from them.

    Step k reads the same cases and draws the same views whether or not the run was interrupted before it.
    TrainingError on a loss that is not finite.
    """
    fabric = launch(config.precision)
    optimizer = build_optimizer(module, config.optim)
    start = load_checkpoint(folder / "checkpoints", module, optimizer) if folder else 0
    model, optimizer = fabric.setup(module, optimizer)
    model.train()
    metrics = Metrics(folder, start) if folder else None
    began = saved = time.monotonic()
    tail: list[float] = []
    try:
        for step, batch in enumerate(loader.batches(start, config.steps, config.workers), start=start):
            lr = set_lr(optimizer, config.optim, step, config.steps)
            loss, health = model(policy(_on_device(batch, fabric)))
            value = float(loss.detach())
            require_finite(value, step, lr, batch.case_ids)
            _step(fabric, model, optimizer, loss, config.clip)
            if step >= 0.9 * config.steps:
                tail.append(value)
            if metrics and (step % config.log_every == 0 or step + 1 == config.steps):
                figures = {name: float(figure) for name, figure in health.items()}
                metrics.write(step, {"loss": value, "lr": lr, **figures, "seconds": time.monotonic() - began})
            if folder and time.monotonic() - saved > config.checkpoint_seconds:
                save_checkpoint(folder / "checkpoints", module, optimizer, step + 1)
                saved = time.monotonic()
            if progress:
                progress(step + 1, config.steps, note=f"loss {value:.3f}")
        if folder:
            save_checkpoint(folder / "checkpoints", module, optimizer, config.steps)
    finally:
        if metrics:
            metrics.close()
    module.eval()
    return Fitted(sum(tail) / len(tail) if tail else float("nan"), time.monotonic() - began)


def _step(fabric: Fabric, model: nn.Module, optimizer: torch.optim.Optimizer, loss: torch.Tensor,
          clip: float | None) -> None:
    optimizer.zero_grad(set_to_none=True)
    fabric.backward(loss)
    if clip is not None:
        fabric.clip_gradients(model, optimizer, max_norm=clip)
    optimizer.step()


def _on_device(batch, fabric: Fabric):
    for name in ("image", "mask", "target"):
        tensor = getattr(batch, name)
        if tensor is not None:
            setattr(batch, name, fabric.to_device(tensor))
    return batch
