"""Synthetic patients with known truth, written in the layouts of CheXpert, BraTS 2021 and EchoNet-Dynamic.

The readers and cards that serve the real sets serve these. A patient depends on the seed and its own number alone.
From eight patients on they are drawn by worker processes, so a script calls a writer under
`if __name__ == "__main__":`.

`GENERATOR_VERSION` stands in every folder's signature: whoever changes a drawing raises it, because results on the old
and the new pictures cannot be compared.
"""

from __future__ import annotations

from collections.abc import Callable

from medssl.phantom.brain import write_brain
from medssl.phantom.echo import write_echo
from medssl.phantom.studio import GENERATOR_VERSION
from medssl.phantom.xray import write_xray

PHANTOMS: dict[str, Callable[..., None]] = {"xray": write_xray, "brain": write_brain, "echo": write_echo}
"""Writers by name, each called with (folder, patients, seed, progress)."""

__all__ = ["GENERATOR_VERSION", "PHANTOMS", "write_brain", "write_echo", "write_xray"]
