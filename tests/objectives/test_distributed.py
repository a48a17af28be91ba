"""Two processes with half of the cases each do what one process does with all of them, whatever the objective."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing
from small import FITTING, build, chosen, views_for
from torch.nn.parallel import DistributedDataParallel
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map

from medssl.models.batchnorm import synchronise_batch_norms
from medssl.types import Views

FLAT = [(name, encoder) for name in FITTING for encoder in FITTING[name] if encoder.endswith("2d")]
"""Images alone, for speed: how many axes a picture has is nothing to the processes."""
CASES = 8


class InFloat64(TorchFunctionMode):
    """Whoever asks for float32 gets float64, so that no mistake can pass for rounding."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        func = torch.Tensor.double if func is torch.Tensor.float else func
        args, kwargs = tree_map(lambda x: torch.float64 if x is torch.float32 else x, (args, kwargs or {}))
        return func(*args, **kwargs)


def in_float64(views: Views) -> Views:
    drawn = {key: values.double() if values.is_floating_point() else values for key, values in views.drawn.items()}
    return Views(tuple(image.double() for image in views.images), drawn)


def step(name: str, encoder: str, cases: slice) -> dict[str, torch.Tensor]:
    """Loss, gradients and buffers after a pass over some of the cases, averaged over the processes that there are."""
    objective = build(name, encoder).double()
    views = in_float64(chosen(views_for(objective, encoder, CASES), list(range(CASES))[cases]))
    distributed = dist.is_initialized()
    model = DistributedDataParallel(synchronise_batch_norms(objective)) if distributed else objective
    with InFloat64():
        loss, _ = model(views)
    loss.backward()
    loss = loss.detach()
    if distributed:
        dist.all_reduce(loss)
        loss /= dist.get_world_size()
    gradients = {f"gradient of {path}": p.grad for path, p in objective.named_parameters() if p.grad is not None}
    return {"loss": loss} | gradients | dict(objective.named_buffers())


def work(rank: int, folder: Path) -> None:
    """What each of two processes does: every objective on its half of the cases. One writes down what came of it."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    half = slice(0, CASES // 2) if rank == 0 else slice(CASES // 2, CASES)
    outcomes = {f"{name} {encoder}": step(name, encoder, half) for name, encoder in FLAT}
    if rank == 0:
        torch.save(outcomes, folder / "outcomes.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory) -> dict[str, dict[str, torch.Tensor]]:
    folder = tmp_path_factory.mktemp("processes")
    multiprocessing.set_forkserver_preload(["medssl.objectives", "medssl.augment"])  # imported once for both
    torch.multiprocessing.start_processes(work, (folder,), nprocs=2, start_method="forkserver")
    return torch.load(folder / "outcomes.pt", weights_only=True)


@pytest.mark.parametrize(("name", "encoder"), FLAT)
def test_two_processes_equal_one(name, encoder, outcomes):
    together, alone = outcomes[f"{name} {encoder}"], step(name, encoder, slice(None))
    assert together.keys() == alone.keys()
    largest = max(tensor.abs().max().item() for what, tensor in alone.items() if what.startswith("gradient"))
    assert largest > 1e-3
    for what, tensor in alone.items():
        same = torch.allclose(together[what], tensor, rtol=1e-7, atol=1e-10 * largest)
        assert same, f"{what}: what compares samples with each other is given those of all processes by `gathered`"
