"""Values of DICOM pictures as the standard has them: padding, colours, lookup tables, and the times of frames."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread, dcmwrite
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRBigEndian
from test_io_dicom import IDS, rewrite

from medssl import open_scan
from medssl.io.write import write_dicom


@pytest.fixture
def padded(noise) -> tuple[np.ndarray, np.ndarray]:
    """Stored values (J, I) of a CT, -2000 outside of the field of view, and where that is."""
    image = noise(16, 16, bits=11, dtype=np.int16)
    outside = np.add.outer(np.arange(16), np.arange(16)) < 8
    return np.where(outside, np.int16(-2000), image), outside


def pad(path: Path, vr: str = "SS", **attributes: int) -> None:
    data = dcmread(path)
    for keyword, value in attributes.items():
        data.add_new(keyword, vr, value)
    data.save_as(path)


@pytest.mark.parametrize(("vr", "value"), [("SS", -2000), ("US", (1 << 16) - 2000)])
def test_padding_becomes_the_lowest_real_value_whatever_its_sign(tmp_path, padded, vr, value):
    image, outside = padded
    header = {"RescaleSlope": 2, "RescaleIntercept": -10}
    write_dicom(tmp_path / "a", image, **IDS, modality="CT", bits_stored=16, header=header)
    pad(tmp_path / "a", vr, PixelPaddingValue=value)
    array, expected = open_scan(tmp_path / "a").array[0], 2.0 * image - 10
    np.testing.assert_array_equal(array[~outside], expected[~outside])
    assert (array[outside] == expected[~outside].min()).all()


def test_a_range_of_padding_is_padding_from_end_to_end(tmp_path, padded):
    image, outside = padded
    image[0, :4] = -2000, -1990, -1970, -1950
    write_dicom(tmp_path / "a", image, **IDS, modality="CT", bits_stored=16)
    pad(tmp_path / "a", PixelPaddingValue=-2000, PixelPaddingRangeLimit=-1950)
    assert (open_scan(tmp_path / "a").array[0][outside] == image[~outside].min()).all()


def test_padding_of_a_series_becomes_the_lowest_value_of_all_its_slices(tmp_path, padded, write_slices):
    volume = np.stack([padded[0], np.full((16, 16), -1030, np.int16)])
    write_slices(tmp_path, volume, np.array([[0.0, 0.0, z] for z in (0, 2)]), header={"PixelPaddingValue": -2000})
    array = open_scan(tmp_path).array[0]
    assert (array[0][padded[1]] == -1030).all()
    np.testing.assert_array_equal(array[0][~padded[1]], volume[0][~padded[1]])


@pytest.mark.parametrize(("modality", "lowest"), [("CT", -2040), ("DX", None)])
def test_padding_among_real_values_and_of_x_rays_stays(tmp_path, padded, modality, lowest):
    image, _ = padded
    image[15, 15] = image[15, 15] if lowest is None else lowest
    write_dicom(tmp_path / "a", image, **IDS, modality=modality, bits_stored=16)
    pad(tmp_path / "a", PixelPaddingValue=-2000)
    np.testing.assert_array_equal(open_scan(tmp_path / "a").array[0], image)


def test_ybr_becomes_rgb(tmp_path, noise):
    r, g, b = rgb = noise(3, 8, 8, bits=8, dtype=np.uint8).astype(np.float64) * 0.5 + 60
    y = 0.299 * r + 0.587 * g + 0.114 * b  # PS3.3 C.7.6.3.1.2
    ybr = np.stack([y, 128 + (b - y) / 1.772, 128 + (r - y) / 1.402], axis=-1)
    write_dicom(tmp_path / "a", np.zeros((8, 8), np.uint8), **IDS, modality="US")
    rewrite(tmp_path / "a", SamplesPerPixel=3, PlanarConfiguration=0, PhotometricInterpretation="YBR_FULL",
            PixelData=np.rint(ybr).astype(np.uint8).tobytes())  # fmt: skip
    np.testing.assert_allclose(open_scan(tmp_path / "a").array, rgb, atol=2)


def test_a_palette_is_looked_up_from_its_first_entry_on(tmp_path, noise):
    image, tables = noise(8, 8, bits=7, dtype=np.uint8) + np.uint8(10), noise(3, 128, bits=16, name="palette")
    write_dicom(tmp_path / "a", image, **IDS, modality="US")
    data = dcmread(tmp_path / "a")
    data.PhotometricInterpretation = "PALETTE COLOR"
    for colour, table in zip(("Red", "Green", "Blue"), tables, strict=True):
        data.add_new(f"{colour}PaletteColorLookupTableDescriptor", "US", [128, 10, 16])
        data.add_new(f"{colour}PaletteColorLookupTableData", "OW", table.tobytes())
    data.save_as(tmp_path / "a")
    np.testing.assert_array_equal(open_scan(tmp_path / "a").array, tables[:, image - 10])


@pytest.mark.parametrize(("photometric", "first"), [("MONOCHROME2", 100), ("MONOCHROME1", 4095 - (100 + 15))])
def test_a_voi_lut_is_told_for_the_values_as_they_are_returned(tmp_path, noise, photometric, first):
    table = np.arange(0, 256, 16) + 15
    write_dicom(tmp_path / "a", noise(8, 8), **IDS, photometric=photometric)
    lut = Dataset()
    lut.add_new("LUTDescriptor", "US", [16, 100, 8])
    lut.add_new("LUTData", "US", table.tolist())
    rewrite(tmp_path / "a", VOILUTSequence=[lut])
    begins, entries = open_scan(tmp_path / "a").header["voi_lut"]
    assert begins == first
    np.testing.assert_allclose(entries, table / 255 if photometric == "MONOCHROME2" else 1 - table[::-1] / 255)


@pytest.mark.parametrize(("header", "frame_time"), [
    ({"FrameTime": 20, "CineRate": 25}, 20),
    ({"FrameTimeVector": [0, 40, 40, 40, 40], "CineRate": 50}, 40),
    ({"FrameTimeVector": [0, 40, 90, 40, 40], "CineRate": 50}, 20),
    ({"CineRate": 25}, 40),
    ({"RecommendedDisplayFrameRate": 50}, 20),
    ({}, None),
])  # fmt: skip
def test_the_time_between_frames(tmp_path, noise, header, frame_time):
    write_dicom(tmp_path / "a", noise(6, 8, bits=8, dtype=np.uint8), **IDS, modality="US")
    rewrite(tmp_path / "a", NumberOfFrames=5, PixelData=bytes(240), **header)
    assert open_scan(tmp_path / "a").frame_time == frame_time


@pytest.mark.parametrize("keyword", ["PixelSpacing", "ImagerPixelSpacing"])
def test_the_header_says_where_the_spacing_is_from(tmp_path, noise, keyword):
    write_dicom(tmp_path / "a", noise(8, 8), **IDS)
    rewrite(tmp_path / "a", **{keyword: [0.15, 0.14]})
    scan = open_scan(tmp_path / "a")
    assert (scan.spacing, scan.header["spacing_from"]) == ((0.15, 0.14), keyword)


@pytest.mark.parametrize("dtype", [np.uint16, np.int16])
def test_big_endian_values_are_native_ones_again(tmp_path, noise, dtype):
    image = noise(8, 9, dtype=dtype)
    write_dicom(tmp_path / "a", image, **IDS)
    data = dcmread(tmp_path / "a")
    data.PixelData, data["PixelData"].VR = image.astype(image.dtype.newbyteorder(">")).tobytes(), "OW"
    data.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
    dcmwrite(tmp_path / "a", data, implicit_vr=False, little_endian=False, force_encoding=True)
    array = open_scan(tmp_path / "a").array
    assert array.dtype == dtype
    assert array.dtype.isnative
    np.testing.assert_array_equal(array[0], image)
