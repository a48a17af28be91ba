"""Sample -> Batch: boxes of one size read from the cache, in an order that the run's seed and the step alone decide.

Cases come as one endless sequence of shuffled passes, so a batch may be larger than the labelled set, and a run that is
resumed at step k reads exactly what the uninterrupted run would have read.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from medssl.config import Config
from medssl.data.prepare import Cache
from medssl.errors import ManifestError
from medssl.rng import stream
from medssl.types import Batch


class BoxConfig(Config):
    """The box that is read from a prepared case."""

    size: tuple[int, ...] | None = None
    """Voxels along each spatial axis, (J, I), (K, J, I) or (T, J, I); None reads whole cases. Cases smaller than the
    box are padded with zeros at the end."""
    planar: bool = False
    """Read volumes slice by slice: the box is one slice, and the batch is (B, C, J, I)."""
    period: int = 1
    """Keep every n-th frame of a clip."""
    foreground: float = 0.0
    """Share of boxes centred on a labelled voxel, where the case has a mask."""

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
            raise ManifestError("There is no case to train on", expected="at least one prepared case of the train split",
                                remedy="look at medssl check's counts per split, and at what prepare skipped")
        self.cache, self.case_ids, self.box = cache, sorted(case_ids), box
        self.batch_size, self.seed, self.target, self.with_mask = batch_size, seed, target, with_mask
        self._orders: dict[int, np.ndarray] = {}

    def batches(self, start: int, stop: int, workers: int = 0) -> Iterator[Batch]:
        """The batches of steps start .. stop - 1; `workers` processes read ahead."""
        return iter(DataLoader(_Steps(self), batch_size=None, sampler=range(start, stop), num_workers=workers,
                               multiprocessing_context="spawn" if workers else None))

    def batch(self, step: int) -> Batch:
        boxes, masks, ids, epochs = [], [], [], []
        for position in range(step * self.batch_size, (step + 1) * self.batch_size):
            epoch, place = divmod(position, len(self.case_ids))
            case_id = self.case_ids[self._order(epoch)[place]]
            image, mask = self._box(case_id, epoch)
            boxes.append(image)
            masks.append(mask)
            ids.append(case_id)
            epochs.append(epoch)
        if len({box.shape for box in boxes}) > 1:
            raise ManifestError(f"Cases differ in shape: {sorted({box.shape for box in boxes})[:4]}",
                                expected="one shape a batch", remedy="give data.box.size, or data.prepare.size")
        return Batch(
            case_ids=ids,
            image=torch.from_numpy(np.stack(boxes)).float(),
            mask=torch.from_numpy(np.stack(masks)).long() if self.with_mask else None,
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
        size = self._size(array.shape[1:])
        if size == array.shape[1:]:
            return self._squeeze(np.asarray(array), mask)
        rng = stream(self.seed, "box", epoch, case_id)
        start = self._start(rng, array.shape[1:], self._extent(size), mask)
        image = cut(array, start, size, self.box.period)
        return self._squeeze(image, None if mask is None else cut(mask[None], start, size, self.box.period)[0])

    def _size(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        if self.box.planar:
            return (1, *(self.box.size or shape[-2:])[-2:])
        return tuple(self.box.size or shape)

    def _extent(self, size: tuple[int, ...]) -> tuple[int, ...]:
        return ((size[0] - 1) * self.box.period + 1, *size[1:]) if self.box.period > 1 else size

    def _start(self, rng: np.random.Generator, shape: tuple[int, ...], extent: tuple[int, ...],
               mask: np.ndarray | None) -> tuple[int, ...]:
        room = [max(n - e, 0) for n, e in zip(shape, extent, strict=True)]
        if mask is not None and rng.random() < self.box.foreground:
            labelled = np.flatnonzero(mask)
            if len(labelled):
                centre = np.unravel_index(labelled[rng.integers(len(labelled))], shape)
                return tuple(int(np.clip(c - e // 2, 0, r)) for c, e, r in zip(centre, extent, room, strict=True))
        return tuple(int(rng.integers(r + 1)) for r in room)

    def _squeeze(self, image: np.ndarray, mask: np.ndarray | None) -> tuple[np.ndarray, np.ndarray | None]:
        if not self.box.planar:
            return image, mask
        return image[:, 0], None if mask is None else mask[0]


def cut(array: np.ndarray, start: tuple[int, ...], size: tuple[int, ...], period: int = 1) -> np.ndarray:
    """A box (C, *size) of an array (C, *S), every `period`-th along the first spatial axis, zero-padded at the end."""
    steps = (period, *[1] * (len(size) - 1))
    box = tuple(slice(s, s + (n - 1) * p + 1, p) for s, n, p in zip(start, size, steps, strict=True))
    piece = np.asarray(array[(slice(None), *box)])
    missing = [(0, n - m) for n, m in zip(size, piece.shape[1:], strict=True)]
    return np.pad(piece, [(0, 0), *missing]) if any(after for _, after in missing) else piece


class _Steps(Dataset):
    def __init__(self, loader: Loader) -> None:
        self.loader = loader

    def __getitem__(self, step: int) -> Batch:
        return self.loader.batch(step)
