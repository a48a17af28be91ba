"""PNG, JPEG and TIFF through Pillow: 8 and 16 bits, grey stays one channel, transparency is dropped."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from medssl.errors import UnreadableScan
from medssl.types import Scan

_BITS_PER_SAMPLE, _PHOTOMETRIC = 258, 262  # TIFF 6.0, section 8
_TO_MODE = {"1": "L", "LA": "L", "RGBA": "RGB", "RGBX": "RGB", "CMYK": "RGB", "YCbCr": "RGB"}


def read_raster(path: Path) -> Scan:
    """One image as (C, J, I), C 1 or 3, in the file's own integer or float type; it says nothing about mm.

    UnreadableScan for several pages and for 16-bit colour, which Pillow would silently cut to 8 bits.
    """
    from PIL import Image, ImageOps

    with Image.open(path) as image:
        if getattr(image, "n_frames", 1) > 1:
            raise UnreadableScan(
                f"{image.format} of {image.n_frames} pages",
                expected="one image a file",
                remedy="split it, or store the stack as NIfTI",
            )
        if _wide_colour(image, path):
            raise UnreadableScan(
                f"{image.format} in colour with 16 bits a channel",
                expected="8-bit colour or grey",
                remedy="convert it to 8-bit colour or to 16-bit grey",
            )
        white_is_zero = image.format == "TIFF" and image.mode.startswith("I;16") and image.tag_v2.get(_PHOTOMETRIC) == 0
        image = ImageOps.exif_transpose(image)
        if image.mode in ("P", "PA"):
            image = image.convert("RGB")
            array = np.asarray(image)
            array = array[..., 0] if (array == array[..., :1]).all() else array
        else:
            array = np.asarray(image.convert(_TO_MODE.get(image.mode, image.mode)))
    array = array.astype(array.dtype.newbyteorder("="), copy=False)
    array = np.moveaxis(array, -1, 0) if array.ndim == 3 else array[None]
    if white_is_zero:
        array = np.iinfo(array.dtype).max - array
    return Scan(np.ascontiguousarray(array), "image", "OT")


def _wide_colour(image, path: Path) -> bool:
    if image.format == "PNG":  # IHDR: bit depth at byte 24, colour type at 25, 0 being plain grey
        with open(path, "rb") as file:
            depth, colour = file.read(26)[24:26]
        return depth == 16 and colour != 0
    bits = image.tag_v2.get(_BITS_PER_SAMPLE, (8,)) if image.format == "TIFF" else (8,)
    return len(bits) > 1 and max(bits) > 8
