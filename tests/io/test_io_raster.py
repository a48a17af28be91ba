"""PNG, JPEG and TIFF in the shapes that Pillow would quietly bend: each on a file that the test writes."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medssl import open_scan
from medssl.errors import UnreadableScan


def write_tiff(path: Path, image: np.ndarray, white_is_zero: bool = False) -> None:
    """One uncompressed strip of any number type (TIFF 6.0, sections 2, 8 and 19), in the byte order of the array."""
    order = ">" if image.dtype.byteorder == ">" else "<"
    kind = {"u": 1, "i": 2, "f": 3}[image.dtype.kind]
    rows, columns = image.shape
    tags = [(256, 4, columns), (257, 4, rows), (258, 3, 8 * image.itemsize), (259, 3, 1), (262, 3, 1 - white_is_zero),
            (273, 4, 8), (277, 3, 1), (278, 4, rows), (279, 4, image.nbytes), (339, 3, kind)]  # fmt: skip
    entries = b"".join(
        struct.pack(f"{order}HHI", tag, form, 1) + struct.pack(f"{order}{'I' if form == 4 else 'H2x'}", value)
        for tag, form, value in tags
    )
    start = (b"MM\0*" if order == ">" else b"II*\0") + struct.pack(f"{order}I", 8 + image.nbytes)
    path.write_bytes(start + image.tobytes() + struct.pack(f"{order}H", len(tags)) + entries + bytes(4))


def png_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def write_raw_png(path: Path, size: tuple[int, int], depth: int, colour: int, rows: bytes) -> None:
    header = struct.pack(">IIBBBBB", size[1], size[0], depth, colour, 0, 0, 0)
    chunks = png_chunk(b"IHDR", header) + png_chunk(b"IDAT", zlib.compress(rows, 9)) + png_chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunks)


@pytest.mark.parametrize("dtype", ["<u1", "<u2", ">u2", "<i2", "<u4", "<i4", "<f4", ">f4"])
def test_tiff_keeps_every_number(tmp_path, noise, dtype):
    image = noise(5, 7, bits=8, dtype=np.uint8).astype(dtype)
    image.flat[:2] = (-3.5, np.nan) if dtype[1] == "f" else (np.iinfo(dtype).min, np.iinfo(dtype).max)
    write_tiff(tmp_path / "a.tif", image)
    scan = open_scan(tmp_path / "a.tif")
    np.testing.assert_array_equal(scan.array[0], image)
    assert scan.array.dtype.isnative


@pytest.mark.parametrize("dtype", [">u4", "<f8"])
def test_types_that_pillow_does_not_read_are_refused(tmp_path, noise, dtype):
    write_tiff(tmp_path / "a.tif", noise(5, 7).astype(dtype))
    with pytest.raises(UnreadableScan, match="of a type that Pillow does not read"):
        open_scan(tmp_path / "a.tif")


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_white_is_zero(tmp_path, noise, dtype):
    image = noise(5, 7, bits=8, dtype=dtype)
    write_tiff(tmp_path / "a.tif", image, white_is_zero=True)
    np.testing.assert_array_equal(open_scan(tmp_path / "a.tif").array[0], ~image)


TURNS = {
    1: lambda a: a, 2: np.fliplr, 3: lambda a: np.rot90(a, 2), 4: np.flipud,
    5: np.transpose, 6: lambda a: np.rot90(a, -1), 7: lambda a: np.rot90(a, 2).T, 8: np.rot90,
}  # fmt: skip
"""What is to be done to the stored rows so that the picture stands upright (EXIF 2.3, 4.6.4 A, Orientation)."""


@pytest.mark.parametrize("orientation", TURNS)
@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_images_stand_as_exif_says(tmp_path, noise, orientation, name):
    image, exif = noise(5, 7, bits=8, dtype=np.uint8), Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(image).save(tmp_path / name, exif=exif)
    np.testing.assert_array_equal(open_scan(tmp_path / name).array[0], TURNS[orientation](image))


def test_palettes_become_colour_or_grey_whatever_is_transparent(tmp_path):
    index = np.arange(12, dtype=np.uint8).reshape(3, 4) % 3
    for colours, channels in (([[10, 20, 30], [40, 50, 60], [70, 80, 90]], 3), ([[9] * 3, [7] * 3, [200] * 3], 1)):
        image = Image.fromarray(index, "P")
        image.putpalette(np.array(colours, np.uint8).tobytes())
        for more in ({}, {"transparency": 1}, {"transparency": bytes([0, 128, 255])}):
            image.save(tmp_path / "a.png", **more)
            expected = np.moveaxis(np.array(colours)[index], -1, 0)[:channels]
            np.testing.assert_array_equal(open_scan(tmp_path / "a.png").array, expected)


@pytest.mark.parametrize(("colour", "channels"), [(2, 3), (4, 2), (6, 4)])
def test_wide_colour_and_wide_transparency_are_refused(tmp_path, noise, colour, channels):
    rows = b"".join(b"\0" + noise(4, channels, bits=16).astype(">u2").tobytes() for _ in range(3))
    write_raw_png(tmp_path / "a.png", (3, 4), 16, colour, rows)
    with pytest.raises(UnreadableScan, match="PNG with 16 bits a channel"):
        open_scan(tmp_path / "a.png")


@pytest.mark.parametrize("suffix", ["tif", "png"])
def test_several_pages_are_refused_and_counted(tmp_path, noise, suffix):
    pages = [Image.fromarray(noise(4, 5, bits=8, dtype=np.uint8, name=str(page))) for page in range(3)]
    pages[0].save(tmp_path / f"a.{suffix}", save_all=True, append_images=pages[1:])
    with pytest.raises(UnreadableScan, match="of 3 pages"):
        open_scan(tmp_path / f"a.{suffix}")


@pytest.mark.parametrize("size", [(10_000, 10_000), (20_000, 20_000)])
def test_pillows_warning_and_its_error_become_ours(tmp_path, size):
    write_raw_png(tmp_path / "a.png", size, 8, 0, bytes(1000))
    with pytest.raises(UnreadableScan, match="more pixels than Pillow trusts.*89,478,485"):
        open_scan(tmp_path / "a.png")


def test_a_png_that_cannot_hold_its_pixels_is_refused_before_they_are_asked_for(tmp_path):
    write_raw_png(tmp_path / "a.png", (9_000, 9_000), 1, 0, b"")
    with pytest.raises(UnreadableScan, match="declares 10125000 bytes, and 65 bytes of deflate"):
        open_scan(tmp_path / "a.png")


def test_the_ceiling_holds_for_images(tmp_path, noise, monkeypatch):
    Image.fromarray(noise(512, 512, bits=8, dtype=np.uint8)).save(tmp_path / "a.tif")
    monkeypatch.setenv("MEDSSL_MAX_SCAN_GIB", str(2**20 / 2**30))
    assert open_scan(tmp_path / "a.tif").array.size == 2**18
    monkeypatch.setenv("MEDSSL_MAX_SCAN_GIB", str((2**20 - 1) / 2**30))
    with pytest.raises(UnreadableScan, match="would take 0.000977 GiB"):
        open_scan(tmp_path / "a.tif")
