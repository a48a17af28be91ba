"""The only training loop: whatever has `forward(views) -> (loss, figures)` goes through it, labelled or not."""

from __future__ import annotations

import logging
import math
import signal
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
from pydantic import PositiveFloat, PositiveInt
from torch import nn

from medssl.augment.policy import ViewPolicy
from medssl.data.loader import Loader
from medssl.errors import ConfigError, Stopped, TrainingError
from medssl.rng import torch_seed
from medssl.train.checkpoint import Checkpoints, Progress
from medssl.train.how import HowConfig
from medssl.train.launch import World, alone, gather_shards
from medssl.train.monitor import Metrics
from medssl.train.optim import OptimConfig, build_optimizer, set_lr
from medssl.train.precision import autocast
from medssl.train.signals import Signals
from medssl.train.step import Gradients, OutOfMemory, not_finite

log = logging.getLogger(__name__)

REFUSED = 3
"""Steps in a row whose loss or gradient is not finite that end a run; fewer are left out, and told."""


class TrainConfig(HowConfig):
    """How long, and how."""

    steps: PositiveInt = 1000
    batch_size: PositiveInt = 64
    """Cases a step, all devices together."""
    optim: OptimConfig = OptimConfig()
    clip: PositiveFloat | None = None
    """Greatest norm of the gradient."""


@dataclass(frozen=True)
class Fitted:
    """What a finished run can tell: mean loss over the last tenth of the steps, and seconds, interruptions left out."""

    loss: float
    seconds: float


def fit(
    module: nn.Module, loader: Loader, policy: ViewPolicy, config: TrainConfig, folder: Path | None = None,
    progress: Callable[..., None] | None = None, world: World | None = None,
) -> Fitted:
    """Trains `module` in place. With a run folder it writes metrics and checkpoints there, and resumes from them.

    Step k reads the same cases and draws the same views whether or not the run was interrupted before it, and however
    many processes share them.

    Raises:
        TrainingError: losses or gradients are not finite three times in a row, or memory does not suffice.
        ConfigError: a norm has nothing to normalise over, or the batch cannot be shared out.
        Stopped: SIGTERM, SIGUSR1 or Ctrl-C asked for it; a checkpoint was written.
    """
    world = world or alone()
    _require_shares(config, world)
    model = _made_ready(module, config, world)
    optimizer = build_optimizer(module, config.optim)
    checkpoints = Checkpoints(folder, world, module, optimizer, config.checkpoint_seconds)
    done = checkpoints.load() or Progress()
    done.parts = max(done.parts, config.accumulate)
    gradients = Gradients(world, module, model, policy, autocast(config.precision, module, world.device), done.parts)
    began = time.monotonic() - done.seconds
    shown = Metrics(folder, done.step) if folder and world.is_first else nullcontext()
    with shown as metrics, Signals(folder is not None) as signals:
        batches = loader.batches(done.step, config.steps, config.workers, world.rank, world.size)
        for step, batch in enumerate(batches, start=done.step):
            torch.manual_seed(torch_seed(loader.seed, "step", step, world.rank))
            lr = set_lr(optimizer, config.optim, step, config.steps)
            try:
                outcome = gradients.take(batch)
            except OutOfMemory:
                if world.size == 1:  # the others are in the middle of the step
                    checkpoints.write(done)
                raise
            loss, stop, due = world.mean(outcome.loss, signals.received, checkpoints.is_due)
            norm = gradients.norm()
            if math.isfinite(loss) and math.isfinite(norm):
                gradients.clip(norm, config.clip)
                optimizer.step()
                done.refused = 0
            elif done.refused + 1 < REFUSED:
                gradients.undo()
                done.refused += 1
                log.warning(f"{not_finite(loss, norm, step, lr, batch.case_ids)}; this step was left out")
            else:
                gradients.undo()
                checkpoints.write(done)
                raise TrainingError(
                    f"{not_finite(loss, norm, step, lr, batch.case_ids)}, {REFUSED} steps in a row",
                    expected="finite numbers", remedy="lower train.optim.lr, lengthen train.optim.warmup, set "
                    "train.clip=1 or, in the same folder, train.precision=float32; the last checkpoint is kept")
            done.step, done.seconds, done.parts = step + 1, time.monotonic() - began, gradients.parts
            if done.step > 0.9 * config.steps:
                done.tail.append(loss)
            if step % config.log_every == 0 or done.step == config.steps:
                health = dict(zip(outcome.health, world.mean(*map(float, outcome.health.values())), strict=True))
                figures = {"loss": loss, "lr": lr, **health, "gradient_norm": norm, "parts": done.parts,
                           "seconds": done.seconds}
                if metrics:
                    metrics.write(step, figures)
            if due or stop or done.step == config.steps:
                checkpoints.write(done, must=done.step == config.steps)
            if stop:
                raise Stopped(signals.received or signal.SIGTERM, done.step)
            if progress:
                progress(done.step, config.steps, note=f"loss {loss:.3f}")
    if world.is_sharded:
        gather_shards(module)
    module.eval()
    return Fitted(sum(done.tail) / len(done.tail), done.seconds)


def _require_shares(config: TrainConfig, world: World) -> None:
    if config.batch_size % world.size:
        raise ConfigError(f"train.batch_size is {config.batch_size}, to be shared by {world.size} processes",
                          expected=f"a multiple of {world.size}", remedy=f"give train.batch_size="
                          f"{max(1, round(config.batch_size / world.size)) * world.size}, or other train.devices")
    cases = config.batch_size // world.size
    if cases < config.accumulate:
        raise ConfigError(f"train.accumulate is {config.accumulate}, and a process has {cases} cases a step",
                          expected="no more parts than cases", remedy="lower train.accumulate")


def _made_ready(module: nn.Module, config: TrainConfig, world: World) -> nn.Module:
    """What to call instead of the module in training."""
    if config.compile:
        module.compile()
    return world.share(module.train())
