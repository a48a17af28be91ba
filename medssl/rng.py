"""Named random streams: the same names give the same numbers, whatever the worker count, batch or order."""

from __future__ import annotations

import hashlib

import numpy as np


def stream(*names: int | str) -> np.random.Generator:
    """A generator of its own for these names, e.g. `stream(run_seed, "augment", epoch, case_id, view)`.

    Names are hashed with SHA-256 (never Python's salted `hash`), so that streams agree between processes and machines.
    """
    text = "\x1f".join(f"{type(name).__name__}:{name}" for name in names)
    return np.random.Generator(np.random.SFC64(int.from_bytes(hashlib.sha256(text.encode()).digest()[:16], "little")))


def torch_seed(*names: int | str) -> int:
    """A 63-bit seed for `torch.manual_seed` or a `torch.Generator`, by the same rule."""
    return int(stream(*names).integers(2**63))
