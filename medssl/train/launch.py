"""The processes of a run, each with a device of its own, through Lightning Fabric.

torchrun or srun start them, on one machine or many; or `train.devices` does on one machine, where this program starts
its own command once more for each further device. Each reads its share of every batch, and gradients are averaged: what
is learnt does not depend on their number.
"""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from datetime import timedelta
from typing import Literal, TypeVar

import torch
import torch.distributed as dist
from lightning_fabric import Fabric
from lightning_fabric.plugins.environments import (
    ClusterEnvironment,
    LightningEnvironment,
    SLURMEnvironment,
    TorchElasticEnvironment,
)
from lightning_fabric.strategies import DDPStrategy, ModelParallelStrategy, Strategy
from torch import Tensor, nn
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from medssl.errors import ConfigError, RunError, Stopped, TrainingError
from medssl.models.batchnorm import synchronise_batch_norms
from medssl.models.vit import Block
from medssl.train.rank import srun_tasks, started_by_torchrun

Sharing = Literal["ddp", "fsdp"]
PATIENCE = timedelta(days=7)
"""How long processes wait for the first one to prepare an archive. A step of training has torch's own limit."""

Result = TypeVar("Result")


class World:
    """The processes of one run, seen from one of them."""

    def __init__(self, fabric: Fabric, strategy: Sharing = "ddp") -> None:
        self._fabric, self.strategy = fabric, strategy
        self.rank, self.size, self.device = fabric.global_rank, fabric.world_size, fabric.device
        self._waiting = dist.new_group(backend="gloo", timeout=PATIENCE) if self.size > 1 else None

    def __enter__(self) -> World:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        """Stopped, all wait for the first one's checkpoint: the end of one is the end of all. TrainingError where
        another process was lost, which torch says in many words."""
        if self.size == 1:
            return
        if isinstance(error, Stopped):
            with suppress(RuntimeError):  # lost at the very end
                dist.barrier(group=self._waiting)
        if _is_of_the_network(error):
            raise TrainingError(
                f"Another process of this run ended or cannot be reached ({_gist(error)})",
                expected=f"{self.size} to the end", remedy="see what that one said last, or its cluster; the same "
                "command goes on from the last checkpoint") from None

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    @property
    def is_sharded(self) -> bool:
        """Whether no process has the whole model."""
        return self.size > 1 and self.strategy == "fsdp"

    def first(self, work: Callable[[], Result]) -> Result | None:
        """Done by the first process while the others wait; where it fails, all fail, and the first one says why."""
        if self.size == 1:
            return work()
        told: list[str | None] = [None]
        try:
            return work() if self.is_first else None
        except BaseException as error:
            told = [str(error) or type(error).__name__]
            raise
        finally:
            dist.broadcast_object_list(told, src=0, group=self._waiting)
            if told[0] and not self.is_first:
                raise SystemExit(1)

    def mean(self, *values: float) -> list[float]:
        """Of each of the values, over all processes."""
        if self.size == 1:
            return list(values)
        shared = torch.tensor(values, dtype=torch.float64, device=self.device)
        dist.all_reduce(shared)
        return (shared / self.size).tolist()

    def require_alike(self, step: int, what: str) -> None:
        """RunError in all processes where they do not all go on from the same step."""
        mean, square = self.mean(step, step**2)
        if square - mean**2 > 1e-6 * max(1.0, square):
            raise RunError(f"The processes of this run find different {what}: this one goes on at step {step}",
                           expected="one run folder that all of them see", remedy="give an --out on a disk that the "
                           "machines share; if it is, wait a minute and give the same command again")

    def share(self, module: nn.Module) -> nn.Module:
        """What to call in training instead of `module`, which is brought to this process's device.

        Batch norms then normalise over the whole batch, and, under `fsdp`, no process holds more than its share of the
        weights, gradients and optimiser states of a ViT.
        """
        if self.size > 1:
            synchronise_batch_norms(module)
        return self._fabric.setup_module(module)

    def to_device(self, tensor: Tensor) -> Tensor:
        return self._fabric.to_device(tensor)

    def backward(self, loss: Tensor) -> None:
        self._fabric.backward(loss)

    def keeping_gradients(self, model: nn.Module, keep: bool) -> AbstractContextManager:
        """Gradients made within stay in this process where `keep`; the next ones made outside go round with them."""
        if self.size == 1 or not keep:
            return nullcontext()
        return self._fabric.no_backward_sync(model)


def launch(devices: int = 1, strategy: Sharing = "ddp") -> World:
    """Joins the processes that torchrun or srun started, or starts `devices` of them; ConfigError where there are fewer
    GPUs than that."""
    environment, devices, nodes = _surroundings(devices)
    on_gpu = torch.cuda.is_available()
    if on_gpu and devices > torch.cuda.device_count():
        raise ConfigError(f"{devices} processes on a machine with {torch.cuda.device_count()} GPU(s) in sight",
                          expected="a GPU for each", remedy="lower train.devices, --nproc-per-node or "
                          "--ntasks-per-node, or ask for more GPUs (--gres=gpu:4; --gpus-per-task hides them)")
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    logging.getLogger("lightning_fabric.utilities.rank_zero").setLevel(logging.WARNING)
    sharing = {"strategy": _strategy(strategy, devices * nodes)} if devices * nodes > 1 else {}
    fabric = Fabric(accelerator="cuda" if on_gpu else "cpu", devices=devices, num_nodes=nodes, plugins=[environment],
                    **sharing)
    try:
        fabric.launch()
    except dist.DistError as error:
        place = f"{os.environ['MASTER_ADDR']}, port {os.environ['MASTER_PORT']}"
        raise RunError(f"{devices * nodes} processes did not meet at {place} ({_gist(error)})",
                       expected="all of them there, and the port free",
                       remedy="see that each was started and that the machines reach each other; MASTER_PORT=29501 "
                              "before the command takes another port") from None
    if fabric.global_rank > 0:
        logging.getLogger("medssl").setLevel(logging.ERROR)
    return World(fabric, strategy)


def alone() -> World:
    """This process by itself, whatever started it."""
    return World(Fabric(accelerator="cuda" if torch.cuda.is_available() else "cpu", devices=1,
                        plugins=[LightningEnvironment()]))


def gather_shards(module: nn.Module) -> None:
    """Gives every process the whole of each weight again, on the CPU; all must call it."""
    for part in module.modules():
        for name, weight in list(part.named_parameters(recurse=False)):
            if isinstance(weight, DTensor):
                part._parameters[name] = nn.Parameter(weight.detach().full_tensor().cpu(), weight.requires_grad)


def _surroundings(devices: int) -> tuple[ClusterEnvironment, int, int]:
    """Who started the processes, how many there are on each machine, and on how many machines."""
    if started_by_torchrun():
        here = int(os.environ["LOCAL_WORLD_SIZE"])
        return TorchElasticEnvironment(), here, int(os.environ["WORLD_SIZE"]) // here
    if srun_tasks() > 1:
        return _srun(srun_tasks(), int(os.environ.get("SLURM_STEP_NUM_NODES", 1)))
    return LightningEnvironment(), devices, 1


def _srun(tasks: int, nodes: int) -> tuple[ClusterEnvironment, int, int]:
    """Tells Fabric of the step what it would otherwise take from the job, of which the step may be a part."""
    spread = os.environ.get("SLURM_STEP_TASKS_PER_NODE", "")  # 4(x2), or 4,3
    if tasks % nodes or "," in spread:
        raise ConfigError(f"srun put {tasks} tasks on {nodes} machines as {spread}", expected="as many on each",
                          remedy="give --nodes and --ntasks-per-node instead of --ntasks")
    job, step = int(os.environ["SLURM_JOB_ID"]), int(os.environ["SLURM_STEP_ID"])
    os.environ |= {"SLURM_NTASKS_PER_NODE": str(tasks // nodes), "SLURM_NODELIST": os.environ["SLURM_STEP_NODELIST"]}
    os.environ.setdefault("MASTER_PORT", str(15000 + (97 * job + step) % 10000))
    warnings.filterwarnings("ignore", "The `srun` command")  # Fabric doubts it where the job is an interactive shell
    return SLURMEnvironment(auto_requeue=False), tasks // nodes, nodes


def _is_of_the_network(error: BaseException | None) -> bool:
    """gloo has no exception of its own."""
    return isinstance(error, dist.DistError) or isinstance(error, RuntimeError) and "gloo" in str(error)


def _gist(error: BaseException) -> str:
    """The first sentence, without the place in gloo's source."""
    return str(error).partition("\n")[0].rpartition("] ")[2].partition(". ")[0][:200]


def _strategy(strategy: Sharing, processes: int) -> Strategy:
    if strategy == "ddp":
        return DDPStrategy()
    return ModelParallelStrategy(shard, data_parallel_size=processes, tensor_parallel_size=1)


def shard(module: nn.Module, mesh: dist.DeviceMesh) -> nn.Module:
    """Block by block, so that no more than one block's weights are whole at a time."""
    blocks = [part for part in module.modules() if isinstance(part, Block)]
    if not blocks:
        raise ConfigError("train.strategy=fsdp shares out the blocks of a ViT, and this network has none",
                          expected="encoder.name=vit", remedy="use train.strategy=ddp: such a network fits one GPU")
    for part in [*blocks, module]:
        fully_shard(part, mesh=mesh["data_parallel"])
    return module
