"""The files of a case, and how each of them is opened."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from medssl.types import Kind, Scan


@dataclass(frozen=True)
class Files:
    """What a case consists of.

    paths: by role, a channel's name or "mask"; the slices of a series in order.
    channels: the card's, in its order.
    parts: by role, which of several scans in one multi-frame file (`FoundScan.part`); absent where it holds one.
    optional: channels that the case may lack.
    structures: where masks are DICOM segmentations or structure sets, {mask value: regular expressions of names}.
    """

    kind: Kind
    channels: tuple[str, ...]
    paths: dict[str, tuple[Path, ...]]
    parts: Mapping[str, int] = field(default_factory=dict)
    structures: Mapping[int, Sequence[str]] = field(default_factory=dict)
    optional: Sequence[str] = ()

    @property
    def there(self) -> list[str]:
        """The channels that the case has."""
        return [channel for channel in self.channels if channel in self.paths]

    @property
    def missing(self) -> list[str]:
        """The channels that it lacks and may not lack."""
        return [channel for channel in self.channels if channel not in (*self.paths, *self.optional)]

    @property
    def roles(self) -> list[str]:
        return [*self.there, *(["mask"] if "mask" in self.paths else [])]

    @property
    def drawn(self) -> bool:
        """Whether the mask is no array of its own, but drawn by name on the image."""
        return "mask" in self.paths and bool(self.structures)

    @property
    def told(self) -> str:
        """All but the files themselves: with another kind, order or wish, they make another sample."""
        parts = [f"{role}:{part}" for role, part in self.parts.items()]
        wishes = [f"{value}={'|'.join(names)}" for value, names in self.structures.items() if self.drawn]
        lacking = [f"only {','.join(self.there)}"] if len(self.there) < len(self.channels) else []
        return " ".join([self.kind, ",".join(self.channels), *lacking, *parts, *wishes])

    def all(self) -> list[Path]:
        """Every file, the channels first."""
        return [file for role in self.roles for file in self.paths.get(role, ())]

    def open(self, role: str, image: Scan | None = None, *, straighten: bool = False) -> Scan:
        """The scan of a role as stored; a drawn mask on the voxels of `image`, or without one on its own."""
        from medssl.io import FoundScan, open_mask, open_scan  # a machine with only a prepared cache needs no reader

        paths = self.paths[role]
        if role == "mask" and self.drawn:
            return open_mask(paths, self.structures, image, self.paths[self.channels[0]][0])
        return open_scan(FoundScan(paths, self.kind, part=self.parts.get(role)), straighten=straighten)
