"""One DICOM file: what was written is what is read, voxel for voxel; what cannot be read is refused by name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate

from medssl import open_scan
from medssl.errors import UnreadableScan
from medssl.io.intensity import apply_own_window
from medssl.io.write import write_dicom

IDS = {"patient_id": "P1", "study_uid": "1.2", "series_uid": "1.2.3", "instance_uid": "1.2.3.4"}


def rewrite(path: Path, **changes) -> Dataset:
    """Change attributes of a written file, None to delete."""
    data = dcmread(path)
    for keyword, value in changes.items():
        if value is None:
            delattr(data, keyword)
        else:
            setattr(data, keyword, value)
    data.save_as(path)
    return data


@pytest.mark.parametrize("syntax", ["explicit", "rle", "jpeg2000", "jpegls"])
@pytest.mark.parametrize(("bits", "dtype"), [(8, np.uint8), (12, np.uint16), (16, np.uint16), (12, np.int16)])
@pytest.mark.parametrize("size", [(40, 36), (39, 35)])
def test_lossless_syntaxes_give_every_voxel_back(tmp_path, noise, syntax, bits, dtype, size):
    image = noise(*size, bits=bits, dtype=dtype)
    path = tmp_path / "deep" / "a.bin"
    write_dicom(path, image, **IDS, bits_stored=bits, transfer_syntax=syntax, spacing=(0.2, 0.1))
    scan = open_scan(path)
    assert (scan.kind, scan.modality, scan.spacing, scan.affine) == ("image", "DX", (0.2, 0.1), None)
    assert scan.array.dtype == dtype
    assert scan.array.flags.c_contiguous
    np.testing.assert_array_equal(scan.array, image[None])


def test_written_files_are_valid_and_name_nobody(tmp_path, noise):
    for name in ("a", "b"):
        write_dicom(tmp_path / name, noise(8, 8), **IDS)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    raw, data = (tmp_path / "a").read_bytes(), dcmread(tmp_path / "a")
    assert raw[:132] == b"\0" * 128 + b"DICM"
    assert data.PatientName == ""
    assert data.SOPClassUID.name == "Digital X-Ray Image Storage - For Presentation"
    assert data.file_meta.MediaStorageSOPInstanceUID == data.SOPInstanceUID == "1.2.3.4"


def test_values_beyond_the_stored_bits_are_not_written(tmp_path):
    with pytest.raises(ValueError, match="12 bits"):
        write_dicom(tmp_path / "a", np.full((4, 4), 4096, np.uint16), **IDS)


@pytest.mark.parametrize("dtype", [np.uint16, np.int16])
def test_monochrome1_is_inverted(tmp_path, noise, dtype):
    image = noise(9, 7, dtype=dtype)
    write_dicom(tmp_path / "a", image, **IDS, photometric="MONOCHROME1")
    expected = 4095 - image if dtype == np.uint16 else -1 - image
    np.testing.assert_array_equal(open_scan(tmp_path / "a").array[0], expected)


@pytest.mark.parametrize("modality", ["CT", "PT"])
def test_monochrome1_inverts_no_physical_values(tmp_path, noise, modality):
    image = noise(9, 7)
    write_dicom(tmp_path / "a", image, **IDS, modality="CT", photometric="MONOCHROME1")
    rewrite(tmp_path / "a", Modality=modality)
    np.testing.assert_array_equal(open_scan(tmp_path / "a").array[0], image)


def test_a_modality_lut_goes_before_rescaling(tmp_path, noise):
    image, table = noise(9, 7, bits=8), noise(256, bits=16, name="table")
    write_dicom(tmp_path / "a", image, **IDS, bits_stored=8)
    lut = Dataset()
    lut.add_new("LUTDescriptor", "US", [256, 0, 16])
    lut.add_new("LUTData", "OW", table.tobytes())
    rewrite(tmp_path / "a", ModalityLUTSequence=[lut])
    np.testing.assert_array_equal(open_scan(tmp_path / "a").array[0], table[image])


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
def test_the_window_follows_the_inversion(tmp_path, noise, function):
    image = noise(16, 16)
    window = {"WindowCenter": 900, "WindowWidth": 700, "VOILUTFunction": function, "RescaleSlope": 2}
    window |= {"RescaleIntercept": 3}
    write_dicom(tmp_path / "plain", image, **IDS, header=window)
    write_dicom(tmp_path / "inverted", image, **IDS, photometric="MONOCHROME1", header=window)
    plain, inverted = (apply_own_window(open_scan(tmp_path / name)) for name in ("plain", "inverted"))
    assert 0.1 < (plain > 0).mean() < 1.01
    np.testing.assert_allclose(inverted, 1 - plain, atol=1e-5)


def test_rescaled_values_are_hounsfield_units(tmp_path, noise):
    image = noise(8, 8)
    header = {"RescaleSlope": "0.5", "RescaleIntercept": "-1024"}
    write_dicom(tmp_path / "a", image, **IDS, modality="CT", header=header)
    scan = open_scan(tmp_path / "a")
    assert scan.array.dtype == np.float32
    np.testing.assert_array_equal(scan.array[0], image * 0.5 - 1024)


def test_overlay_bits_above_the_stored_ones_do_not_leak(tmp_path, noise):
    image = noise(8, 8, bits=16)
    write_dicom(tmp_path / "a", image, **IDS, bits_stored=16)
    rewrite(tmp_path / "a", BitsStored=12, HighBit=11)
    np.testing.assert_array_equal(open_scan(tmp_path / "a").array[0], image & 4095)


def test_pixel_spacing_goes_before_the_detector_spacing(tmp_path, noise):
    write_dicom(tmp_path / "a", noise(8, 8), **IDS, spacing=(0.2, 0.2), header={"PixelSpacing": [0.15, 0.14]})
    assert open_scan(tmp_path / "a").spacing == (0.15, 0.14)
    write_dicom(tmp_path / "b", noise(8, 8), **IDS)
    assert open_scan(tmp_path / "b").spacing is None


def test_colour_keeps_three_channels(tmp_path, noise):
    write_dicom(tmp_path / "a", noise(6, 8, bits=8, dtype=np.uint8), **IDS, modality="US")
    colours = noise(6, 8, 3, bits=8, dtype=np.uint8)
    rewrite(tmp_path / "a", SamplesPerPixel=3, PhotometricInterpretation="RGB", PlanarConfiguration=0,
            PixelData=colours.tobytes())  # fmt: skip
    scan = open_scan(tmp_path / "a")
    assert scan.array.flags.c_contiguous
    np.testing.assert_array_equal(scan.array, np.moveaxis(colours, -1, 0))


def test_frames_of_an_ultrasound_are_times(tmp_path, noise):
    write_dicom(tmp_path / "a", noise(6, 8, bits=8, dtype=np.uint8), **IDS, modality="US")
    clip = noise(5, 6, 8, bits=8, dtype=np.uint8)
    rewrite(tmp_path / "a", NumberOfFrames=5, FrameTime=20, PixelData=clip.tobytes())
    scan = open_scan(tmp_path / "a")
    assert (scan.kind, scan.frame_time, scan.affine) == ("cine", 20.0, None)
    np.testing.assert_array_equal(scan.array, clip[None])


def test_frames_of_a_ct_are_not_guessed_at(tmp_path, noise):
    write_dicom(tmp_path / "a", noise(6, 8, bits=8, dtype=np.uint8), **IDS, modality="CT")
    rewrite(tmp_path / "a", NumberOfFrames=5, FrameTime=20, PixelData=bytes(240))
    with pytest.raises(UnreadableScan, match="slices or times"):
        open_scan(tmp_path / "a")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"PixelData": None}, "without pixel data"),
        ({"Rows": None}, "without Rows"),
        ({"Modality": "RTDOSE"}, "No acquired image"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.88.11"}, "Basic Text SR"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.11.1"}, "Presentation State"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.4.1"}, "enhanced multi-frame"),
        ({"PixelData": bytes(100)}, "end after 50 of 64"),
        ({"HighBit": 15}, "HighBit 15"),
        ({"RescaleSlope": 0, "RescaleIntercept": 0}, "slope"),
    ],
)
def test_what_is_no_image_is_refused_by_name(tmp_path, noise, changes, reason):
    write_dicom(tmp_path / "a", noise(8, 8), **IDS)
    rewrite(tmp_path / "a", **changes)
    with pytest.raises(UnreadableScan, match=reason) as caught:
        open_scan(tmp_path / "a")
    assert str(tmp_path) not in str(caught.value)
    assert any(str(tmp_path) in note for note in caught.value.__notes__)


def test_a_dataset_without_preamble_is_read(tmp_path, noise):
    image = noise(8, 8)
    write_dicom(tmp_path / "a", image, **IDS)
    data = dcmread(tmp_path / "a")
    del data.file_meta
    data.preamble = None
    data.save_as(tmp_path / "b", implicit_vr=True, little_endian=True)
    assert (tmp_path / "b").read_bytes()[128:132] != b"DICM"
    np.testing.assert_array_equal(open_scan(tmp_path / "b").array[0], image)


@pytest.mark.parametrize("runs", [1, 3])
def test_rle_that_is_shorter_or_longer_than_its_picture_is_damaged(tmp_path, noise, runs):
    """Where it is longer, pylibjpeg-rle panics, which no `except Exception` stops."""
    write_dicom(tmp_path / "a", noise(16, 16), **IDS, transfer_syntax="rle")
    segment = b"\x81\x07" * runs  # a byte 128 times each, where there are 256 pixels
    header = np.array([2, 64, 64 + len(segment), *[0] * 13], "<u4").tobytes()
    rewrite(tmp_path / "a", PixelData=encapsulate([header + segment * 2]))
    with pytest.raises(UnreadableScan, match="decoder gave up"):
        open_scan(tmp_path / "a")
