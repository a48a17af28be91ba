"""A crop of 96³ from the prepared cache: against a cold read of the .nii.gz, and against blosc2 as nnU-Net uses it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import cycle
from pathlib import Path

import numpy as np
import torch
from harness import Peer, Row, Settings, Work, compare, evict, main, temperature
from volumes import HEAD, TINY, head

from medssl import open_scan
from medssl.data.build import build
from medssl.data.cache import Cache, memory_map
from medssl.data.card import Card
from medssl.data.loader import cut, stacked
from medssl.data.prepare import PrepareConfig, prepare
from medssl.io.write import write_nifti
from medssl.rng import stream

CASES = 8
SIDE = 96
L1, L3 = 0.8 * 32768, 0.8 * 1441792
"""Bytes that nnU-Net v2 lets a block and a chunk take: 80 % of a core's share of the two caches."""


def measure(settings: Settings) -> list[Row]:
    shape, side = (TINY, 8) if settings.tiny else (HEAD, SIDE)
    scans = [settings.scratch / f"in/case{number}.nii.gz" for number in range(2 if settings.tiny else CASES)]
    for number, path in enumerate(scans):
        write_nifti(path, head(shape, number), np.eye(4))
    card = Card.model_validate({"name": "crop", "about": "benchmark", "layout": "pattern", "kind": "volume",
                                "modality": "MR", "files": {"image": "{case}.nii.gz"}, "patient": "{case}",
                                "split": {"shares": {"train": 1.0}}})
    manifest = build(card, settings.scratch / "in", bytes(32))
    config = PrepareConfig(intensity="percentile")
    cache, _ = prepare(manifest, settings.scratch / "cache", config)
    files = sorted(cache.folder.glob("*.npy"))
    packed = [settings.scratch / f"{case_id}.b2nd" for case_id in cache.case_ids]
    name = f"crop of {side}³ of {' × '.join(map(str, shape))} voxels"

    def forget() -> None:
        memory_map.cache_clear()  # what is mapped cannot be evicted
        evict([*files, *scans, *(path for path in packed if path.exists())])

    cold = temperature(files)
    rows = []
    for state, before, target in ((cold, forget, None), ("warm", None, 20.0)):
        reading = Peer(f"{cold} read of the .nii.gz, cropped", _reading(scans, shape, side), "medssl", target,
                       before=lambda: evict(scans))
        rows += compare(f"{state} {name}", _ours(cache, shape, side), [reading, _blosc2(cache, packed, shape, side)],
                        settings.repeats * len(scans), before)
    return rows


def _corners(shape: tuple[int, ...], side: int) -> Iterator[tuple[int, ...]]:
    rng = stream("crop", side)
    while True:
        yield tuple(int(rng.integers(n - side + 1)) for n in shape)


def _ours(cache: Cache, shape: tuple[int, ...], side: int) -> Work:
    cases, corners = cycle(cache.case_ids), _corners(shape, side)
    return lambda: stacked([cut(cache.array(next(cases)), next(corners), (side,) * 3)]).float()[0]


def _reading(scans: list[Path], shape: tuple[int, ...], side: int) -> Work:
    paths, corners = cycle(scans), _corners(shape, side)
    return lambda: stacked([cut(open_scan(next(paths)).array, next(corners), (side,) * 3)]).float()[0]


def _blosc2(cache: Cache, packed: list[Path], shape: tuple[int, ...], side: int) -> Peer:
    """float32, Zstandard of level 8, one thread, read through a memory map: what nnU-Net v2's dataset class does."""
    cases, corners = cycle(packed), _corners(shape, side)

    def work() -> torch.Tensor:
        import blosc2

        case = blosc2.open(urlpath=str(next(cases)), mode="r", dparams={"nthreads": 1}, mmap_mode="r")
        return torch.from_numpy(case[(slice(None), *(slice(start, start + side) for start in next(corners)))])

    peer = Peer("blosc2 as nnU-Net uses it", work, "blosc2", 1.0, torch.equal)
    if peer.version and not packed[0].exists():
        _pack(cache, packed, side)
    return peer


def _pack(cache: Cache, packed: list[Path], side: int) -> None:
    import blosc2

    blosc2.set_nthreads(1)
    for case_id, path in zip(cache.case_ids, packed, strict=True):
        array = cache.array(case_id).astype(np.float32)
        blocks, chunks = partitions(array.shape, (side,) * 3)
        blosc2.asarray(array, urlpath=str(path), chunks=chunks, blocks=blocks,
                       cparams={"codec": blosc2.Codec.ZSTD, "clevel": 8})


def partitions(shape: tuple[int, ...], patch: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Blocks and chunks of a float32 array (C, K, J, I), by nnU-Net v2's rules.

    Blocks are powers of two that shrink, from the patch's size, along the axis that exceeds its share most, until they
    fit into L1. Chunks are multiples of blocks that grow, along the axis that lags most, until L3 is full; not past the
    image, nor past one and a half patches.
    """
    block = [shape[0], *(2 ** math.ceil(math.log2(n)) for n in patch)]
    while 4 * math.prod(block) > L1:
        axis = max((a for a in (1, 2, 3) if block[a] > 1), key=lambda a: block[a] / patch[a - 1])
        block[axis] //= 2
    block = [min(n, m) for n, m in zip(block, shape, strict=True)]
    chunk = list(block)
    while grow := [a for a in (1, 2, 3) if chunk[a] < min(shape[a], 1.5 * patch[a - 1])
                   and 4 * math.prod(chunk) * (chunk[a] + block[a]) / chunk[a] <= L3]:
        axis = min(grow, key=lambda a: chunk[a] / patch[a - 1])
        chunk[axis] = min(chunk[axis] + block[axis], shape[axis])
    return tuple(block), tuple(chunk)


if __name__ == "__main__":
    main("crop", __doc__, measure)
