"""Sample -> Batch: boxes of one size read from the cache, in an order that the run's seed and the step alone decide.

Cases come as one endless sequence of shuffled passes, so a batch may be larger than the labelled set, and a run that is
resumed at step k reads exactly what the uninterrupted run would have read.
"""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from pydantic import Field, PositiveInt
from torch.utils.data import DataLoader, Dataset

from medssl.config import Config
from medssl.data.cache import Cache, prefetch
from medssl.data.pool import end_with_parent
from medssl.errors import ConfigError, ManifestError
from medssl.rng import stream
from medssl.types import Batch

log = logging.getLogger(__name__)

SHARED = Path("/dev/shm")
"""Where processes that read ahead leave their batches: all of it a container's 64 MB, or less."""
BLANK_TRIES = 8
"""How often a box without any content is drawn again: normalised by its own deviation of 0, it would swamp a batch's
gradient."""


class BoxConfig(Config):
    """The box that is read from a prepared case."""

    size: tuple[PositiveInt, ...] | None = None
    """Voxels along each spatial axis, (J, I), (K, J, I) or (T, J, I); None reads whole cases. Cases smaller than the
    box are padded with zeros at the end."""
    planar: bool = False
    """Read volumes slice by slice: the box is one slice, and the batch is (B, C, J, I)."""
    period: PositiveInt = 1
    """Keep every n-th frame of a clip; `size` counts those that are kept."""
    judged: PositiveInt | Literal["all"] = 4
    """Boxes of a case, evenly spread over it, whose predictions are averaged where a case is larger than the box;
    `all` begins one at every frame of a clip or slice of a volume, as EchoNet-Dynamic is judged."""
    foreground: float = Field(0.0, ge=0, le=1)
    """Share of boxes centred on a labelled voxel, where the case has a mask."""

    def voxels(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """S of the boxes read from a case of size `shape`, (1, J, I) where they are planar."""
        if len(shape) == 2 and (self.planar or self.period > 1):
            raise ConfigError("data.box.planar and data.box.period are for volumes and clips",
                              expected=f"neither, for images of size {shape}", remedy="leave them out")
        if self.size is not None and len(self.size) != len(shape) and not self.planar:
            raise ConfigError(f"data.box.size {self.size} has {len(self.size)} axes", remedy="mend data.box.size",
                              expected=f"{len(shape)}, as many as the cases have, whose size is {shape}")
        if self.planar:
            return (1, *(self.size or shape)[-2:])
        return self.size or (-(-shape[0] // self.period), *shape[1:])

    def room(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """How far a box can be moved along each axis of a case of size `shape`."""
        first, *rest = self.voxels(shape)
        return tuple(max(n - e, 0) for n, e in zip(shape, ((first - 1) * self.period + 1, *rest), strict=True))

    def read(self, array: np.ndarray, start: tuple[int, ...]) -> np.ndarray:
        """The box (C, *S) of a case (C, *shape) that begins at `start`; (C, J, I) where boxes are planar."""
        box = cut(array, start, self.voxels(array.shape[1:]), self.period)
        return box[:, 0] if self.planar else box

    def dims(self, kind: str) -> int:
        """Spatial axes of what an encoder is given."""
        return 2 if kind == "image" or self.planar else 3


class Loader:
    """Batches of boxes. `target` maps a case id to whatever the task encodes for it, (L,) float."""

    def __init__(
        self, cache: Cache, case_ids: list[str], box: BoxConfig, batch_size: int, seed: int,
        target: Mapping[str, np.ndarray] | None = None, with_mask: bool = False,
    ) -> None:
        if not case_ids:
            raise ManifestError("There is no case to train on",
                                expected="at least one prepared case of the train split",
                                remedy="look at medssl check's counts per split, and at what prepare skipped")
        self.cache, self.case_ids, self.box = cache, sorted(case_ids), box
        self.batch_size, self.seed, self.target, self.with_mask = batch_size, seed, target, with_mask
        self._orders: dict[int, np.ndarray] = {}

    def batches(self, start: int, stop: int, workers: int = 0, rank: int = 0, size: int = 1) -> Iterator[Batch]:
        """The batches of steps start .. stop - 1, or the share that is `rank`'s where `size` processes share them out;
        `workers` processes read ahead."""
        is_piped = workers > 0 and not self._fits_shared_memory(workers, rank, size)
        batches = iter(DataLoader(_Steps(self, rank, size, is_piped), batch_size=None, sampler=range(start, stop),
                                  num_workers=workers, multiprocessing_context="spawn" if workers else None,
                                  worker_init_fn=_start_reading,
                                  generator=torch.Generator()))  # not the run's own, which a resume restores
        return (batch.to(torch.from_numpy) for batch in batches) if is_piped else batches

    def _fits_shared_memory(self, workers: int, rank: int, size: int) -> bool:
        """Whether what `size` processes read ahead at once has room there; where it has not, the system kills them."""
        channels, *shape = self.cache.shape(self.case_ids[0])
        voxels = math.prod(self.box.voxels(tuple(shape))) * (self.batch_size // size)
        batch = voxels * (4 * channels + 8 * self.with_mask)
        needed = batch * size * (2 * workers + 2)  # two for each that reads ahead, the one at hand and the one before
        try:
            room = os.statvfs(SHARED)
        except OSError:  # a system that shares memory in another way
            return True
        free = room.f_bavail * room.f_frsize
        if free < needed and rank == 0:
            log.warning(f"{SHARED} has {free / 2**20:.1f} MiB left, and what is read ahead takes {needed / 2**20:.1f}: "
                        f"it goes through pipes, which is slower (a container is given more by "
                        f"--shm-size={-(-needed >> 20)}m)")
        return free >= needed

    def batch(self, step: int, rank: int = 0, size: int = 1) -> Batch:
        boxes, masks, ids, epochs = [], [], [], []
        share = self.batch_size // size
        first = step * self.batch_size + rank * share
        for position in range(first, first + share):
            epoch, place = divmod(position, len(self.case_ids))
            case_id = self.case_ids[self._order(epoch)[place]]
            image, mask = self._box(case_id, epoch)
            boxes.append(image)
            masks.append(mask)
            ids.append(case_id)
            epochs.append(epoch)
        return Batch(
            case_ids=ids,
            image=stacked(boxes).float(),
            mask=stacked(masks).long() if self.with_mask else None,
            target=torch.from_numpy(np.stack([self.target[i] for i in ids])).float() if self.target else None,
            epochs=epochs,
        )

    def _order(self, epoch: int) -> np.ndarray:
        if epoch not in self._orders:
            self._orders = {k: v for k, v in self._orders.items() if k >= epoch - 1}
            self._orders[epoch] = stream(self.seed, "order", epoch).permutation(len(self.case_ids))
        return self._orders[epoch]

    def _box(self, case_id: str, epoch: int) -> tuple[np.ndarray, np.ndarray | None]:
        array = self.cache.array(case_id)
        mask = self.cache.mask(case_id) if self.with_mask else None
        if mask is None and not any(self.box.room(array.shape[1:])):  # whole cases: nothing to draw
            return self.box.read(array, (0,) * (array.ndim - 1)), None
        rng = stream(self.seed, "box", epoch, case_id)
        for _ in range(BLANK_TRIES):
            start = self._start(rng, array.shape[1:], mask)
            image = self.box.read(array, start)
            if not _is_blank(image):
                break
        return image, None if mask is None else self.box.read(mask[None], start)[0]

    def _start(self, rng: np.random.Generator, shape: tuple[int, ...], mask: np.ndarray | None) -> tuple[int, ...]:
        room = self.box.room(shape)
        if mask is not None and rng.random() < self.box.foreground:
            labelled = np.flatnonzero(mask)
            if len(labelled):
                centre = np.unravel_index(labelled[rng.integers(len(labelled))], shape)
                return tuple(int(np.clip(c - (n - r) // 2, 0, r)) for c, n, r in zip(centre, shape, room, strict=True))
        return tuple(int(rng.integers(r + 1)) for r in room)


def cut(array: np.ndarray, start: tuple[int, ...], size: tuple[int, ...], period: int = 1) -> np.ndarray:
    """A box (C, *size) of an array (C, *S), every `period`-th along the first spatial axis, zero-padded at the end."""
    steps = (period, *[1] * (len(size) - 1))
    box = tuple(slice(s, s + (n - 1) * p + 1, p) for s, n, p in zip(start, size, steps, strict=True))
    piece = array[(slice(None), *box)]
    prefetch(piece)
    missing = [(0, n - m) for n, m in zip(size, piece.shape[1:], strict=True)]
    return np.pad(piece, [(0, 0), *missing]) if any(after for _, after in missing) else piece


def _is_blank(box: np.ndarray) -> bool:
    """Every voxel has the first one's bits: float16 is slow to compare as numbers."""
    bits = box.view(f"u{box.itemsize}")
    return bool((bits == bits.flat[0]).all())


def stacked(boxes: list[np.ndarray]) -> torch.Tensor:
    """(B, ...) of boxes of one shape; ManifestError where they differ."""
    shapes = sorted({box.shape for box in boxes})
    if len(shapes) > 1:
        raise ManifestError(f"Cases differ in shape: {', '.join(map(str, shapes[:4]))}", expected="one shape a batch",
                            remedy="give data.box.size, or data.prepare.size")
    return torch.from_numpy(np.stack(boxes))


def _start_reading(worker: int) -> None:
    """torch's own watch compares the parent with the first that it saw, which is init if a run was killed before its
    reader was up."""
    end_with_parent()


class _Steps(Dataset):
    """Batches by step; with arrays for tensors where they are to go through a pipe, since tensors go through shared
    memory."""

    def __init__(self, loader: Loader, rank: int, size: int, is_piped: bool) -> None:
        self.loader, self.rank, self.size, self.is_piped = loader, rank, size, is_piped

    def __getitem__(self, step: int) -> Batch:
        batch = self.loader.batch(step, self.rank, self.size)
        return batch.to(torch.Tensor.numpy) if self.is_piped else batch
