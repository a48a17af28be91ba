"""Labels joined by MRN, accession number or UID before pseudonyms are made, and joins that spreadsheets have spoilt."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest
import yaml
from data_folders import skips, told_by

from medssl.data.build import build
from medssl.data.card import Card
from medssl.data.manifest import Manifest
from medssl.errors import ConfigError, ManifestError
from medssl.io.write import write_dicom
from medssl.rng import stream

MRNS = ["00123", "00456", "00789", "AB 12"]
COLUMNS = {"patient": "PatientID", "accession": "Accession", "study": "StudyUID", "series": "SeriesUID"}


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """Four patients with an X-ray each, numbered by MRN, accession number, study and series."""
    folder = tmp_path / "pacs"
    for number, mrn in enumerate(MRNS):
        write_dicom(folder / f"{number}.dcm", stream("join", number).integers(0, 99, (4, 4)).astype("u2"),
                    patient_id=mrn, study_uid=f"1.2.77.{number}", series_uid=f"1.2.77.{number}.1",
                    instance_uid=f"1.2.77.{number}.1.1", header={"AccessionNumber": f"ACC{number}"})
    return folder


def ids(column: str) -> list[str]:
    numbers = range(len(MRNS))
    return {"patient": MRNS, "accession": [f"ACC{n}" for n in numbers], "study": [f"1.2.77.{n}" for n in numbers],
            "series": [f"1.2.77.{n}.1" for n in numbers]}[column]


def joined(folder: Path, rows: list[str], by: str = "patient", **join: object) -> Manifest:
    """The manifest with label `finding`, from a table of `id,finding` rows."""
    (folder / "labels.csv").write_text("\n".join([f"{COLUMNS[by]},finding", *rows]) + "\n")
    card = {"name": "pacs", "about": "x", "layout": "scan", "patient": "{patient}", "split": {"shares": {"train": 1}},
            "join": {"path": "labels.csv", "match": {by: COLUMNS[by]}, **join}, "labels": {"columns": ["finding"]}}
    return build(Card.from_yaml(yaml.safe_dump(card)), folder, bytes(range(32)))


def found(manifest: Manifest) -> list[float | None]:
    """The label of each patient, in the order of MRNS."""
    by_file = {manifest.paths(case)["image"].stem: label
               for case, label in manifest.cases.select("case_id", "label.finding").rows()}
    return [by_file[str(number)] for number in range(len(MRNS))]


@pytest.mark.parametrize("by", COLUMNS)
def test_a_table_finds_its_cases_by_each_of_the_hospitals_ids_and_none_of_them_is_kept(archive, tmp_path, by) -> None:
    manifest = joined(archive, [f"{one},{number}" for number, one in enumerate(ids(by))], by)
    assert found(manifest) == [0, 1, 2, 3]
    manifest.save(tmp_path / "out" / "m.parquet")
    assert not set(MRNS) & {value for row in manifest.cases.rows() for value in row}
    assert not told_by(tmp_path / "out", "ACC")
    assert not told_by(tmp_path / "out", "1.2.77.")


def test_cases_without_a_row_rows_without_a_case_and_rows_without_an_id_are_counted(archive) -> None:
    manifest = joined(archive, ["00123,1", "00456,0", "00789,0", "99999,1", ",1", ",1"])
    assert found(manifest) == [1, 0, 0, None]
    told = skips(manifest)
    assert told["columns of a case that has no row in the joined table"] == 1
    assert told["row of the joined table without a case"] == 1
    assert told["row of the joined table without an id"] == 2
    assert not any("99999" in str(value) for row in manifest.skipped.rows() for value in row)


@pytest.mark.parametrize(
    ("mangled", "cause", "ignore"),
    [
        (["123", "456", "789", "AB 12"], "leading zeros", ["zeros"]),
        (["00123.0", "00456.0", "00789.0", "AB 12.0"], "a trailing .0", ["decimals"]),
        (["123.0", "456.0", "789.0", "AB12"], "spaces and a trailing .0 and leading zeros",
         ["spaces", "decimals", "zeros"]),
        (["0 0123", "00 456", "0078 9", "ab12"], "spaces and capitals", ["spaces", "case"]),
    ],
)
def test_what_a_spreadsheet_did_to_ids_is_named_and_the_remedy_repairs_it(archive, mangled, cause, ignore) -> None:
    rows = [f"{one},{number}" for number, one in enumerate(mangled)]
    try:
        told = joined(archive, rows).skipped.select("reason", "remedy").rows()
    except ManifestError as error:
        told = [(error.what, error.remedy)]
    (mine,) = [(reason, remedy) for reason, remedy in told if cause in reason]
    assert f"`ignore: [{', '.join(ignore)}]`" in mine[1]
    assert not any(one in f"{mine}" for one in (*MRNS, *mangled))
    assert found(joined(archive, rows, ignore=ignore)) == [0, 1, 2, 3]


def test_a_join_without_any_match_is_refused_and_says_what_lost_digits_look_like(archive) -> None:
    with pytest.raises(ManifestError, match="None of the 2 rows of labels.csv names a case by PatientID") as error:
        joined(archive, ["x1,0", "x2,1"])
    assert "x1" not in str(error.value)
    with pytest.raises(ManifestError, match="2 ids stand there as a spreadsheet shows long numbers"):
        joined(archive, ["1.23E+11,0", "1E+12,1"])


def test_few_matches_say_so(archive) -> None:
    manifest = joined(archive, ["00123,1", *(f"x{number},0" for number in range(9))])
    assert skips(manifest)["row of the joined table without a case: only 1 of 10 rows have one"] == 9
    manifest = joined(archive, ["00123,1", "00456,1", *(f"x{number},0" for number in range(9))])  # a table of all
    assert skips(manifest)["row of the joined table without a case"] == 9


def test_ids_that_would_become_one_are_refused(archive) -> None:
    with pytest.raises(ManifestError, match="names 1 case.s. more than once"):
        joined(archive, ["123,1", "0123,0"], ignore=["zeros"])
    write_dicom(archive / "4.dcm", stream("join", 4).integers(0, 99, (4, 4)).astype("u2"), patient_id="123",
                study_uid="1.2.77.4", series_uid="1.2.77.4.1", instance_uid="1.2.77.4.1.1")
    with pytest.raises(ManifestError, match="1 id.s. of the cases become another's when leading zeros do not count"):
        joined(archive, ["123,1"], ignore=["zeros"])


def test_a_row_of_a_patient_reaches_all_of_their_cases(archive) -> None:
    write_dicom(archive / "4.dcm", stream("join", 4).integers(0, 99, (4, 4)).astype("u2"), patient_id="00123",
                study_uid="1.2.77.4", series_uid="1.2.77.4.1", instance_uid="1.2.77.4.1.1")
    manifest = joined(archive, ["00123,1", "00456,0"])
    assert manifest.cases.filter(pl.col("label.finding") == 1).height == 2


@pytest.mark.parametrize("column", ["patient", "accession", "study", "series", "path", "description"])
def test_no_column_that_names_people_can_be_an_attribute_or_a_label(column) -> None:
    card = {"name": "pacs", "about": "x", "layout": "scan", "patient": "{owner}", "split": {"shares": {"train": 1}}}
    for entry in ({"attributes": {"who": f"{{{column}}}"}}, {"labels": {"columns": [column]}},
                  {"labels": {"derived": {"who": f"{{{column}}}"}}}):
        with pytest.raises(ConfigError, match=f"reads '{column}', which names the patient"):
            Card.from_yaml(yaml.safe_dump(card | entry))
