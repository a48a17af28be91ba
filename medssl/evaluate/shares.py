"""A curve's points dealt out to many machines: who does which."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from medssl.errors import ConfigError

Each = TypeVar("Each")


@dataclass(frozen=True)
class Share:
    """The `number`-th of `count`, from 1 on."""

    number: int
    count: int

    @classmethod
    def read(cls, text: str) -> Share:
        """Of '3/16'."""
        found = re.fullmatch(r"(\d+)/(\d+)", text)
        if not found or not 1 <= int(found[1]) <= int(found[2]):
            raise ConfigError(f"--share {text}", expected="a number of a count, such as 3/16",
                              remedy="write 1/16 to 16/16")
        return cls(int(found[1]), int(found[2]))

    def of(self, everything: Sequence[Each]) -> list[Each]:
        """What is dealt to this share, in turns: the same whatever others have done by then."""
        return list(everything[self.number - 1 :: self.count])

    def turned(self, everything: Sequence[Each]) -> list[Each]:
        """All of it, from a place of this share's own on, so that shares do not begin with the same."""
        first = (self.number - 1) * len(everything) // self.count
        return [*everything[first:], *everything[:first]]
