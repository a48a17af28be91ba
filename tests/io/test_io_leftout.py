"""What a walk leaves out, each with its reason, and what it must not leave out."""

from __future__ import annotations

import gzip
import shutil

import numpy as np
import pytest
from pydicom import dcmread

from medssl import find_scans, open_scan
from medssl.errors import GeometryError
from medssl.io import FoundScan, SkippedFile
from medssl.io.write import write_dicom

HEIGHTS = np.array([[0.0, 0.0, 2.0 * k] for k in range(4)])
IDS = {"patient_id": "P1", "study_uid": "1.2", "series_uid": "1.2.3"}


def ends(folder, **options) -> tuple[list[FoundScan], dict[str, str]]:
    """The scans found, and the reason for each file skipped."""
    found = list(find_scans(folder, **options))
    return [one for one in found if isinstance(one, FoundScan)], {
        str(one.path.relative_to(folder)): one.reason for one in found if isinstance(one, SkippedFile)
    }


def test_a_series_exported_twice_is_one_volume(tmp_path, noise, write_slices):
    volume = noise(4, 5, 6)
    write_slices(tmp_path / "a", volume, HEIGHTS)
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    (found,), skipped = ends(tmp_path)
    assert skipped == dict.fromkeys((f"b/00{n}.dcm" for n in range(4)), "A duplicate of another slice")
    np.testing.assert_array_equal(open_scan(found).array[0], volume)
    np.testing.assert_array_equal(open_scan(tmp_path).array[0], volume)


def test_a_cut_copy_is_the_one_that_goes(tmp_path, noise, write_slices):
    write_slices(tmp_path / "b", noise(4, 5, 6), HEIGHTS)
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "cut.dcm").write_bytes((tmp_path / "b" / "002.dcm").read_bytes()[:-8])
    (found,), skipped = ends(tmp_path)
    assert list(skipped) == ["a/cut.dcm"]
    assert open_scan(found).array.shape == (1, 4, 5, 6)


def test_a_slice_under_a_new_number_is_told_by_its_pixels(tmp_path, noise, write_slices):
    volume = noise(4, 5, 6)
    write_slices(tmp_path, volume, HEIGHTS)
    for name, pixels in (("same", volume[1]), ("other", volume[1] + 1)):
        write_dicom(tmp_path / name, pixels, **IDS, instance_uid=f"9.{len(name)}", modality="CT", spacing=(0.7, 0.5),
                    position=HEIGHTS[1], orientation=(1, 0, 0, 0, 1, 0))  # fmt: skip
    with pytest.raises(GeometryError, match="nothing tells consistently"):
        open_scan(tmp_path)
    (tmp_path / "other").unlink()
    (found,), skipped = ends(tmp_path)
    assert skipped == {"same": "A duplicate of another slice"}
    np.testing.assert_array_equal(open_scan(found).array[0], volume)


def test_blank_slices_of_two_phases_are_no_duplicates(tmp_path, write_slices):
    blank = np.zeros((4, 5, 6), np.uint16)
    marks = [{"TemporalPositionIdentifier": n // 2} for n in range(4)]
    write_slices(tmp_path, blank, np.array([[0.0, 0.0, z] for z in (0, 2, 0, 2)]), header=marks)
    found, skipped = ends(tmp_path)
    assert [one.header["phase"] for one in found] == [1, 2]
    assert not skipped


def test_an_x_ray_in_two_folders_is_one_and_a_reused_uid_hides_nobody(tmp_path, noise):
    for name, image in (("a", noise(8, 8)), ("b", noise(8, 8)), ("c", noise(8, 8, name="other"))):
        syntax = "rle" if name == "b" else "explicit"
        write_dicom(tmp_path / name, image, **IDS, instance_uid="1.2.3.4", transfer_syntax=syntax)
    found, skipped = ends(tmp_path)
    assert [one.paths[0].name for one in found] == ["a", "c"]
    assert list(skipped) == ["b"]
    assert "duplicate of another file" in skipped["b"]


@pytest.mark.parametrize(
    ("modality", "header", "reason"),
    [
        ("CT", {"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}, "A localizer"),
        ("CT", {"ImageType": ["DERIVED", "SECONDARY", "REF_SURVIEW"]}, "A localizer"),
        ("DX", {"PresentationIntentType": "FOR PROCESSING"}, "An X-ray FOR PROCESSING"),
        ("DX", {"PresentationIntentType": "FOR PRESENTATION"}, None),
        ("CT", {"ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"]}, None),
        ("MR", {"PresentationIntentType": "FOR PROCESSING"}, None),
    ],
)
def test_unsuited_images_are_skipped_in_folders_and_read_by_name(tmp_path, noise, modality, header, reason):
    write_dicom(tmp_path / "a", noise(8, 8), **IDS, instance_uid="1", modality=modality, header=header)
    found, skipped = ends(tmp_path)
    assert (len(found), len(skipped)) == ((1, 0) if reason is None else (0, 1))
    assert reason is None or skipped["a"].startswith(reason)
    assert open_scan(tmp_path / "a").kind == "image"


@pytest.mark.parametrize(("modality", "skipped"), [("CT", True), ("US", False)])
def test_a_screen_saved_into_a_ct_is_no_ct(tmp_path, noise, modality, skipped):
    write_dicom(tmp_path / "a", noise(6, 8, bits=8, dtype=np.uint8), **IDS, instance_uid="1", modality=modality)
    data = dcmread(tmp_path / "a")
    data.SOPClassUID = "1.2.840.10008.5.1.4.1.1.7"
    data.SamplesPerPixel, data.PhotometricInterpretation, data.PlanarConfiguration = 3, "RGB", 0
    data.PixelData = noise(6, 8, 3, bits=8, dtype=np.uint8).tobytes()
    data.save_as(tmp_path / "a")
    assert bool(ends(tmp_path)[1]) == skipped
    assert open_scan(tmp_path / "a").array.shape == (3, 6, 8)


def test_many_perpendicular_slices_are_no_localizer(tmp_path, write_slices):
    for name, plane, along in (("a", (1, 0, 0, 0, 1, 0), 2), ("b", (1, 0, 0, 0, 0, -1), 1)):
        positions = np.zeros((16, 3))
        positions[:, along] = np.arange(16)
        write_slices(tmp_path / name, np.zeros((16, 4, 4), np.uint16), positions, orientation=plane, series="1.2.3")
    assert [one.size for one in find_scans(tmp_path)] == [(16, 4, 4)] * 2


def test_a_refused_stack_beside_a_sound_one_is_not_passed_over(tmp_path, noise, write_slices):
    write_slices(tmp_path / "a", noise(3, 4, 4), HEIGHTS[:3], series="1.2.3")
    write_slices(tmp_path / "b", noise(3, 4, 4), HEIGHTS[[0, 1, 3]], series="1.2.4")
    with pytest.raises(Exception, match=r"(?s)The folder holds 2 scans:.*3 slices that make no volume, series 1\.2\.4"):
        open_scan(tmp_path)
    assert open_scan(tmp_path, series="1.2.3").array.shape == (1, 3, 4, 4)


def test_every_reason_comes_with_what_to_do(tmp_path, noise, write_slices):
    write_slices(tmp_path / "uneven", noise(4, 5, 6), HEIGHTS + np.array([0, 0, 0.5]) * (HEIGHTS == 2))
    write_dicom(tmp_path / "a.dcm", noise(5, 6), **IDS, instance_uid="1.2.3.4")
    shutil.copy(tmp_path / "a.dcm", tmp_path / "b.dcm")
    (tmp_path / "zipped.gz").write_bytes(gzip.compress((tmp_path / "a.dcm").read_bytes()))
    (tmp_path / ".hidden").write_text("no scan")
    (tmp_path / "notes.txt").write_text("no scan")
    (tmp_path / "link").symlink_to("/etc")
    skipped = {one.path.name: one for one in find_scans(tmp_path) if isinstance(one, SkippedFile)}
    assert {name: one.remedy for name, one in skipped.items() if name[0] in "abl."} == {
        "b.dcm": "none needed: the other one is used",
        ".hidden": "none needed; rename it, if it was to be used",
        "link": "if that storage is yours, name it with --linked",
    }
    assert skipped["zipped.gz"].reason == "DICOM within gzip"
    assert "gunzip" in skipped["zipped.gz"].remedy
    assert "data.prepare.straighten=true" in skipped["002.dcm"].remedy
    assert all(one.remedy for one in skipped.values())
