"""Files that declare or unpack to more than they should: they stop at the stated limit, and fill no memory."""

from __future__ import annotations

import contextlib
import gzip
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.uid import DeflatedExplicitVRLittleEndian

from medssl import find_scans, open_scan
from medssl.errors import UnreadableScan
from medssl.io.write import write_dicom, write_nifti, write_png

IDS = {"patient_id": "P", "study_uid": "1.2", "series_uid": "1.2.3", "instance_uid": "1.2.3.4"}


def write_deflated(path: Path, image: np.ndarray) -> None:
    write_dicom(path, image, **IDS)
    data = dcmread(path)
    data.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    data.save_as(path)


@pytest.fixture
def a_mebibyte(monkeypatch: pytest.MonkeyPatch) -> None:
    """The most that a scan may hold."""
    monkeypatch.setenv("MEDSSL_MAX_SCAN_GIB", str(2**-10))


@pytest.mark.usefixtures("a_mebibyte")
def test_a_deflated_dicom_bomb_stops_at_the_limit(tmp_path):
    write_deflated(tmp_path / "small", np.zeros((500, 500), np.uint16))
    assert open_scan(tmp_path / "small").array.shape == (1, 500, 500)
    (tmp_path / "small").unlink()
    write_deflated(tmp_path / "bomb", np.zeros((40, 40), np.uint16))
    data = dcmread(tmp_path / "bomb")
    data.add_new(0x00420011, "OB", bytes(1 << 23))  # beside the picture, which is small
    data.save_as(tmp_path / "bomb")
    assert (tmp_path / "bomb").stat().st_size < 20_000
    with pytest.raises(UnreadableScan, match="would take .* GiB"):
        open_scan(tmp_path / "bomb")
    (found,) = find_scans(tmp_path)
    assert "would take" in found.reason


@pytest.mark.usefixtures("a_mebibyte")
def test_a_deflated_dicom_that_is_cut_off_is_refused(tmp_path, noise):
    write_deflated(tmp_path / "a", noise(50, 50))
    whole = (tmp_path / "a").read_bytes()
    (tmp_path / "a").write_bytes(whole[:-100])
    with pytest.raises(UnreadableScan, match="cut off or damaged"):
        open_scan(tmp_path / "a")


@pytest.mark.usefixtures("a_mebibyte")
def test_gzip_that_goes_on_behind_its_volume_stops_at_the_limit(tmp_path, noise):
    write_nifti(tmp_path / "a.nii", noise(3, 4, 5), np.eye(4))
    raw = (tmp_path / "a.nii").read_bytes()
    (tmp_path / "a.nii.gz").write_bytes(gzip.compress(raw + bytes(1 << 23)))
    with pytest.raises(UnreadableScan, match="would take"):
        open_scan(tmp_path / "a.nii.gz")


@pytest.mark.parametrize(("rows", "frames", "reason"), [
    (60000, "9", "would take 60.3 GiB"),
    (60000, "1", "would take 6.71 GiB"),
    (30000, "1", "pixel data end after 1600 of"),
    (40, "2000000000", "would take"),
])  # fmt: skip
def test_dicom_that_declares_more_than_it_holds_takes_no_memory(tmp_path, noise, rows, frames, reason):
    write_dicom(tmp_path / "a", noise(40, 40), **IDS, modality="US")
    data = dcmread(tmp_path / "a")
    data.Rows = data.Columns = rows
    data.NumberOfFrames = frames
    data.save_as(tmp_path / "a")
    with pytest.raises(UnreadableScan, match=reason):
        open_scan(tmp_path / "a")


@pytest.mark.parametrize("name", ["png", "dicom"])
def test_a_length_that_no_file_has_takes_no_memory(tmp_path, noise, name):
    path, image = tmp_path / "a", noise(32, 32, bits=8, dtype=np.uint8)
    if name == "png":
        write_png(tmp_path / "a", image)
        raw = bytearray(path.read_bytes())
        raw[33] = 0x7F  # of the length of the first IDAT
    else:
        write_dicom(path, image, **IDS)
        raw = bytearray(path.read_bytes())
        at = raw.index(b"CS\2\0DX")  # Modality: 2 bytes of a short string, which become 2 GiB of a long text
        raw[at : at + 4] = b"UT\0\0" + (0x7F000000).to_bytes(4, "little")
    path.write_bytes(raw)
    open_or_refuse(path)  # loads the decoders
    tracemalloc.start()
    open_or_refuse(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 24


def open_or_refuse(path: Path) -> None:
    with contextlib.suppress(UnreadableScan):
        open_scan(path)
