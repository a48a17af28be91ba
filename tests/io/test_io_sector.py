"""Ultrasound: what lies outside the image sector, as its text does, stays outside the Scan."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw
from pydicom import dcmread
from pydicom.dataset import Dataset

from medssl import find_scans, open_scan
from medssl.io.sector import marked_outside
from medssl.io.write import write_dicom


def region(top: int, bottom: int, left: int, right: int, spatial: int = 1) -> Dataset:
    """One item of SequenceOfUltrasoundRegions (PS3.3 C.8.5.5): 1 is 2-D, 2 M-mode, 3 spectral; ends are inclusive."""
    item = Dataset()
    item.RegionSpatialFormat, item.RegionDataType = spatial, 1
    item.RegionLocationMinY0, item.RegionLocationMaxY1 = top, bottom
    item.RegionLocationMinX0, item.RegionLocationMaxX1 = left, right
    return item


def write(path: Path, image: np.ndarray, *regions: Dataset) -> None:
    """A picture (J, I), or a clip (T, J, I), with these regions."""
    first = image if image.ndim == 2 else image[0]
    write_dicom(path, first, patient_id="P", study_uid="1.2", series_uid="1.2.3", instance_uid="1.2.3.4", modality="US")
    data = dcmread(path)
    data.SequenceOfUltrasoundRegions = list(regions)
    if image.ndim == 3:
        data.NumberOfFrames, data.FrameTime, data.PixelData = len(image), 40, image.tobytes()
    data.save_as(path)


@pytest.mark.parametrize("frames", [(), (3,)])
def test_a_picture_and_a_clip_are_cropped_to_their_regions(tmp_path, noise, frames):
    image = noise(*frames, 40, 50)
    write(tmp_path / "a", image, region(10, 29, 5, 44))
    (found,) = find_scans(tmp_path)
    assert found.size == (*frames, 20, 40)
    for source in (found, tmp_path / "a"):
        scan = open_scan(source)
        np.testing.assert_array_equal(scan.array[0], image[..., 10:30, 5:45])
        assert scan.array.flags.c_contiguous


@pytest.mark.parametrize(("regions", "kept"), [
    ([region(5, 20, 5, 20), region(8, 30, 25, 45)], np.s_[5:31, 5:46]),  # two planes side by side
    ([region(5, 20, 5, 20), region(25, 39, 0, 49, spatial=3)], np.s_[5:21, 5:21]),  # a spectrum below
    ([region(0, 40, 0, 50)], np.s_[:, :]),  # ends taken for exclusive
    ([region(25, 39, 0, 49, spatial=2)], np.s_[:, :]),
    ([region(5, 20, 5, 51)], np.s_[:, :]),
    ([region(5, 20, 5, 20), region(20, 5, 5, 20)], np.s_[:, :]),
    ([Dataset()], np.s_[:, :]),
    ([], np.s_[:, :]),
])  # fmt: skip
def test_which_regions_count(tmp_path, noise, regions, kept):
    image = noise(40, 50)
    write(tmp_path / "a", image, *regions)
    np.testing.assert_array_equal(open_scan(tmp_path / "a").array[0], image[kept])


def lettered(background: int, ink: int, at: tuple[int, int]) -> np.ndarray:
    """(40, 120) uint8: a word in Pillow's own font, some 11 pixels high, its left upper corner `at` (column, row)."""
    picture = Image.new("L", (120, 40), background)
    ImageDraw.Draw(picture).text(at, "ANNA MEIER", fill=ink)
    return np.asarray(picture)


@pytest.mark.parametrize(("image", "marked"), [
    (lettered(0, 255, (5, 0)), True),
    (lettered(0, 70, (5, 0)), True),  # dim
    (lettered(200, 20, (5, 0)), True),  # on a banner
    (lettered(0, 255, (25, 22)), False),  # within the region
    (lettered(90, 90, (5, 0)), False),
])  # fmt: skip
@pytest.mark.parametrize("frame", [None, 2])
def test_marks_outside_the_regions_are_noted_and_stay_out_of_the_pixels(tmp_path, noise, image, marked, frame):
    image = image.copy()
    image[20:36, 20:110] = np.maximum(image[20:36, 20:110], noise(16, 90) % 256)
    image[1:3, 118] = 250  # what compression leaves is no mark
    if frame is not None:  # text that is there for one frame
        clip = np.stack([np.full_like(image, image[-1, -1])] * 4)
        clip[frame] = image
        image = clip
    write(tmp_path / "a", image.astype(np.uint16), region(20, 35, 20, 109))
    scan = open_scan(tmp_path / "a")
    assert scan.header["marks_outside_regions"] is marked
    np.testing.assert_array_equal(scan.array[0], image[..., 20:36, 20:110])


def test_coloured_letters_on_white_are_marks(tmp_path):
    letters = lettered(255, 0, (5, 0))
    red = np.stack([np.full_like(letters, 255), letters, letters])
    assert marked_outside(red, (20, 36, 20, 110))
    assert not marked_outside(red, (0, 40, 0, 120))  # nothing is outside


def test_what_is_not_cropped_says_nothing_of_marks(tmp_path, noise):
    write(tmp_path / "a", noise(40, 50))
    assert "marks_outside_regions" not in open_scan(tmp_path / "a").header


def test_a_real_echo_whose_regions_leave_the_picture_is_not_cropped_and_with_mended_ones_its_text_is_seen(tmp_path):
    """A clip of 320 columns whose header still has the regions of 640: its maker halved it after the fact."""
    if "MEDSSL_DATA" not in os.environ:
        pytest.skip("MEDSSL_DATA names no folder of real scans")
    (path,) = (Path(os.environ["MEDSSL_DATA"]) / "dicom_corpus").rglob("examples_ybr_color.dcm")
    whole = open_scan(path)
    assert whole.array.shape == (3, 30, 240, 320)
    assert "marks_outside_regions" not in whole.header
    data = dcmread(path)
    data.SequenceOfUltrasoundRegions = [region(31 // 2, 414 // 2, 84 // 2, 595 // 2)]
    data.save_as(tmp_path / "a")
    scan = open_scan(tmp_path / "a")
    assert scan.array.shape == (3, 30, 193, 256)
    assert scan.header["marks_outside_regions"] is True
