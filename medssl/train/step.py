"""One step's gradients, from the parts of a batch, and what is done where memory does not suffice for them."""

from __future__ import annotations

import gc
import logging
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.nn.modules.batchnorm import _BatchNorm

from medssl.augment.policy import ViewPolicy
from medssl.errors import ConfigError, TrainingError
from medssl.train.launch import World
from medssl.train.pace import Pace
from medssl.types import Batch

log = logging.getLogger(__name__)


class OutOfMemory(TrainingError):
    """No part of the step was taken: the weights are as they were before it."""


@dataclass(frozen=True)
class Outcome:
    """loss: of this process's share of the batch, not necessarily finite; health: figures by name, each () tensors."""

    loss: float
    health: Mapping[str, Tensor]


class Gradients:
    """Leaves in a module's parameters the gradient of a batch, taken in parts one after another.

    Args:
        model: what to call for `module`, as `World.share` gave it.
        accumulate: how many parts the recipe asks for.
        halvings: how often there are twice as many: where memory does not suffice for one, and the loss is per sample,
            so that their mean is the whole batch's, that is once more from then on.
    """

    def __init__(self, world: World, module: nn.Module, model: nn.Module, policy: ViewPolicy,
                 autocast: AbstractContextManager, pace: Pace, accumulate: int, halvings: int) -> None:
        self.halvings, self._accumulate, self._pace = halvings, accumulate, pace
        self._world, self._module, self._model, self._policy, self._autocast = world, module, model, policy, autocast
        self._buffers = Buffers(module)
        self._refused = ""
        """What was said when memory did not suffice."""

    def parts(self, cases: int) -> int:
        """In how many so many cases are taken; none is empty."""
        return min(self._accumulate << self.halvings, cases)

    def take(self, batch: Batch, seed: int) -> Outcome:
        """OutOfMemory, naming what would have fitted, where there is nothing to halve.

        seed: of what the module draws by itself.
        """
        cases = len(batch.case_ids)
        self._buffers.keep()
        while (outcome := self._tried(batch, self.parts(cases), seed)) is None:
            if self._world.size > 1 or not is_per_sample(self._module) or self.parts(cases) == cases:
                raise self._no_room(batch, seed)
            self.halvings += 1
            log.warning(f"out of memory: from here on each step takes its {cases} cases in {self.parts(cases)} parts; "
                        "a loss that is per sample stays the same")
        return outcome

    def undo(self) -> None:
        """Drops the gradients, and what the forward pass left in running statistics."""
        self._module.zero_grad(set_to_none=True)
        self._buffers.restore()

    def norm(self) -> float:
        """Of all gradients together."""
        norm = nn.utils.get_total_norm(self._all())
        return float(norm.full_tensor() if isinstance(norm, DTensor) else norm)

    def clip(self, norm: float, greatest: float | None) -> None:
        """Shrinks gradients of this norm to the greatest that they may have."""
        if greatest is not None and norm > greatest:
            torch._foreach_mul_(self._all(), greatest / norm)

    def _all(self) -> list[Tensor]:
        return [p.grad for p in self._module.parameters() if p.grad is not None]

    def _tried(self, batch: Batch, parts: int, seed: int) -> Outcome | None:
        """None where memory did not suffice."""
        torch.manual_seed(seed)
        try:
            return self._pass(batch, parts)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            self._refused = str(error).partition("\n")[0][:200]
        self.undo()  # not before the error is gone, whose traceback holds the tensors
        gc.collect()
        if self._world.device.type == "cuda":
            torch.cuda.empty_cache()
        return None

    def _pass(self, batch: Batch, parts: int) -> Outcome:
        self._module.zero_grad(set_to_none=True)
        loss, health = 0.0, {}
        cut = batch.parts(parts)
        for number, part in enumerate(cut, start=1):
            share = len(part.case_ids) / len(batch.case_ids)
            with self._pace.augmenting():
                views = self._policy(part.to(self._world.to_device))
            with self._world.keeping_gradients(self._model, number < len(cut)):
                with norms_explained(len(part.case_ids), parts), self._autocast:
                    its_loss, its_health = self._model(views)
                self._world.backward(its_loss * share if len(cut) > 1 else its_loss)
            loss += its_loss.detach() * share
            health = {name: health.get(name, 0.0) + figure * share for name, figure in its_health.items()}
        return Outcome(float(loss), health)

    def _no_room(self, batch: Batch, seed: int) -> OutOfMemory:
        cases, refused = len(batch.case_ids), self._refused
        whole, parts = cases * self._world.size, self.parts(cases)
        fitting = self._fitting(batch, seed) if self._world.size == 1 else 0
        if fitting:
            found, smaller = f"a batch of {fitting} fitted when it was tried just now", f"train.batch_size={fitting}"
        elif self._world.size > 1:
            found, smaller = f"half of it, {whole // 2}, is the next to try", f"train.batch_size={whole // 2}"
        else:
            found, smaller = "not even one case fitted", "smaller views (augment.size, data.box.size) or encoder"
        ways = ["train.checkpoint_activations=true (ViTs)"]
        if 2 * parts <= cases and (fitting or self._world.size > 1):
            ways += [f"train.accumulate={2 * parts} (unless the loss is per sample, each part is then compared "
                     "within itself alone)", "more devices"]
        return OutOfMemory(
            f"Out of memory with a batch of {whole}, {cases // parts} cases at a time on each device ({refused})",
            expected=f"room for it; {found}",
            remedy=f"go on from the checkpoint with the same command and {' or '.join(ways)}; or begin anew, in "
                   f"another --out, with {smaller}")

    def _fitting(self, batch: Batch, seed: int) -> int:
        """The largest halving of the batch whose gradients fit, by trying; 0 where none does."""
        cases = len(batch.case_ids) // 2
        while cases:
            found = self._tried(batch.parts(len(batch.case_ids) // cases)[0], 1, seed)
            self.undo()
            if found:
                return cases
            cases //= 2
        return 0


class Buffers:
    """A copy of a module's buffers, such as running statistics, as they were before a step."""

    def __init__(self, module: nn.Module) -> None:
        self._live = list(module.buffers())
        self._kept = [buffer.clone() for buffer in self._live]

    def keep(self) -> None:
        if self._live:
            torch._foreach_copy_(self._kept, self._live)

    @torch.no_grad()
    def restore(self) -> None:
        for live, kept in zip(self._live, self._kept, strict=True):
            live.copy_(kept)


def is_per_sample(module: nn.Module) -> bool:
    """Whether the loss of a batch is the mean of its samples' own, so that it may be cut without changing it."""
    return getattr(module, "per_sample", False) and not any(isinstance(m, _BatchNorm) for m in module.modules())


def is_out_of_memory(error: BaseException) -> bool:
    """Whether CUDA, torch's CPU allocator, oneDNN or Python say that there is no more memory."""
    signs = ("can't allocate memory", "out of memory", "could not create a primitive", "could not create a memory",
             "STATUS_ALLOC_FAILED")
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or any(sign in str(error) for sign in signs)


@contextmanager
def norms_explained(cases: int, parts: int) -> Iterator[None]:
    """ConfigError where a batch or instance norm meets one value a channel, whose deviation torch refuses to take, in
    one of the parts of a batch."""
    try:
        yield
    except ValueError as error:
        refused, _, shape = str(error).partition(" when training, got input size ")
        if not refused.startswith("Expected more than 1 "):
            raise
        larger = "make views larger: augment.size, or data.box.size where that is left out"
        few = "value per channel" in refused and cases < 2
        fewer_parts = "lower train.accumulate, or " if parts > 1 else "give train.batch_size=2 or more, or "
        raise ConfigError(f"A norm has one value a channel to normalise, in maps {shape}, with train.batch_size "
                          f"{cases * parts}" + (f" in {parts} parts" if parts > 1 else ""),
                          expected="at least 2", remedy=fewer_parts * few + larger) from None
