"""Prepared cases, read by case id: whole, or a box of one without the rest."""

from __future__ import annotations

import ctypes
import math
import mmap
from functools import lru_cache
from pathlib import Path

import numpy as np
import polars as pl
import torch

from medssl.data import index
from medssl.data.decode import PrepareConfig
from medssl.errors import RunError
from medssl.types import Sample

OPEN_MAPS = 16_384
"""Cases kept mapped: opening one again costs more than reading a small box of it. Linux allows a process 65,530."""
AXES = 4
"""C and three spatial axes at most."""

_TORCH = {np.dtype(np.float16): torch.float16, np.dtype(np.uint8): torch.uint8}
_libc = ctypes.CDLL(None)
_libc.madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)


class Cache:
    """Prepared cases of one PrepareConfig. A case costs about 100 bytes of memory, in every process that reads."""

    def __init__(self, folder: Path, rows: pl.DataFrame) -> None:
        """rows: of the folder's index; of a case the last one counts, and those without an address are left out."""
        rows = rows.unique("case_id", keep="last").filter(pl.col("address").is_not_null()).sort("case_id")
        self.folder = folder
        self._case_ids = np.array(rows["case_id"].cast(pl.Binary).to_list(), dtype="S")
        self._addresses = np.array(rows["address"].cast(pl.Binary).to_list(), dtype="S")
        self._shapes = _padded(rows["shape"], AXES, 0)
        self._spacings = _padded(rows["spacing"], AXES - 1, np.nan)
        self._has_mask = rows["has_mask"].to_numpy()

    @classmethod
    def open(cls, root: str | Path, config: PrepareConfig) -> Cache:
        """RunError where nothing has been prepared with this config under `root`."""
        folder = Path(root) / config.digest()
        if not index.is_there(folder):
            raise RunError(f"Nothing is prepared under {folder}",
                           expected="index.parquet, or the manifest's files table",
                           remedy="run medssl prepare where the scans are, and bring the cache or the files table here")
        return cls(folder, index.read(folder))

    def __contains__(self, case_id: str) -> bool:
        return self._find(case_id) is not None

    def __len__(self) -> int:
        return len(self._case_ids)

    @property
    def case_ids(self) -> list[str]:
        """Sorted."""
        return [case_id.decode() for case_id in self._case_ids.tolist()]

    def shape(self, case_id: str) -> tuple[int, ...]:
        """(C, *S) of a prepared case."""
        return tuple(int(n) for n in self._shapes[self._place(case_id)] if n)

    def has_mask(self, case_id: str) -> bool:
        return bool(self._has_mask[self._place(case_id)])

    def array(self, case_id: str) -> np.ndarray:
        """(C, *S) float16, memory-mapped: slicing it reads only that box."""
        return memory_map(f"{self.folder}/{self._address(case_id)}.npy")

    def mask(self, case_id: str) -> np.ndarray:
        """(*S) uint8, memory-mapped: the file's own label values."""
        return memory_map(f"{self.folder}/{self._address(case_id)}.mask.npy")

    def read(self, case_id: str) -> Sample:
        mask = np.asarray(self.mask(case_id)) if self.has_mask(case_id) else None
        spacing = tuple(float(mm) for mm in self._spacings[self._place(case_id)] if not np.isnan(mm))
        return Sample(case_id, self.array(case_id).astype(np.float32), mask, spacing or None)

    def _address(self, case_id: str) -> str:
        return self._addresses[self._place(case_id)].decode()

    def _place(self, case_id: str) -> int:
        place = self._find(case_id)
        if place is None:
            raise KeyError(case_id)
        return place

    def _find(self, case_id: str) -> int | None:
        key = case_id.encode()
        place = int(self._case_ids.searchsorted(np.array(key, self._case_ids.dtype)))  # another dtype would copy all
        return place if place < len(self) and self._case_ids[place] == key else None


def _padded(lists: pl.Series, width: int, blank: float) -> np.ndarray:
    """(n, width) of lists no longer than that."""
    columns = [lists.list.get(place, null_on_oob=True).fill_null(blank).to_numpy() for place in range(width)]
    return np.stack(columns, axis=1)


@lru_cache(maxsize=OPEN_MAPS)
def memory_map(path: str) -> np.ndarray:
    """An .npy file as read-only memory. NumPy's own map would keep it open, and a process may have but a thousand."""
    with open(path, "rb") as file:
        np.lib.format.read_magic(file)
        shape, _, dtype = np.lib.format.read_array_header_1_0(file)
        before = file.tell() // dtype.itemsize
    try:
        mapped = torch.from_file(path, False, before + math.prod(shape), dtype=_TORCH[dtype])
    except RuntimeError:
        raise RunError("A prepared case is cut short", expected=f"an array of shape {shape}",
                       remedy="run medssl prepare again: it makes what is damaged anew") from None
    array = mapped.numpy()[before:].reshape(shape)
    array.flags.writeable = False
    return array


def prefetch(box: np.ndarray) -> None:
    """Asks for all rows of a box of a memory map at once: page by page, each would wait for the disk in its turn."""
    *places, row = (stride * np.arange(n) for n, stride in zip(box.shape[:-1], box.strides[:-1], strict=True))
    starts = sum(np.ix_(*places), np.int64(0)).ravel() + box.__array_interface__["data"][0]
    length = int(row[-1]) + box.shape[-1] * box.strides[-1]
    for start in starts.tolist():
        _libc.madvise(start & -mmap.PAGESIZE, length + start % mmap.PAGESIZE, mmap.MADV_WILLNEED)
