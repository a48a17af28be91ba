"""A walk over a folder: every file ends somewhere, nothing raises, and nobody is named."""

from __future__ import annotations

import gzip
import os
import pickle
import warnings
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydicom import dcmread
from pydicom.encaps import encapsulate

from medssl import find_scans, open_scan
from medssl.errors import MedsslError, UnreadableScan
from medssl.io import FoundScan, SkippedFile
from medssl.io.phi import header_of
from medssl.io.write import write_avi, write_dicom, write_jpeg, write_nifti, write_png
from medssl.rng import stream
from medssl.types import Scan

pytestmark = pytest.mark.filterwarnings("ignore:Invalid value for VR")  # on writing bad files

SECRET = "Xqzwv"
"""Stands in every identifying attribute; must stand nowhere in what medssl keeps."""

PHI = {
    **dict.fromkeys(("PatientName", "OtherPatientIDs", "PatientBirthName", "PatientMotherBirthName"), SECRET),
    **dict.fromkeys(("InstitutionName", "InstitutionAddress", "ReferringPhysicianName", "OperatorsName"), SECRET),
    **dict.fromkeys(("StudyDescription", "SeriesDescription", "PatientComments", "ImageComments"), SECRET),
    **dict.fromkeys(("AccessionNumber", "StudyID", "DeviceSerialNumber", "StationName", "ProtocolName"), SECRET),
    "BodyPartExamined": f"{SECRET}^Anna",
    "PatientSex": SECRET,
    "PatientBirthDate": "19310517",
    "StudyDate": "20240611",
    "PatientAge": "093Y",
    "ViewPosition": "PA",
    "Manufacturer": "Maker",
    "KVP": "120",
}


def write_phi(path: Path, image: np.ndarray, **options) -> None:
    write_dicom(path, image, patient_id=SECRET, study_uid=SECRET, series_uid="1.2.3", instance_uid="1.2.3.4",
                header=PHI, **options)  # fmt: skip


def test_only_whitelisted_fields_enter(tmp_path):
    write_phi(tmp_path / "a.dcm", np.zeros((8, 8), np.uint16))
    scan, (found,) = open_scan(tmp_path / "a.dcm"), find_scans(tmp_path)
    assert (found.patient, found.study) == (SECRET, SECRET)
    assert dict(scan.header) == dict(found.header) == {"age": 90, "view": "PA", "manufacturer": "Maker", "kvp": 120.0}
    kept = pickle.dumps((scan, dict(found.header))).decode("latin1") + repr(scan) + repr(found)
    for secret in (SECRET, SECRET.upper(), "1931-05", "19310517", "20240611", "093Y"):
        assert secret not in kept


@pytest.mark.parametrize("damage", ["cut", "rows", "pixels", "report"])
def test_no_reason_and_no_warning_names_a_patient(tmp_path, noise, damage, caplog):
    path = tmp_path / "a.dcm"
    write_phi(path, noise(8, 8))
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-60])
    else:
        data = dcmread(path)
        if damage == "rows":
            data.Rows = None
        elif damage == "pixels":
            del data.PixelData
        else:
            data.Modality = "SR"
        data.save_as(path)
    caplog.clear()
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        with pytest.raises(MedsslError) as caught:
            open_scan(path)
        (found,) = find_scans(tmp_path)
    assert SECRET not in f"{caught.value} {found!r} {caplog.text} {[str(one.message) for one in warned]}"
    assert caught.value.__cause__ is None
    assert isinstance(found, FoundScan if damage == "cut" else SkippedFile)


@pytest.mark.parametrize(
    ("age", "birth", "study", "expected"),
    [
        ("045Y", "", "", 45),
        ("018M", "", "", 1),
        ("006W", "", "", 0),
        ("091Y", "", "", 90),
        ("", "19800612", "20240611", 43),
        ("", "19800611", "20240611", 44),
        ("", "00000000", "20120000", None),
        ("old", "", "", None),
    ],
)
def test_ages_are_years(tmp_path, noise, age, birth, study, expected):
    header = {"PatientAge": age, "PatientBirthDate": birth, "StudyDate": study}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        write_dicom(tmp_path / "a", noise(4, 4), patient_id="P", study_uid="1", series_uid="2", instance_uid="3",
                    header=header)  # fmt: skip
        data = dcmread(tmp_path / "a")
        assert header_of(data).get("age") == expected


def test_every_file_ends_in_one_place(tmp_path, noise, write_slices):
    write_slices(tmp_path / "b_ct", noise(3, 4, 4), np.array([[0.0, 0.0, z] for z in (4, 0, 2)]))
    write_slices(tmp_path / "b_ct" / "more", noise(1, 4, 4), np.array([[0.0, 0.0, 6.0]]))
    write_png(tmp_path / "a.png", noise(4, 4))
    write_nifti(tmp_path / "c.nii.gz", noise(3, 4, 4), np.eye(4))
    write_avi(tmp_path / "d.avi", noise(3, 16, 16, bits=8, dtype=np.uint8), 30)
    (tmp_path / "notes.txt").write_text("no scan")
    (tmp_path / "DICOMDIR").write_bytes(b"\0" * 128 + b"DICM" + b"\2\0\1\0broken")
    os.symlink(tmp_path / "gone", tmp_path / "link.dcm")
    ends = list(find_scans(tmp_path))
    files = [path for one in ends for path in (one.paths if isinstance(one, FoundScan) else (one.path,))]
    assert len(files) == len(set(files)) == 10
    found = {one.kind: one for one in ends if isinstance(one, FoundScan)}
    assert [path.name for path in found["volume"].paths] == ["001.dcm", "002.dcm", "000.dcm", "000.dcm"]
    skipped = {one.path.name: one.reason for one in ends if isinstance(one, SkippedFile)}
    assert set(skipped) == {"notes.txt", "DICOMDIR", "link.dcm"}
    assert all(str(tmp_path) not in reason for reason in skipped.values())
    assert open_scan(found["volume"]).array.shape == (1, 4, 4, 4)


def test_dicom_within_gzip_is_named(tmp_path, noise):
    write_dicom(tmp_path / "a", noise(4, 4), patient_id="P", study_uid="1.2", series_uid="1.2.3", instance_uid="1.2.4")
    (tmp_path / "a").write_bytes(gzip.compress((tmp_path / "a").read_bytes()))
    with pytest.raises(UnreadableScan, match="DICOM within gzip.*gunzip"):
        open_scan(tmp_path / "a")


def test_a_folder_without_scans_says_why(tmp_path):
    (tmp_path / "a.txt").write_text("no scan")
    with pytest.raises(UnreadableScan, match="no format that medssl reads"):
        open_scan(tmp_path)
    with pytest.raises(UnreadableScan, match="no folder"):
        next(find_scans(tmp_path / "absent"))


def write_jpeg_dicom(path: Path, image: np.ndarray) -> None:
    """Baseline JPEG in DICOM, which medssl reads and does not write."""
    write_dicom(path, image, patient_id="P", study_uid="1.2", series_uid="1.2.3", instance_uid="1.2.3.4")
    data, jpeg = dcmread(path), BytesIO()
    Image.fromarray(image).save(jpeg, format="JPEG", quality=95)
    data.PixelData = encapsulate([jpeg.getvalue()])
    data["PixelData"].is_undefined_length = True
    data.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.4.50"
    data.save_as(path)


def test_damaged_files_end_in_a_scan_or_an_error_of_ours(tmp_path, noise, caplog, capfd):
    image, ids = noise(40, 40, bits=8, dtype=np.uint8), {"patient_id": "P", "study_uid": "1.2", "series_uid": "1.2.3"}
    for syntax in ("explicit", "rle", "jpeg2000", "jpegls"):
        write_dicom(tmp_path / syntax, image, **ids, instance_uid="1.2.3.4", transfer_syntax=syntax)
    write_jpeg_dicom(tmp_path / "jpeg", image)
    write_nifti(tmp_path / "a.nii.gz", image[None], np.eye(4))
    write_nifti(tmp_path / "a.nii", image[None], np.eye(4))
    write_png(tmp_path / "a.png", image)
    write_jpeg(tmp_path / "a.jpg", image)
    write_avi(tmp_path / "a.avi", image[None], 30)
    rng, ends = stream("test", "damage"), {"read": 0, "refused": 0}
    for path in sorted(tmp_path.iterdir()):
        whole = path.read_bytes()
        assert open_scan(path).array.size
        for _ in range(30):
            damaged = np.frombuffer(whole, np.uint8).copy()
            damaged[rng.integers(0, len(whole), 5)] = rng.integers(0, 256, 5)
            path.write_bytes(damaged[: rng.integers(len(whole) // 2, 2 * len(whole))].tobytes())
            try:
                ends["read"] += isinstance(open_scan(path), Scan)
            except MedsslError:
                ends["refused"] += 1
    assert sum(ends.values()) == 300
    assert min(ends.values()) > 50
    assert not caplog.records
    assert not capfd.readouterr().err


LEFT_OUT = ("A duplicate", "A localizer", "A picture of a CT screen", "Slices ")
"""Reasons for which a walk leaves out files that are read, one by one, when they are named: see `find_scans`."""


@pytest.mark.parametrize("corpus", ["dicom_corpus/pydicom", "dicom_corpus/dcm_qa_ct", "nifti_corpus"])
def test_real_and_broken_files_end_in_a_scan_or_a_reason(corpus, caplog, capfd):
    data = os.environ.get("MEDSSL_DATA")
    if data is None:
        pytest.skip("MEDSSL_DATA names no folder of real scans")
    root = Path(data, corpus)
    ends = list(find_scans(root))
    files = [path for one in ends for path in (one.paths if isinstance(one, FoundScan) else (one.path,))]
    assert sorted(files) == sorted(path for path in root.rglob("*") if path.is_file())
    assert all(one.remedy for one in ends if isinstance(one, SkippedFile))
    read, refused = 0, {}
    for one in ends:
        for source in (one, *one.paths) if isinstance(one, FoundScan) else (one.path,):
            try:
                scan = open_scan(source)
            except MedsslError as error:
                refused[source] = error.what
                continue
            read += 1
            assert isinstance(scan, Scan)
            assert scan.array.flags.c_contiguous
            assert scan.array.ndim == (3 if scan.kind == "image" else 4)
            assert scan.array.size
            assert scan.array.dtype.isnative
        if isinstance(one, SkippedFile) and not one.reason.startswith(LEFT_OUT):
            assert refused[one.path] == one.reason
    assert read >= {"dicom_corpus/pydicom": 80, "dicom_corpus/dcm_qa_ct": 35, "nifti_corpus": 7}[corpus]
    assert not caplog.records
    assert not capfd.readouterr().err


REAL = "CT_small MR_small MR_small_RLE MR_small_expb MR_small_implicit MR_small_jp2klossless MR_small_jpeg_ls_lossless"
"""Real files of seven transfer syntaxes that both programs read."""


@pytest.mark.parametrize("name", [*REAL.split(), "693_J2KI", "J2K_pixelrep_mismatch", "SC_rgb_jpeg_gdcm"])
def test_real_files_agree_with_simpleitk(name):
    data = os.environ.get("MEDSSL_DATA")
    if data is None:
        pytest.skip("MEDSSL_DATA names no folder of real scans")
    sitk = pytest.importorskip("SimpleITK")
    path = Path(data, "dicom_corpus/pydicom/test_files", f"{name}.dcm")
    ours, theirs = open_scan(path).array, sitk.GetArrayFromImage(sitk.ReadImage(str(path)))
    ours = np.moveaxis(ours, 0, -1) if len(ours) == 3 else ours
    np.testing.assert_array_equal(ours, theirs.reshape(ours.shape))
