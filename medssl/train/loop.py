"""The only training loop: whatever has `forward(views) -> (loss, figures)` goes through it, labelled or not."""

from __future__ import annotations

import logging
import math
import os
import shutil
import signal
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import PositiveFloat, PositiveInt
from torch import nn

from medssl.augment.policy import ViewPolicy
from medssl.data.loader import Loader
from medssl.errors import ConfigError, Stopped, TrainingError
from medssl.models.activations import checkpoint_activations
from medssl.rng import torch_seed
from medssl.train.bar import note_of
from medssl.train.checkpoint import Checkpoints, Progress
from medssl.train.how import HowConfig
from medssl.train.launch import World, alone, gather_shards
from medssl.train.metrics import Metrics
from medssl.train.onlook import Onlooker, Onlookers
from medssl.train.optim import OptimConfig, build_optimizer, set_lr
from medssl.train.pace import Pace
from medssl.train.precision import autocast
from medssl.train.signals import Signals
from medssl.train.step import Gradients, Outcome, OutOfMemory, is_out_of_memory
from medssl.types import Batch

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
    progress: Callable[..., None] | None = None, world: World | None = None, onlookers: Sequence[Onlooker] = (),
) -> Fitted:
    """Trains `module` in place. With a run folder it writes metrics and checkpoints there, and resumes from them.

    Step k reads the same cases and draws the same views whether or not the run was interrupted before it, and however
    many processes share them.

    Args:
        world: the processes that do it together; by default this one alone.
        onlookers: asked now and then by the first process; not of a module that is sharded.

    Raises:
        TrainingError: losses or gradients are not finite three times in a row, the run has collapsed or diverges, or
            memory does not suffice. A checkpoint was written.
        ConfigError: a norm has nothing to normalise over, or the batch cannot be shared out.
        Stopped: SIGTERM, SIGUSR1 or Ctrl-C asked for it; a checkpoint was written.
    """
    world = world or alone()
    _require_shares(config, world)
    run = _Run(module, loader, policy, config, folder, world, onlookers)
    with Signals(listen=folder is not None) as signals:
        run.go_on(signals, progress)
    if world.is_sharded:
        gather_shards(module)
    module.eval()
    return Fitted(statistics.fmean(run.done.tail or [math.nan]), run.done.seconds)


class _Run:
    """From the last checkpoint, or the beginning, to the last step."""

    def __init__(self, module: nn.Module, loader: Loader, policy: ViewPolicy, config: TrainConfig, folder: Path | None,
                 world: World, onlookers: Sequence[Onlooker]) -> None:
        self.module, self.loader, self.config, self.world = module, loader, config, world
        model = _made_ready(module, config, world)
        self.optimizer = build_optimizer(module, config.optim)
        self.checkpoints = Checkpoints(folder, world, module, self.optimizer, config.checkpoint_seconds)
        self.done = self.checkpoints.load() or self.checkpoints.first(Progress())
        world.require_alike(self.done.step, "checkpoints")
        self.pace = Pace(config.steps - self.done.step)
        self.gradients = Gradients(world, module, model, policy, autocast(config.precision, module, world.device),
                                   self.pace, config.accumulate, self.done.halvings)
        self.metrics = Metrics(folder, self.done.step) if folder and world.is_first else None
        self.onlookers = Onlookers(onlookers if world.is_first and not world.is_sharded else ())
        self.look_every = (config.look_every or math.ceil(config.steps / 10)) if onlookers else config.steps
        self.is_watched = config.watch and folder is not None  # a curve's point is judged however badly it learnt
        self.told: dict[str, float] = {}

    def go_on(self, signals: Signals, progress: Callable[..., None] | None) -> None:
        config, done, world = self.config, self.done, self.world
        began = time.monotonic() - done.seconds
        batches = signals.kept_from(lambda: self.loader.batches(done.step, config.steps, config.workers, world.rank,
                                                                world.size))
        for step in range(done.step, config.steps):
            batch = self._next(batches)
            lr = set_lr(self.optimizer, config.optim, step, config.steps)
            outcome = self._gradients(batch, torch_seed(self.loader.seed, "step", step, world.rank))
            loss, stop, due = world.mean(outcome.loss, signals.received, self.checkpoints.is_due)
            norm = self.gradients.norm()
            self._advance(loss, norm, f"at step {step}, with learning rate {lr:.3g}, on cases {_few(batch.case_ids)}")
            self.pace.step(config.batch_size)
            done.step, done.seconds, done.halvings = step + 1, time.monotonic() - began, self.gradients.halvings
            is_last = done.step == config.steps
            if done.step > 0.9 * config.steps and not done.refused:
                done.tail.append(loss)
            looks = is_last or done.step % self.look_every == 0  # alike in all processes
            tells = looks or step % config.log_every == 0
            health = self._health(outcome) if tells else {}
            if tells:
                parts = self.gradients.parts(len(batch.case_ids))
                self._tell(step, {"loss": loss, "lr": lr, **health, "gradient_norm": norm, "parts": parts}, looks)
            self._watch(step, loss, health)
            if stop or (due or is_last) and not done.refused:  # weights that lead nowhere are not worth keeping
                is_kept = self.checkpoints.write(done)
            if stop:
                raise Stopped(signals.received or signal.SIGTERM, done.step, is_kept)
            if progress:
                progress(done.step, config.steps, note=note_of(loss, self.told))

    def _next(self, batches: Iterator[Batch]) -> Batch:
        try:
            with self.pace.loading():
                return next(batches)
        except RuntimeError as error:  # torch's, in many words
            if "DataLoader worker" not in str(error):
                raise
            if self.world.size == 1:
                self.checkpoints.write(self.done)
            raise TrainingError("A process that reads ahead was killed, most likely for want of memory",
                                expected=f"room for {self.config.workers} of them",
                                remedy="go on with the same command and fewer train.workers") from None

    def _gradients(self, batch: Batch, seed: int) -> Outcome:
        try:
            return self.gradients.take(batch, seed)
        except ConfigError:
            if self.done.step == 0:
                self.checkpoints.forget()
            raise
        except OutOfMemory:
            if self.world.size == 1:  # the others are in the middle of the step
                self.checkpoints.write(self.done)
            raise

    def _advance(self, loss: float, norm: float, where: str) -> None:
        """Steps along the gradient, where there is one; TrainingError where there has not been for a while."""
        if math.isfinite(loss) and math.isfinite(norm):
            self.gradients.clip(norm, self.config.clip)
            self._step()
            self.done.refused = 0
            return
        self.gradients.undo()
        found = f"The gradient's norm is {norm} {where}" if math.isfinite(loss) else f"The loss is {loss} {where}"
        if self.done.refused + 1 == REFUSED:
            raise TrainingError(
                f"{found}, {REFUSED} steps in a row", expected="finite numbers",
                remedy="lower train.optim.lr, lengthen train.optim.warmup or set train.clip=1.0, under another --out; "
                       "where bf16 is to blame, go on with train.precision=float32 from the last checkpoint, which is "
                       "of before these steps")
        self.done.refused += 1
        log.warning(f"{found}; this step was left out")

    def _step(self) -> None:
        try:
            self.optimizer.step()
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            raise TrainingError("Out of memory in the optimiser, which keeps two numbers for each weight",
                                expected="room for them", remedy="choose a smaller encoder, train.optim.name=sgd (one "
                                "number), or several devices with train.strategy=fsdp; the last checkpoint is kept"
                                ) from None

    def _health(self, outcome: Outcome) -> dict[str, float]:
        """The objective's figures, of all processes' samples."""
        return dict(zip(outcome.health, self.world.mean(*map(float, outcome.health.values())), strict=True))

    def _watch(self, step: int, loss: float, health: dict[str, float]) -> None:
        if not self.is_watched or self.done.refused:
            return
        try:
            self.done.watch.see(step, loss, health)
        except TrainingError:
            self.checkpoints.write(self.done)
            raise

    def _tell(self, step: int, figures: dict[str, float], looks: bool) -> None:
        if not self.metrics:
            return
        self.told = {**figures, **self.pace.figures(), "seconds": self.done.seconds}
        if looks and not self.done.refused:
            with self.pace.looking():
                sight = self.onlookers.look(self.module, self.done.step)
            self.told |= sight.figures
            self.metrics.show(step, sight.pictures)
        self.metrics.write(step, self.told)


def _require_shares(config: TrainConfig, world: World) -> None:
    if config.batch_size % world.size:
        multiple = max(1, round(config.batch_size / world.size)) * world.size
        raise ConfigError(f"train.batch_size is {config.batch_size}, to be shared by {world.size} processes",
                          expected=f"a multiple of {world.size}",
                          remedy=f"give train.batch_size={multiple}, or another number of devices")
    cases = config.batch_size // world.size
    if cases < config.accumulate:
        raise ConfigError(f"train.accumulate is {config.accumulate}, and a process has {cases} cases a step",
                          expected="no more parts than cases", remedy="lower train.accumulate")


def _made_ready(module: nn.Module, config: TrainConfig, world: World) -> nn.Module:
    """What to call instead of the module in training."""
    if config.checkpoint_activations:
        checkpoint_activations(module)
    if config.compile:
        _require_compiler()
        module.compile()
    return world.share(module.train())


def _require_compiler() -> None:
    """torch.compile has the kernels of a CPU, and on a GPU what starts them, compiled on the spot."""
    compiler = os.environ.get("CXX", "g++")
    if not shutil.which(compiler):
        raise ConfigError(f"train.compile is true, and there is no C++ compiler {compiler!r} here",
                          expected="g++, or what CXX names", remedy="install g++, or leave train.compile out")


def _few(case_ids: list[str]) -> str:
    return ", ".join(case_ids[:4]) + (" …" if len(case_ids) > 4 else "")
