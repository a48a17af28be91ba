"""docs/readers.md says what the readers do today, as far as that can be seen without the scans and dcm2niix."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import compare_dicom
import compare_nifti
import numpy as np
import pytest
from compare_readers import KINDS, PAGE, ends
from compared import Compared, counts
from make_corpus_tables import read_table
from nifti_kinds import write_kinds

from medssl import find_scans, open_scan
from medssl.io.geometry import spacing_of


@pytest.fixture
def kinds(tmp_path) -> dict[str, Path]:
    return write_kinds(tmp_path)


def stands_in_the_page(group: str, compared: list[Compared]) -> None:
    text = PAGE.read_text()
    for line in counts(group, compared).splitlines() + [one.line() for one in compared if one.away]:
        assert line.strip() in text


def test_the_page_counts_the_files_of_the_table_and_leaves_nothing_unsettled():
    assert ends(read_table()) in PAGE.read_text()
    assert "Not settled" not in PAGE.read_text()


def test_nifti_of_every_kind_is_read_as_the_page_says(kinds):
    stands_in_the_page(KINDS, [one for kind, path in kinds.items() for one in compare_nifti.compare(kind, path)])


def test_real_nifti_is_read_as_the_page_says():
    if "MEDSSL_DATA" not in os.environ:
        pytest.skip("MEDSSL_DATA names no folder of real scans")
    corpus = Path(os.environ["MEDSSL_DATA"]) / "nifti_corpus"
    stands_in_the_page("nifti_corpus", list(compare_nifti.folder(corpus, "nifti_corpus")))


def test_a_voxel_or_a_place_that_is_wrong_is_seen(kinds, monkeypatch):
    def wrong(path: Path):
        scan = open_scan(path)
        array = scan.array.copy()
        array.flat[0] += 1
        affine = None if scan.affine is None else scan.affine + np.eye(4, k=3) * 0.01
        return replace(scan, array=array, affine=affine)

    monkeypatch.setattr(compare_nifti, "open_scan", wrong)
    compared = [one for kind, path in kinds.items() for one in compare_nifti.compare(kind, path)]
    assert all(one.away or one.missing for one in compared)


def test_a_dicom_voxel_that_is_wrong_is_seen(tmp_path, noise, write_slices):
    write_slices(tmp_path, noise(4, 8, 8), np.array([[0.0, 0.0, 2.0 * k] for k in range(4)]), [2, 0, 3, 1])
    (found,) = find_scans(tmp_path)
    scan = open_scan(found)
    assert compare_dicom.voxels("a", found, scan) == Compared("a", compare_dicom.VOXELS)
    assert compare_dicom.voxels("a", found, replace(scan, array=scan.array[:, ::-1])).away


def test_the_grid_that_holds_the_pixels_where_they_belong_is_told_from_one_that_does_not(tmp_path, write_slices):
    smooth = np.arange(4)[:, None, None] * 300 + np.arange(64)[:, None] ** 2 // 8 + np.arange(64) * 5
    write_slices(tmp_path, smooth.astype(np.uint16), np.array([[0.0, 0.4 * k, 2.0 * k] for k in range(4)]))
    (found,) = find_scans(tmp_path)
    scan = open_scan(found)
    affine = scan.affine.copy()
    affine[1, 3] += 9
    grids = [compare_dicom.Grid(scan.array[0].T, there, spacing_of(there)[::-1]) for there in (scan.affine, affine)]
    assert compare_dicom.place_reason(found, scan, grids[1:], grids[1]).startswith("Ours")
    wrong = replace(scan, affine=affine)
    assert compare_dicom.place_reason(found, wrong, grids[:1], grids[0]).startswith("dcm2niix")
