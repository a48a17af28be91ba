"""What two readers make of one file: alike, apart, or nothing to compare; and the rows of docs/readers.md."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import product
from typing import Literal

import numpy as np

TOLERANCE_MM = 1e-3
TOLERANCE = 1e-3
"""Of values: the others rescale in float64, we in float32."""

Missing = Literal["", "we alone", "nothing to compare"]


@dataclass(frozen=True)
class Compared:
    """One scan beside another reader.

    topic: what is compared, and with whose; away: how far apart both are, "" where they agree; reason: who is right.
    missing: why there is nothing to say of it.
    """

    name: str
    topic: str
    away: str = ""
    reason: str = ""
    missing: Missing = ""

    def line(self) -> str:
        """A row of what differs."""
        return f"| `{self.name}` | {self.topic} | {self.away} | {self.reason or 'Not settled yet'} |\n"


def corners(affine: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """(8, 3) mm of the outermost voxels' centres; shape (I, J, K)."""
    outermost = np.array(list(product(*((0, n - 1) for n in shape))))
    return outermost @ affine[:3, :3].T + affine[:3, 3]


def counts(group: str, compared: Iterable[Compared]) -> str:
    """Rows of how many agree, one a topic."""
    topics: dict[str, list[Compared]] = {}
    for one in compared:
        topics.setdefault(one.topic, []).append(one)
    lines = ""
    for topic, of_topic in topics.items():
        both = [one for one in of_topic if not one.missing]
        differ = sum(bool(one.away) for one in both)
        alone, nothing = (sum(one.missing == end for one in of_topic) for end in ("we alone", "nothing to compare"))
        lines += f"| {group} | {topic} | {len(both)} | {len(both) - differ} | {differ} | {alone} | {nothing} |\n"
    return lines
