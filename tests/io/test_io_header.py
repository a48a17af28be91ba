"""medssl.io.header: where the quick walk and pydicom both give an answer, it is the same."""

from __future__ import annotations

import io
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from medssl import MedsslError
from medssl.io import dicom, header
from medssl.io.dicom import Instance, read_instances
from medssl.io.open import _guard, sniff
from medssl.io.write import write_dicom

IDS = {"patient_id": "P1", "study_uid": "1.2", "series_uid": "1.2.3", "instance_uid": "1.2.3.4"}
EXPLICIT, IMPLICIT = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2"
HEADER = {
    "PatientSex": "F", "PatientAge": "045Y", "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"], "KVP": "120",
    "RescaleIntercept": "-1024", "WindowCenter": ["40", "300"], "WindowWidth": ["400", "1500"],
    "DiffusionGradientOrientation": [0.1, 0.2, 0.3], "PixelPaddingValue": 7, "OperatorsName": ["A^B", "C^D"],
}  # fmt: skip


def written(path: Path, syntax: str = EXPLICIT, change: Callable[[Dataset], None] | None = None) -> bytes:
    image = np.arange(20, dtype=np.uint16).reshape(4, 5)
    write_dicom(path, image, **IDS, modality="CT", spacing=(0.5, 0.6), position=(1, 2, 3.5),
                orientation=(1, 0, 0, 0, 1, 0), header=HEADER)
    data = dcmread(path)
    if change:
        change(data)
    data.file_meta.TransferSyntaxUID = syntax
    data.save_as(path, implicit_vr=syntax == IMPLICIT, little_endian=True)
    return path.read_bytes()


def nest(data: Dataset) -> None:
    """Sequences within sequences before the attributes that count, of lengths that are told and that are not."""
    inner, outer = Dataset(), Dataset()
    inner.ReferencedSOPInstanceUID = "1.2.3.4.5"
    outer.PurposeOfReferenceCodeSequence = Sequence([inner, inner])
    outer["PurposeOfReferenceCodeSequence"].is_undefined_length = True
    outer.is_undefined_length_sequence_item = True
    data.ReferencedImageSequence = Sequence([outer, inner])
    data["ReferencedImageSequence"].is_undefined_length = True
    data.RequestAttributesSequence = Sequence([inner])


def latin(data: Dataset) -> None:
    data.SpecificCharacterSet, data.PatientID, data.SeriesDescription = "ISO_IR 100", "Müller", "Schädel"


def utf8(data: Dataset) -> None:
    data.SpecificCharacterSet, data.PatientID = "ISO_IR 192", "Łukasz"


def japanese(data: Dataset) -> None:
    data.SpecificCharacterSet, data.PatientName = ["", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎"


def with_table(data: Dataset) -> None:
    table = Dataset()
    table.LUTDescriptor, table.ModalityLUTType, table.LUTData = [20, 0, 16], "US", np.arange(20, dtype="<u2").tobytes()
    data.ModalityLUTSequence = Sequence([table])


def outcome(path: Path, reader: Callable[[Path, tuple[str, ...]], header.Header]) -> list[Instance] | str:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dicom, "read_header", reader)
        try:
            with _guard(path):
                return read_instances(path)
        except MedsslError as error:
            return str(error)


def by_pydicom(path: Path, keywords: tuple[str, ...]) -> header.Header:
    with open(path, "rb") as file:
        return header.pydicom_header(file, keywords)


def assert_pydicom_agrees(path: Path) -> bool:
    """Whether the quick walk gave an answer at all."""
    with open(path, "rb") as file:
        found = header.plain_header(file, dicom._READ)
    expected = outcome(path, by_pydicom)
    if found and "cannot be read" not in expected:  # a sequence that nobody asked for is damaged
        assert outcome(path, lambda *_: found) == expected
    return found is not None


@pytest.mark.parametrize("syntax", [EXPLICIT, IMPLICIT])
@pytest.mark.parametrize("change", [None, nest, latin, utf8])
def test_plain_files_are_walked(tmp_path, syntax, change):
    written(tmp_path / "a", syntax, change)
    assert assert_pydicom_agrees(tmp_path / "a")
    [found] = read_instances(tmp_path / "a")
    assert (found.position, found.spacing, found.intercept) == ((1.0, 2.0, 3.5), (0.5, 0.6), -1024.0)
    assert found.header["image_type"] == "ORIGINAL\\PRIMARY\\AXIAL"
    assert found.header["window"] == (40.0, 400.0, "LINEAR")
    assert found.patient == {latin: "Müller", utf8: "Łukasz"}.get(change, "P1")
    with open(tmp_path / "a", "rb") as file:
        file.seek(found.offset)
        assert file.read() == np.arange(20, dtype="<u2").tobytes()


@pytest.mark.parametrize("change", [japanese, with_table])
def test_what_is_out_of_the_ordinary_is_left_to_pydicom(tmp_path, change):
    written(tmp_path / "a", EXPLICIT, change)
    assert not assert_pydicom_agrees(tmp_path / "a")
    assert len(read_instances(tmp_path / "a")) == 1


def test_a_header_longer_than_one_read_is_walked_and_an_endless_one_is_not(tmp_path, monkeypatch):
    def long(data: Dataset) -> None:
        data.ImageComments = "x" * 9000
        data.private_block(0x0009, "MEDSSL", create=True).add_new(1, "OB", bytes(100_000))

    written(tmp_path / "a", EXPLICIT, long)
    assert assert_pydicom_agrees(tmp_path / "a")
    monkeypatch.setattr(header, "_MOST_READ", 1 << 15)
    assert not assert_pydicom_agrees(tmp_path / "a")


@pytest.mark.parametrize("cut", [200, 400, -60, -40])
def test_a_file_that_ends_before_its_pixels_is_left_to_pydicom(tmp_path, cut):
    raw = written(tmp_path / "a")
    (tmp_path / "a").write_bytes(raw[:cut])
    assert assert_pydicom_agrees(tmp_path / "a") is (cut == -40)


def test_elements_out_of_order_are_left_to_pydicom(tmp_path):
    raw = written(tmp_path / "a")
    rows = raw.index(b"\x28\0\x10\0US")
    moved = raw[:rows] + raw[rows + 10 : rows + 20] + raw[rows : rows + 10] + raw[rows + 20 :]
    (tmp_path / "a").write_bytes(moved)
    assert not assert_pydicom_agrees(tmp_path / "a")


heads = st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=4)


@pytest.mark.parametrize("syntax", [EXPLICIT, IMPLICIT])
def test_changed_bytes_are_read_as_pydicom_reads_them(tmp_path, syntax):
    raw = written(tmp_path / "a", syntax, nest)
    answers: Counter[bool] = Counter()

    @settings(max_examples=int(os.environ.get("MEDSSL_FUZZ_EXAMPLES", 250)), deadline=None, database=None,
              derandomize="MEDSSL_FUZZ_EXAMPLES" not in os.environ, suppress_health_check=list(HealthCheck))
    @given(heads)
    def one(edits: list[tuple[float, int]]) -> None:
        changed = bytearray(raw)
        for place, value in edits:
            changed[132 + int(place * (len(raw) - 132 - 40))] = value
        (tmp_path / "a").write_bytes(changed)
        answers[assert_pydicom_agrees(tmp_path / "a")] += 1

    one()
    assert min(answers.values()) > 20, answers


def test_every_file_of_the_corpus_is_read_as_pydicom_reads_it():
    root = os.environ.get("MEDSSL_DATA")
    if not root:
        pytest.skip("MEDSSL_DATA is not set: no real scans")
    answers: Counter[bool] = Counter()
    for path in sorted(Path(root, "dicom_corpus").rglob("*")):
        try:
            if path.is_file() and sniff(path) == "dicom":
                answers[assert_pydicom_agrees(path)] += 1
        except MedsslError:
            continue
    assert answers[True] > 100, answers


def test_no_more_is_read_of_a_file_than_its_header(tmp_path):
    raw = written(tmp_path / "a")
    file = io.BytesIO(raw + bytes(1 << 20))
    assert header.plain_header(file, dicom._READ)
    assert file.tell() <= header._FIRST_READ
