"""The only training loop: whatever has `forward(views) -> (loss, figures)` goes through it, labelled or not."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from lightning_fabric import Fabric
from pydantic import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from torch import nn

from medssl.augment.policy import ViewPolicy
from medssl.config import Config
from medssl.data.loader import Loader
from medssl.train.checkpoint import Progress, load_checkpoint, save_checkpoint
from medssl.train.launch import Precision, launch
from medssl.train.monitor import Metrics, norms_explained, require_finite
from medssl.train.optim import OptimConfig, build_optimizer, set_lr


class TrainConfig(Config):
    """How long and how."""

    steps: PositiveInt = 1000
    batch_size: PositiveInt = 64
    optim: OptimConfig = OptimConfig()
    precision: Precision = "auto"
    clip: PositiveFloat | None = None
    """Greatest norm of the gradient."""
    workers: NonNegativeInt = 0
    """Processes that read ahead."""
    log_every: PositiveInt = 20
    """Steps between lines of metrics.jsonl."""
    checkpoint_seconds: NonNegativeFloat = 60.0
    """Seconds between checkpoints."""


@dataclass(frozen=True)
class Fitted:
    """What a finished run can tell: mean loss over the last tenth of the steps, and seconds, interruptions left out."""

    loss: float
    seconds: float


def fit(
    module: nn.Module, loader: Loader, policy: ViewPolicy, config: TrainConfig, folder: Path | None = None,
    progress: Callable[..., None] | None = None,
) -> Fitted:
    """Trains `module` in place. With a run folder it writes metrics and checkpoints there, and resumes from them.

    Step k reads the same cases and draws the same views whether or not the run was interrupted before it.
    TrainingError on a loss that is not finite, ConfigError where a norm has nothing to normalise over.
    """
    fabric = launch(config.precision, module)
    optimizer = build_optimizer(module, config.optim)
    model, optimizer = fabric.setup(module, optimizer)
    done = load_checkpoint(folder / "checkpoints", module, optimizer) if folder else Progress()
    model.train()
    metrics = Metrics(folder, done.step) if folder else None
    saved, began = time.monotonic(), time.monotonic() - done.seconds
    try:
        for step, batch in enumerate(loader.batches(done.step, config.steps, config.workers), start=done.step):
            lr = set_lr(optimizer, config.optim, step, config.steps)
            with norms_explained(config.batch_size):
                loss, health = model(policy(_on_device(batch, fabric)))
            value = float(loss.detach())
            require_finite(value, step, lr, batch.case_ids)
            _step(fabric, model, optimizer, loss, config.clip)
            if step + 1 > 0.9 * config.steps:
                done.tail.append(value)
            if metrics and (step % config.log_every == 0 or step + 1 == config.steps):
                figures = {name: float(figure) for name, figure in health.items()}
                metrics.write(step, {"loss": value, "lr": lr, **figures, "seconds": time.monotonic() - began})
            done.step, done.seconds = step + 1, time.monotonic() - began
            if folder and (time.monotonic() - saved > config.checkpoint_seconds or done.step == config.steps):
                save_checkpoint(folder / "checkpoints", module, optimizer, done)
                saved = time.monotonic()
            if progress:
                progress(step + 1, config.steps, note=f"loss {value:.3f}")
    finally:
        if metrics:
            metrics.close()
    module.eval()
    return Fitted(sum(done.tail) / len(done.tail), done.seconds)


def _step(fabric: Fabric, model: nn.Module, optimizer: torch.optim.Optimizer, loss: torch.Tensor,
          clip: float | None) -> None:
    optimizer.zero_grad(set_to_none=True)
    fabric.backward(loss)
    if clip is not None:
        fabric.clip_gradients(model, optimizer, max_norm=clip, error_if_nonfinite=False)
    optimizer.step()


def _on_device(batch, fabric: Fabric):
    for name in ("image", "mask", "target"):
        tensor = getattr(batch, name)
        if tensor is not None:
            setattr(batch, name, fabric.to_device(tensor))
    return batch
