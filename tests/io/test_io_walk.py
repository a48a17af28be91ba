"""How far a walk goes: every file below a folder, and nothing that lies outside of it, whatever links say."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from medssl import find_scans
from medssl.io import FoundScan, SkippedFile
from medssl.io.walk import HIDDEN, OUTSIDE, REPEATED, UNLISTED, Bounds, walk
from medssl.io.write import write_dicom, write_nifti, write_png


def ends(folder: Path, **options: bool) -> dict[str, str | None]:
    return dict(walk(folder, Bounds(folder), **options))


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A folder with two files, beside another that is none of its business."""
    for name in ("root/b/scan.png", "root/a.png", "elsewhere/secret.png", "elsewhere/deep/er.png"):
        write_png(tmp_path / name, np.zeros((4, 4), np.uint8))
    return tmp_path / "root"


def test_files_come_before_the_folders_beside_them(tree: Path):
    (tree / "b" / "a").mkdir()
    (tree / "b" / "a" / "x").touch()
    assert list(walk(tree, Bounds(tree))) == [("a.png", None), ("b/scan.png", None), ("b/a/x", None)]


def test_links_out_of_the_folder_are_refused_whether_to_files_or_folders(tree: Path):
    (tree / "file.png").symlink_to("../elsewhere/secret.png")
    (tree / "b" / "folder").symlink_to(tree.parent / "elsewhere")
    (tree / "up").symlink_to("..")
    (tree / "through.png").symlink_to("b/folder/secret.png")
    for repeat in (False, True):
        found = ends(tree, repeat=repeat)
        assert {name for name, reason in found.items() if reason == OUTSIDE} == {
            "file.png", "b/folder", "up", "through.png"}
        assert {name for name, reason in found.items() if reason is None} == {"a.png", "b/scan.png"}


def test_a_name_that_merely_begins_alike_lies_outside(tree: Path):
    write_png(tree.parent / "root2" / "x.png", np.zeros((4, 4), np.uint8))
    (tree / "x.png").symlink_to("../root2/x.png")
    assert ends(tree)["x.png"] == OUTSIDE


def test_links_that_stay_inside_are_followed_once(tree: Path):
    (tree / "again").symlink_to("b")
    (tree / "b" / "loop").symlink_to("..")
    (tree / "c.png").symlink_to("a.png")
    assert ends(tree) == {"a.png": None, "b/scan.png": None, "again": REPEATED, "b/loop": REPEATED, "c.png": REPEATED}
    assert ends(tree, repeat=True) == {"a.png": None, "b/scan.png": None, "again/scan.png": None, "c.png": None,
                                       "again/loop": REPEATED, "b/loop": REPEATED}


def test_links_to_hidden_files_within_are_followed_as_git_annex_has_them(tree: Path):
    (tree / ".git" / "annex").mkdir(parents=True)
    (tree / "a.png").rename(tree / ".git" / "annex" / "1234.png")
    (tree / "a.png").symlink_to(".git/annex/1234.png")
    assert ends(tree) == {".git": HIDDEN, "a.png": None, "b/scan.png": None}


def test_a_root_that_is_a_link_and_storage_that_is_named_are_fine(tree: Path):
    (tree.parent / "data").symlink_to("root")
    (tree / "more").symlink_to("../elsewhere/deep")
    (tree / "all").symlink_to("../elsewhere")
    root = tree.parent / "data"
    named = dict(walk(root, Bounds(root, [tree.parent / "elsewhere" / "deep"])))
    assert named == {"a.png": None, "b/scan.png": None, "more/er.png": None, "all": OUTSIDE}


def test_a_folder_that_may_not_be_listed_is_told(tree: Path, monkeypatch: pytest.MonkeyPatch):
    def scandir(path: str):
        if path.endswith("/b/"):
            raise PermissionError(13, "Permission denied", path)
        return os_scandir(path)

    os_scandir = os.scandir
    monkeypatch.setattr(os, "scandir", scandir)
    assert ends(tree) == {"a.png": None, "b/": f"{UNLISTED}: Permission denied"}


def test_find_scans_reads_nothing_outside_and_says_so(tree: Path):
    (tree / "secret.png").symlink_to("../elsewhere/secret.png")
    found = list(find_scans(tree))
    assert [one.paths[0].name for one in found if isinstance(one, FoundScan)] == ["a.png", "scan.png"]
    assert [(one.path.name, one.reason) for one in found if isinstance(one, SkippedFile)] == [("secret.png", OUTSIDE)]
    with_storage = list(find_scans(tree, linked=[tree.parent / "elsewhere"]))
    assert len([one for one in with_storage if isinstance(one, FoundScan)]) == 3


@pytest.mark.parametrize("half", ["hdr", "img"])
def test_half_of_a_pair_may_not_lie_outside(tree: Path, half: str):
    import nibabel

    nibabel.save(nibabel.Nifti1Pair(np.zeros((3, 4, 5), np.int16), np.eye(4)), tree / "pair.hdr")
    (tree / f"pair.{half}").rename(tree.parent / "elsewhere" / f"pair.{half}")
    (tree / f"pair.{half}").symlink_to(f"../elsewhere/pair.{half}")
    (tree / "a.png").unlink()
    (tree / "b" / "scan.png").unlink()
    found = list(find_scans(tree))
    assert len(found) == 2
    assert all(isinstance(one, SkippedFile) and "leads outside" in one.reason for one in found)


@pytest.mark.filterwarnings("ignore:Invalid value for VR")
def test_a_directory_file_opens_no_path_that_it_names(tree: Path):
    """DICOMDIR: its records may name any file (PS3.3 F.3.2.2); the folder itself is walked instead."""
    from pydicom import dcmread
    from pydicom.dataset import Dataset

    ids = {"patient_id": "P", "study_uid": "1.2", "series_uid": "1.2.3", "instance_uid": "1.2.3.4"}
    write_dicom(tree.parent / "elsewhere" / "outside.dcm", np.zeros((4, 4), np.uint16), **ids)
    write_dicom(tree / "DICOMDIR", np.zeros((4, 4), np.uint16), **ids)
    data, record = dcmread(tree / "DICOMDIR"), Dataset()
    record.DirectoryRecordType, record.ReferencedFileID = "IMAGE", ["..", "elsewhere", "outside.dcm"]
    data.SOPClassUID = data.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.1.3.10"
    data.DirectoryRecordSequence = [record]
    data.save_as(tree / "DICOMDIR")
    found = list(find_scans(tree))
    assert all(path.is_relative_to(tree) for one in found if isinstance(one, FoundScan) for path in one.paths)
    assert [one.reason for one in found if isinstance(one, SkippedFile)] == [
        "A DICOMDIR, which lists files and holds none"]


def test_a_volume_outside_is_not_read_through_a_link(tree: Path):
    write_nifti(tree.parent / "elsewhere" / "v.nii.gz", np.zeros((3, 4, 4), np.int16), np.eye(4))
    (tree / "v.nii.gz").symlink_to(tree.parent / "elsewhere" / "v.nii.gz")
    assert ends(tree)["v.nii.gz"] == OUTSIDE
