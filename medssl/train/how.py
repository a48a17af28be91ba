"""How a run is done, apart from what it learns."""

from __future__ import annotations

from pydantic import NonNegativeFloat, NonNegativeInt, PositiveInt

from medssl.config import Config
from medssl.train.launch import Sharing
from medssl.train.precision import Precision


class HowConfig(Config):
    """How a run is done. None of it changes what is learnt, up to rounding: a run may go on with other values.

    Two exceptions: each device draws a ViT's drop_path for itself, and `accumulate`, as it says.
    """

    precision: Precision = "auto"
    devices: PositiveInt = 1
    """Processes on this machine, each with a GPU of its own where there are GPUs; torchrun and srun decide by
    themselves."""
    strategy: Sharing = "ddp"
    """Of several processes each holds the whole model (ddp), or its share of a ViT too large for that (fsdp)."""
    accumulate: PositiveInt = 1
    """Parts in which a process takes its share of a batch, one after another. Losses that compare samples, and batch
    norms, see the samples of one part at a time."""
    compile: bool = False
    """By torch.compile: minutes at the beginning, for quicker steps on a GPU; needs a C++ compiler."""
    checkpoint_activations: bool = False
    """Compute what a transformer's blocks hold anew in the backward pass: a third more time, a fraction of the
    memory."""
    workers: NonNegativeInt = 0
    """Processes that read ahead, for each device."""
    log_every: PositiveInt = 20
    """Steps between lines of metrics.jsonl."""
    look_every: PositiveInt | None = None
    """Steps between looks at reconstructions and the online probe; null looks ten times in a run."""
    checkpoint_seconds: NonNegativeFloat = 60.0
    """Seconds between checkpoints."""
    watch: bool = True
    """Stop a run that has collapsed or diverges."""
