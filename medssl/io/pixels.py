"""DICOM pixels as values: decoded, inverted, through the modality LUT, padding made quiet.

Plain little-endian pixels are read straight from their offset; everything else goes through pydicom's pipeline and its
plugins, and what none of them decodes through SimpleITK.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from medssl.errors import MedsslError, UnreadableScan
from medssl.io import jpeg
from medssl.io.bounded import parsed
from medssl.io.dicom import GREY, Instance
from medssl.io.intensity import invert, rescale
from medssl.io.limits import CUT

if TYPE_CHECKING:
    from pydicom.dataset import Dataset
    from pydicom.uid import UID

NOT_OURS = (KeyboardInterrupt, SystemExit, GeneratorExit)
"""What ends a program or generator on purpose; all else that a decoder raises is the file's fault."""

_JPEG_EXTENDED = "1.2.840.10008.1.2.4.51"
_PLUGINS = ("", "pylibjpeg", "pyjpegls", "pillow", "pydicom", "gdcm")
"""pydicom's decoders, the preferred first and no second try: on damaged JPEG, GDCM aborts the whole process."""


def values(instance: Instance) -> np.ndarray:
    """(J, I), (T, J, I), or with colour (3, J, I), (3, T, J, I): after inversion and the modality LUT (PS3.3 C.11.1).

    MONOCHROME1 is inverted, except in CT and PET, whose values are physical and whose photometric only says how to
    show them. YBR and palettes become RGB. Integers stay as stored unless rescaled, then float32. Padding of CT and
    PET becomes the lowest real value (`quiet_padding`).
    """
    if instance.frame is not None:
        return stacked([instance])[0]
    if _is_plain(instance):
        pictures, data = _plain(instance, 0, instance.frames), None
        pictures = pictures if instance.frames > 1 else pictures[0]
    else:
        pictures, data = _decoded(instance)
    if instance.photometric not in GREY:
        return np.moveaxis(pictures, -1, 0)
    pictures = _physical(pictures, instance, data)
    if pictures.ndim == 2:
        quiet_padding(pictures[None], [instance])
    return pictures


def stacked(slices: Sequence[Instance]) -> np.ndarray:
    """(N, J, I): the values of grey slices, in their order, frames of one file read in one go; see `values`."""
    dtype = np.result_type(*(one.dtype for one in slices))
    if not all(one.unchanged for one in slices):
        dtype = np.dtype(np.float32)
    pictures = np.empty((len(slices), slices[0].rows, slices[0].columns), dtype)
    by_file: dict[Path, list[int]] = {}
    for n, one in enumerate(slices):
        by_file.setdefault(one.path, []).append(n)
    for members in by_file.values():
        members.sort(key=lambda n: slices[n].frame or 0)
        for n, (stored, data) in zip(members, _frames([slices[n] for n in members]), strict=True):
            out = pictures[n] if dtype == np.float32 else None
            if (found := _physical(stored, slices[n], data, out)) is not out:
                pictures[n] = found
    quiet_padding(pictures, slices)
    return pictures


def quiet_padding(pictures: np.ndarray, slices: Sequence[Instance]) -> None:
    """Give padding the lowest real value of all pictures (N, J, I), in place, where it lies below every real value.

    Scanners fill what lies outside the field of view with a number that is no density, such as -2000 or -3024 HU. Left
    alone, it rules every percentile and mean, and resampling smears it into the skin; air is what it stands for.
    Padding within the range of real values, as lossy compression or a careless header has it, is left as it is.
    """
    padding = [_physical_padding(one) for one in slices]
    if not any(padding):
        return
    real = [picture[_outside(picture, range_)] for picture, range_ in zip(pictures, padding, strict=True)]
    lowest = min((values.min() for values in real if values.size), default=None)
    if lowest is None or max(range_[1] for range_ in padding if range_) >= lowest:
        return
    for picture, range_ in zip(pictures, padding, strict=True):
        if range_:
            picture[~_outside(picture, range_)] = lowest


def _outside(picture: np.ndarray, range_: tuple[float, float] | None) -> np.ndarray:
    if range_ is None:
        return np.ones(picture.shape, dtype=bool)
    return (picture < range_[0]) | (picture > range_[1])


def _physical_padding(instance: Instance) -> tuple[float, float] | None:
    """The range of padding in the values as returned: the same arithmetic, so that they are equal to the last bit."""
    if instance.padding is None or instance.lut:
        return None
    low, high = sorted(rescale(np.array(instance.padding, instance.dtype), instance.slope, instance.intercept).tolist())
    return low, high


def _physical(
    stored: np.ndarray, instance: Instance, data: Dataset | None, out: np.ndarray | None = None
) -> np.ndarray:
    """(J, I): stored values after inversion and the modality LUT; in `out`, of float32, where that spares a copy."""
    if instance.mirror is not None:
        stored = invert(stored, instance.stored, instance.signed)
    if instance.lut:
        from pydicom.pixels import apply_modality_lut

        return apply_modality_lut(stored, data).astype(np.float32)
    return rescale(stored, instance.slope, instance.intercept, out)


def _frames(slices: Sequence[Instance]) -> Iterator[tuple[np.ndarray, Dataset | None]]:
    """(J, I) stored values of slices of one file, in the order of its frames, and the file where it was parsed."""
    first = slices[0]
    if _is_plain(first):
        for one in slices:
            yield _plain(one, one.frame or 0, 1)[0], None
    elif first.frame is None:
        yield _decoded(first)
    else:
        from pydicom.pixels import iter_pixels

        data, plugin = _opened(first), _plugin(first)
        with _decoding(first):
            _require_jpeg(first, data, plugin)
            for stored in iter_pixels(data, indices=[one.frame for one in slices], decoding_plugin=plugin):
                yield _native(stored), data


def _is_plain(instance: Instance) -> bool:
    grey = instance.photometric in GREY
    return instance.offset is not None and grey and instance.allocated in (8, 16) and not instance.lut


def _plain(instance: Instance, first: int, count: int) -> np.ndarray:
    """(count, J, I): frames as they lie in the file."""
    size = instance.rows * instance.columns
    dtype = instance.dtype.newbyteorder("<")
    start = instance.offset + first * size * dtype.itemsize
    present = max(instance.path.stat().st_size - start, 0) // dtype.itemsize
    stored = np.fromfile(instance.path, dtype, min(count * size, present), offset=start)
    if stored.size < count * size:
        raise UnreadableScan(
            f"The pixel data end after {first * size + stored.size} of {instance.frames * size} values",
            expected="a whole file",
            remedy=CUT,
        )
    if unused := instance.allocated - instance.stored:  # they may hold an overlay: shift them out, keep the sign
        stored <<= unused
        stored >>= unused
    return _native(stored.reshape(count, instance.rows, instance.columns))


def _decoded(instance: Instance) -> tuple[np.ndarray, Dataset]:
    """All that the file holds, (J, I) or (T, J, I), with colour (J, I, 3) or (T, J, I, 3), and the parsed file."""
    from pydicom.pixels import apply_color_lut, pixel_array

    data, plugin = _opened(instance), _plugin(instance)
    with _decoding(instance):
        _require_jpeg(instance, data, plugin)
        if plugin is None:
            return _by_simpleitk(instance), data
        stored = pixel_array(data, decoding_plugin=plugin)
        if instance.photometric == "PALETTE COLOR":
            stored = apply_color_lut(stored, data)
    return _native(stored), data


@contextmanager
def _decoding(instance: Instance) -> Iterator[None]:
    """Name the encoding that a decoder gave up on; its own words may quote a header."""
    from pydicom.uid import UID

    try:
        yield
    except (MedsslError, OSError, MemoryError, *NOT_OURS):
        raise
    except BaseException:  # which a panic in Rust is
        raise UnreadableScan(
            f"Damaged pixel data: its decoder gave up ({UID(instance.syntax).name})",
            expected=f"{instance.frames} frame(s) of {instance.rows} × {instance.columns} pixels",
            remedy=CUT,
        ) from None


def _require_jpeg(instance: Instance, data: Dataset, plugin: str | None) -> None:
    """UnreadableScan where the headers of JPEG that GDCM would decode, alone or within SimpleITK, are damaged."""
    from pydicom.encaps import generate_frames
    from pydicom.uid import JPEGTransferSyntaxes

    if instance.syntax in JPEGTransferSyntaxes and plugin in (None, "gdcm"):
        for stream in generate_frames(data.PixelData, number_of_frames=instance.frames):
            jpeg.require_headers(stream, instance.rows, instance.columns, int(data.SamplesPerPixel), instance.allocated)


def _native(stored: np.ndarray) -> np.ndarray:
    return stored.astype(stored.dtype.newbyteorder("="), copy=False)


def _opened(instance: Instance) -> Dataset:
    from pydicom.dataset import FileMetaDataset

    data = parsed(instance.path)
    if "PixelData" not in data:
        raise UnreadableScan("The pixel data are cut off", expected="a whole file", remedy=CUT)
    data.file_meta = getattr(data, "file_meta", None) or FileMetaDataset()
    data.file_meta.TransferSyntaxUID = instance.syntax
    return data


def _plugin(instance: Instance) -> str | None:
    """pydicom's decoder for a file, "" where none is needed, None where it has none."""
    from pydicom.uid import UID

    if instance.syntax == _JPEG_EXTENDED and instance.stored > 8:
        return None
    return decoder_plugin(UID(instance.syntax))


def decoder_plugin(syntax: UID) -> str | None:
    """The preferred of pydicom's decoders for a transfer syntax, "" where none is needed, None where it has none."""
    from pydicom.pixels import get_decoder

    if not syntax.is_encapsulated:
        return ""
    return min(get_decoder(syntax).available_plugins, key=_PLUGINS.index, default=None)


def _by_simpleitk(instance: Instance) -> np.ndarray:
    """Stored values of a grey file by SimpleITK, which rescales them, and so is asked to take that back."""
    import SimpleITK as sitk
    from pydicom.uid import UID

    what = f"{UID(instance.syntax).name} of {instance.stored} bits, which no installed decoder reads"
    remedy = "decompress the files, e.g. with DCMTK's dcmdjpeg"
    if instance.photometric not in GREY or instance.frame is not None:
        raise UnreadableScan(what, expected="grey images, one a file, in this encoding", remedy=remedy)
    try:
        with _hushed():
            rescaled = sitk.GetArrayFromImage(sitk.ReadImage(str(instance.path), imageIO="GDCMImageIO"))
    except RuntimeError:
        raise UnreadableScan(what, expected="a known encoding, undamaged", remedy=remedy) from None
    stored = np.rint((rescaled.astype(np.float64) - instance.intercept) / instance.slope)
    stored = stored.astype(instance.dtype)
    return stored if instance.frames > 1 else stored[0]


@contextmanager
def _hushed() -> Iterator[None]:
    """GDCM's JPEG library tells of every 12-bit file on the process's standard error, and no setting stops it."""
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
