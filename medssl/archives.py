"""Zip archives, which torch's and NumPy's files are: looked through before anything in them is unpacked.

An archive's directory is a claim, as a header is. Nothing is unpacked that claims to be far larger than its file, and
no array that claims to be larger than its part of the file.
"""

from __future__ import annotations

import math
import zipfile
from pathlib import Path

import numpy as np

from medssl.errors import RunError

ALWAYS = 1 << 30
"""Bytes that any archive may unpack to: a picture's mask shrinks a hundredfold."""
RATIO = 8
"""How often its own size a larger one may unpack to: torch stores weights as they are, and deflate hardly shrinks them.
"""


def require_no_bomb(path: Path) -> None:
    """RunError where the zip archive `path` would unpack to much more than it is; nothing is unpacked."""
    with zipfile.ZipFile(path) as archive:
        unpacked = sum(part.file_size for part in archive.infolist())
    stored = path.stat().st_size
    if unpacked > max(ALWAYS, RATIO * stored):
        raise RunError(f"{path} has {stored} bytes and would unpack to {unpacked}",
                       expected=f"at most {RATIO} times its size, or {ALWAYS >> 30} GiB",
                       remedy="fetch it again from a source that you trust")


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays of an .npz file by name.

    Raises:
        RunError: it would unpack to much more than it is.
        ValueError, OSError, zipfile.BadZipFile: it is damaged, holds objects, or an array claims more than is there.
    """
    require_no_bomb(path)
    with zipfile.ZipFile(path) as archive:
        for part in archive.infolist():
            _require_room(archive, part)
    with np.load(path, allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays.files}


def _require_room(archive: zipfile.ZipFile, part: zipfile.ZipInfo) -> None:
    """NumPy takes the memory that an array's header asks for before it reads the array."""
    with archive.open(part) as file:
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(file)
    if not dtype.hasobject and math.prod(shape) * dtype.itemsize > part.file_size:
        raise ValueError(f"{part.filename} claims the shape {shape} and has {part.file_size} bytes")
