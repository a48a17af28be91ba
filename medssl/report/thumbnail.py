"""A small picture of a case as its files hold it: its channels side by side, then its mask."""

from __future__ import annotations

import io

import numpy as np

from medssl.data.files import Files
from medssl.data.manifest import Manifest
from medssl.errors import MedsslError
from medssl.report.style import data_uri
from medssl.types import Scan

SIDE, SMALLER = 144, 110
"""Pixels of the longer side of a picture that stands alone, and of each of several side by side."""
CHANNELS = 4
"""So many are shown; the others are left out."""


def thumbnail(manifest: Manifest, case_id: str) -> str | None:
    """PNG as a `data:` URI: the middle slice or frame, each channel between its 1st and 99th percentile.

    None where no file of the case can be opened.
    """
    files = manifest.files_of(case_id)
    tiles = [tile for role in files.paths for tile in _tiles(files, role)]
    return _png(tiles) if tiles else None


def _tiles(files: Files, role: str) -> list[np.ndarray]:
    """(J, I) uint8 each, or (J, I, 3) in colour; none for a file that cannot be opened, which a finding tells."""
    try:
        scan = files.open(role)
    except (MedsslError, OSError):
        return []
    planes = np.nan_to_num(np.asarray(_planes(scan), dtype=np.float32), posinf=0.0, neginf=0.0)
    if scan.kind != "volume" and len(planes) == 3:
        return [_bytes(np.moveaxis(planes, 0, -1))]
    return [_bytes(plane) for plane in planes[:CHANNELS]]


def _planes(scan: Scan) -> np.ndarray:
    """(C, *S) -> (C, J, I)"""
    return scan.array if scan.array.ndim == 3 else scan.array[:, scan.array.shape[1] // 2]


def _bytes(plane: np.ndarray) -> np.ndarray:
    low, high = np.percentile(plane, (1, 99))
    if low == high:  # a small lesion on nothing
        low, high = plane.min(), plane.max()
    return (255 * np.clip((plane - low) / max(high - low, 1e-6), 0, 1)).astype(np.uint8)


def _png(tiles: list[np.ndarray]) -> str:
    from PIL import Image

    pictures, side = [Image.fromarray(tile) for tile in tiles], SIDE if len(tiles) == 1 else SMALLER
    for picture in pictures:
        picture.thumbnail((side, side))
    gap = 2
    width = sum(picture.width for picture in pictures) + gap * (len(pictures) - 1)
    strip = Image.new("RGB", (width, max(picture.height for picture in pictures)), "white")
    left = 0
    for picture in pictures:
        strip.paste(picture, (left, 0))
        left += picture.width + gap
    buffer = io.BytesIO()
    strip.save(buffer, "PNG", optimize=True)
    return data_uri(buffer.getvalue(), "image/png")
