"""The whitelist: terms pass, and what a site types into an open field does not where it may name somebody."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from pydicom.dataset import Dataset

from medssl.io.phi import FIELDS, MODALITIES, code, header_of, known_modality, resembles

NAMES = {"PatientName": "Mustermann^Erika^^Dr.", "PatientID": "MRN-4711", "AccessionNumber": "A77.123",
         "OtherPatientIDs": ["ZX81", "12 34"], "ReferringPhysicianName": "Li^Wei", "OperatorsName": "GREEN"}


def header(**values: object) -> dict[str, object]:
    data = Dataset()
    for keyword, value in (NAMES | values).items():
        setattr(data, keyword, value)
    return header_of(data)


@pytest.mark.parametrize(("text", "what"), [
    ("Mustermann^Erika", "a person's name"), ("e.muster@clinic.org", "an e-mail address"),
    ("/data/muster/1.dcm", "a path"), (r"C:\scans", "a path"), ("images/p7.png", "a path"), ("~erika", "a path"),
    ("2024-05-31", "a date"), ("31.5.2024", "a date"), ("5/31/24", "a date"), ("31-MAY-2024", "a date"),
    ("May 31, 2024", "a date"), ("done 2024.05.31 at noon", "a date"), ("1.2.840.113619.2.1", "a UID"),
    ("12345", "a number of five digits or more"), ("MRN0047110", "a number of five digits or more"),
])  # fmt: skip
def test_what_may_name_a_person_is_recognised(text: str, what: str):
    assert resembles(text) == what
    assert resembles(f"x {text}" if what not in ("a path",) else text) == what


@pytest.mark.parametrize("text", [
    "SIEMENS Healthineers", "GE MEDICAL SYSTEMS", "Philips", "Discovery MR750w", "SOMATOM Definition AS+", "DRX-1",
    "Definium 8000", "Aquilion ONE", "Frontal/Lateral", "AP", "T2 FLAIR", "N/A", "CT_SOM5 SPI", "Mayo Clinic 12",
    "Marconi 16", "1.5T", "III/IV", "3.0 Tesla", "DR 9500", "C-ARM", "syngo.via VB60",
])  # fmt: skip
def test_plain_terms_are_not(text: str):
    assert resembles(text) is None


@pytest.mark.parametrize("keyword", ["Manufacturer", "ManufacturerModelName", "ViewPosition", "BodyPartExamined",
                                     "ImageType"])
@pytest.mark.parametrize("value", ["ERIKA", "MUSTERMANN ERIKA", "MRN 4711", "MRN4711", "A77 123", "ZX81", "1234", "WEI",
                                   "GREEN", "19800131", "DR MUSTERMANN"])
def test_an_open_field_that_repeats_a_name_or_id_of_its_file_is_dropped(keyword: str, value: str):
    assert header(**{keyword: value}) == {}
    assert list(header(**{keyword: "CHEST"}).values()) == ["CHEST"]


def test_closed_fields_hold_the_standard_s_terms_and_no_others():
    good = {"PatientSex": "F", "Laterality": "L", "PatientPosition": "HFS", "BurnedInAnnotation": "NO",
            "PresentationIntentType": "FOR PROCESSING", "ScanningSequence": ["GR", "IR"], "SequenceVariant": "SK",
            "MRAcquisitionType": "3D"}
    assert list(header(**good).values()) == ["F", "L", "HFS", "NO", "FOR PROCESSING", "GR\\IR", "SK", "3D"]
    assert header(**dict.fromkeys(good, "SOMEBODY")) == {}


@pytest.mark.parametrize(("value", "kept"), [("120", 120.0), ("-5.5", -5.5), ("8675309", None), ("100000", None)])
def test_numbers_as_long_as_ids_are_no_measurements(value: str, kept: float | None):
    assert header(KVP=value).get("kvp") == kept


def test_every_number_is_bounded_and_every_text_is_cleaned():
    hostile = "Q" * 65
    for keyword, (name, clean) in FIELDS.items():
        try:
            assert clean(hostile) is None, keyword
        except ValueError:
            assert name not in header()


def test_modalities():
    assert known_modality("mr ") == "MR"
    assert [known_modality(value) for value in ("MUSTERMANN", "", None, ["CT", "MR"])] == ["OT"] * 4
    assert {"CR", "DX", "CT", "MR", "US", "PT", "RTSTRUCT", "SEG", "PR", "KO", "OT"} <= MODALITIES


def test_codes_are_codes():
    assert code(" chest ") == "CHEST"
    assert [code(value) for value in ("A^B", "12345", "31MAY2024", "Ä", "X" * 17)] == [None] * 5


def test_the_page_on_privacy_lists_the_whitelist():
    page = Path(__file__).parents[2] / "docs/privacy.md"
    listed = re.findall(r"^\| ([A-Z]\w+) \| (\w+) \| .+ \|$", page.read_text(), flags=re.M)
    assert dict(listed) == {keyword: name for keyword, (name, _) in FIELDS.items()}
    assert len(listed) == len(FIELDS)
