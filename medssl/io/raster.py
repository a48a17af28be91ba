"""PNG, JPEG and TIFF through Pillow: 8 and 16 bits, grey stays one channel, transparency is dropped."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from medssl.errors import UnreadableScan
from medssl.io.bounded import opened
from medssl.io.limits import require_deflated, require_room
from medssl.types import Scan

if TYPE_CHECKING:
    from PIL.Image import Image

_FORMATS = ("PNG", "JPEG", "TIFF")
_BITS_PER_SAMPLE, _PHOTOMETRIC, _SAMPLE_FORMAT = 258, 262, 339  # TIFF 6.0, sections 8 and 19
_MOST_BYTES_A_PIXEL = 4  # of any of Pillow's modes
ORIENTATION = 0x0112
"""EXIF's tag (EXIF 2.3, 4.6.4 A)."""


def read_raster(path: Path) -> Scan:
    """One image as (C, J, I), C 1 or 3, in the file's own integer or float type; it says nothing about mm.

    It is turned as its EXIF orientation asks, since that is how people saw it who labelled it. Palettes become colour,
    or grey where red, green and blue agree.

    UnreadableScan for several pages (a TIFF does not say whether they are slices, times or pictures apart), for colour
    of 16 bits, which Pillow would silently cut to 8, and for more pixels than Pillow trusts.
    """
    from PIL import ImageOps

    with _opened(path) as image:
        _refuse(image, path)
        require_room(image.width * image.height * _MOST_BYTES_A_PIXEL)
        if image.format == "PNG":
            require_deflated(image.width * image.height // 8, path.stat().st_size)  # at least one bit a pixel
        tags = dict(image.tag_v2) if image.format == "TIFF" else {}
        array = _pixels(ImageOps.exif_transpose(image))
    array = array.astype(array.dtype.newbyteorder("="), copy=False)
    if array.dtype == np.int32 and tags.get(_BITS_PER_SAMPLE) == (32,) and tags.get(_SAMPLE_FORMAT, (1,)) == (1,):
        array = array.view(np.uint32)  # Pillow keeps the bits and has no such type
    if array.dtype == np.uint16 and tags.get(_PHOTOMETRIC) == 0:  # white is zero: Pillow turns that over in 8 bits only
        array = ~array
    return Scan(np.ascontiguousarray(array), "image", "OT")


def orientation_of(path: Path) -> int:
    """By which of EXIF's orientations, 1 to 8, `read_raster` turned a file; 1, as it is stored, for files that it does
    not read."""
    try:
        with _opened(path) as image:
            said = image.getexif().get(ORIENTATION)
    except UnreadableScan:
        return 1
    return said if said in range(1, 9) else 1


@contextmanager
def _opened(path: Path) -> Iterator[Image]:
    """From an open file: of a path, Pillow maps TIFFs into memory, and garbles those that it then has to turn."""
    from PIL import Image, UnidentifiedImageError

    with warnings.catch_warnings(), opened(path) as file:
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            with Image.open(file, formats=_FORMATS) as image:
                yield image
        except UnidentifiedImageError:
            raise UnreadableScan(
                "An image of a type that Pillow does not read, or damaged",
                expected="8 or 16 bits, or float32",
                remedy="convert it to PNG",
            ) from None
        except (Image.DecompressionBombWarning, Image.DecompressionBombError):
            raise UnreadableScan(
                "The image declares more pixels than Pillow trusts",
                expected=f"at most {Image.MAX_IMAGE_PIXELS:,}",
                remedy="shrink it, or cut it into pieces",
            ) from None


def _refuse(image: Image, path: Path) -> None:
    if (pages := getattr(image, "n_frames", 1)) > 1:
        raise UnreadableScan(
            f"{image.format} of {pages} pages",
            expected="one image a file",
            remedy="split it, or store the stack as NIfTI",
        )
    if image.format == "PNG":  # IHDR: bit depth at byte 24, colour type at 25, 0 being plain grey
        with open(path, "rb") as file:
            depth, colour = file.read(26)[24:26]
        wide = depth == 16 and colour != 0
    else:
        bits = image.tag_v2.get(_BITS_PER_SAMPLE, (8,)) if image.format == "TIFF" else (8,)
        wide = len(bits) > 1 and max(bits) > 8
    if wide:
        raise UnreadableScan(
            f"{image.format} with 16 bits a channel in colour or with transparency",
            expected="8-bit colour or plain grey",
            remedy="convert it to 8-bit colour or to 16-bit grey",
        )


def _pixels(image: Image) -> np.ndarray:
    """(C, J, I), C 1 or 3."""
    if image.mode in ("P", "PA"):
        rgb = np.moveaxis(np.asarray(image.convert("RGBA").convert("RGB")), -1, 0)
        return rgb[:1] if (rgb == rgb[:1]).all() else rgb
    if image.mode in ("CMYK", "YCbCr"):
        image = image.convert("RGB")
    array = np.asarray(image.convert("L") if image.mode == "1" else image)
    if array.ndim == 2:
        return array[None]
    transparent = image.getbands()[-1] in "AaX"
    return np.moveaxis(array[..., :-1] if transparent else array, -1, 0)
