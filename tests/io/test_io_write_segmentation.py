"""medssl.io.write_segmentation: which frames a segmentation may lie on, and what cannot be referred to.

What is written of a whole series, and who reads it, is in tests/evaluate/test_masks.py.
"""

from __future__ import annotations

import numpy as np
import pydicom
import pytest
from dicom_masks import positions, write_image
from test_io_enhanced import place, write_enhanced

from medssl import open_scan
from medssl.errors import GeometryError, MedsslError
from medssl.io import open_mask
from medssl.io.write_segmentation import write_segmentation


def test_a_series_that_has_lost_a_slice_since_is_not_drawn_on(tmp_path):
    places = positions(4)
    write_image(tmp_path, np.zeros((4, 6, 7), np.int16), places)
    files, affine = sorted(tmp_path.iterdir()), open_scan(tmp_path).affine
    with pytest.raises(GeometryError, match="4 slices were segmented, of which the series holds 3"):
        write_segmentation(tmp_path / "seg.dcm", {"a": np.ones((4, 6, 7), bool)}, files[1:], affine)
    assert not (tmp_path / "seg.dcm").exists()


def test_frames_of_one_file_may_lie_in_any_order_and_each_say_its_direction(tmp_path):
    order, region = [2, 0, 4, 1, 3], np.zeros((5, 8, 9), bool)
    region[1:4, 2:5, 3:8], region[2, 3, 3] = True, False
    write_enhanced(tmp_path / "e.dcm", np.zeros((5, 8, 9), np.uint16), [place(3.0 * z) for z in order],
                   FrameOfReferenceUID="1.9")
    scan = open_scan(tmp_path / "e.dcm")
    write_segmentation(tmp_path / "seg.dcm", {"WT": region}, [tmp_path / "e.dcm"], scan.affine)
    drawn = open_mask([tmp_path / "seg.dcm"], {1: ["WT"]}, scan, tmp_path / "e.dcm").array[0] > 0
    np.testing.assert_array_equal(drawn, region)


def test_a_preamble_that_is_a_program_is_not_taken_over(tmp_path):
    """The 128 bytes before a DICOM file's own may hold the start of a program (DICOM PS3.10, 7.5)."""
    write_image(tmp_path, np.zeros((4, 6, 7), np.int16), positions(4))
    files, affine = sorted(tmp_path.iterdir()), open_scan(tmp_path).affine
    assert {file.read_bytes()[:132] for file in files} == {bytes(128) + b"DICM"}
    for file in files:
        file.write_bytes(b"MZ\x90\0".ljust(128, b"\xcc") + file.read_bytes()[128:])
    write_segmentation(tmp_path / "seg.dcm", {"a": np.ones((4, 6, 7), bool)}, files, affine)
    assert (tmp_path / "seg.dcm").read_bytes()[:132] == bytes(128) + b"DICM"


@pytest.mark.parametrize(("header", "told"), [
    ({"FrameOfReferenceUID": None}, "names no frame of reference"), ({"SOPClassUID": None}, "No DICOM segmentation")])
def test_a_series_that_nothing_can_refer_to_says_so(header, told, tmp_path):
    write_image(tmp_path, np.zeros((4, 6, 7), np.int16), positions(4))
    affine, files = open_scan(tmp_path).affine, sorted(tmp_path.iterdir())
    for file in files:
        data = pydicom.dcmread(file)
        for keyword in header:
            delattr(data, keyword)
        data.save_as(file, enforce_file_format=False)
    with pytest.raises(MedsslError, match=told):
        write_segmentation(tmp_path / "seg.dcm", {"a": np.ones((4, 6, 7), bool)}, files, affine)
