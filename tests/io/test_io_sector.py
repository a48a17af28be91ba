"""Ultrasound: what lies outside the image sector, as its text does, stays outside the Scan."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset

from medssl import find_scans, open_scan
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
