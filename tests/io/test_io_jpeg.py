"""JPEG that GDCM decodes, alone or within SimpleITK: damaged headers, on which it ends the process, do not reach it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from fuzz_seeds import JPEG, write_jpeg_dicom
from pydicom import dcmread
from pydicom.encaps import encapsulate, generate_frames

from medssl import open_scan
from medssl.errors import UnreadableScan
from medssl.io.jpeg import require_headers

SIZE = {"rows": 32, "columns": 32, "samples": 1, "bits": 16}


@pytest.fixture
def stream(tmp_path) -> bytes:
    """Lossless, of 16 bits: a start, a frame header, a table, a scan header, the picture."""
    write_jpeg_dicom(tmp_path / "a", "jpeg_lossless")
    return first_stream(tmp_path / "a")


def first_stream(path: Path) -> bytes:
    return next(generate_frames(dcmread(path).PixelData, number_of_frames=1))


@pytest.mark.parametrize("encoding", JPEG)
def test_whole_headers_pass(tmp_path, encoding):
    write_jpeg_dicom(tmp_path / "a", encoding)
    stream = first_stream(tmp_path / "a")
    require_headers(stream, **SIZE)
    require_headers(stream[:2] + b"\xff\xff\xfe\x00\x07a note"[:10] + stream[2:], **SIZE)  # a fill byte, a comment
    assert open_scan(tmp_path / "a").array.shape == (1, 32, 32)


@pytest.mark.parametrize(("marker", "behind", "value"), [
    (0xC3, 4, 0x80),  # of 128 bits: GDCM writes where it must not
    (0xC3, 4, 17),
    (0xC3, 6, 33),  # another height
    (0xC3, 9, 2),  # two components, and one described
    (0xC3, 11, 0),  # no samples
    (0xC3, 1, 0xC8),  # no frame header
    (0xC4, 0, 0),  # no marker: GDCM throws what nobody catches
    (0xC4, 1, 0xE1),  # no table
    (0xC4, 4, 3),  # another table than the picture asks for
    (0xC4, 5, 0xFF),  # more codes than there are
    (0xC4, 2, 0xFF),  # longer than the file
    (0xDA, 4, 0),  # no component
    (0xDA, 5, 9),  # one that the frame does not have
])  # fmt: skip
def test_damaged_headers_are_refused_before_they_are_decoded(tmp_path, stream, marker, behind, value):
    raw = bytearray(stream)
    raw[raw.index(bytes((0xFF, marker))) + behind] = value
    with pytest.raises(UnreadableScan, match="headers of a JPEG stream"):
        require_headers(bytes(raw), **SIZE)
    data = dcmread(tmp_path / "a")
    data.PixelData = encapsulate([bytes(raw)])
    data.save_as(tmp_path / "a")
    with pytest.raises(UnreadableScan, match="headers of a JPEG stream"):
        open_scan(tmp_path / "a")


@pytest.mark.parametrize("length", [0, 1, 2, 3, 10, 40])
def test_a_stream_that_ends_among_its_headers_is_refused(stream, length):
    with pytest.raises(UnreadableScan, match="headers of a JPEG stream"):
        require_headers(stream[:length], **SIZE)


def test_twelve_bits_are_near_what_was_written_and_scaled_once(tmp_path):
    image = write_jpeg_dicom(tmp_path / "a", "jpeg_extended")
    data = dcmread(tmp_path / "a")
    data.RescaleSlope, data.RescaleIntercept = 0.5, -1000
    data.save_as(tmp_path / "a")
    assert image.max() > 4000
    np.testing.assert_allclose(open_scan(tmp_path / "a").array[0], image * 0.5 - 1000, atol=4)
