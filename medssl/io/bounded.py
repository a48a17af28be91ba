"""Files that take no more memory than they hold: a length that a header claims is cut to what is there."""

from __future__ import annotations

import os
from io import BufferedReader, FileIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

_SMALL = 1 << 20
"""Bytes that are asked for without a look at the file's size."""


class _Bounded(BufferedReader):
    """Python takes the memory that a read asks for before it reads, 4 GiB where the length in a header is damaged."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > _SMALL:
            size = max(min(size, os.fstat(self.fileno()).st_size - self.tell()), 0)
        return super().read(size)


def opened(path: Path) -> BufferedReader:
    """A file for decoders that believe what headers say of their lengths."""
    return _Bounded(FileIO(path))


def parsed(path: Path, **options: Any) -> Dataset:
    """A DICOM file, whole or as pydicom's `dcmread` takes the options; what is no DICOM is parsed as far as it goes."""
    from pydicom import dcmread

    with opened(path) as file:
        return dcmread(file, force=True, **options)
