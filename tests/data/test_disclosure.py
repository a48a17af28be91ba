"""Labels and attributes tell nothing that names a person: dates, ids, paths, names."""

from __future__ import annotations

from pathlib import Path

import pytest
from data_folders import write_picture

from medssl.data.build import build
from medssl.data.card import Card
from medssl.data.manifest import Manifest
from medssl.errors import ManifestError


def manifest(folder: Path, key: bytes, cells: list[str], source: str | dict, ids: str = "MRN-47{}") -> Manifest:
    """Of a table with a column Told, whose cells are these and which becomes the attribute `told`."""
    for number in range(len(cells)):
        write_picture(folder / f"{number}.png", number)
    rows = [f"{number}.png,{ids.format(number // 2)},{cell}" for number, cell in enumerate(cells)]
    (folder / "t.csv").write_text("\n".join(["Path,MRN,Told", *rows]))
    card = {"name": "x", "about": "test", "layout": "table", "kind": "image", "modality": "DX",
            "tables": [{"path": "t.csv"}], "files": {"image": "{Path}"}, "patient": "{MRN}",
            "split": {"shares": {"train": 1.0}}, "attributes": {"told": source}}
    return build(Card.model_validate(card), folder, key)


@pytest.mark.parametrize(("cell", "what"), [
    ("2024-05-31", "a date"), ("31-MAY-2024", "a date"), ("Muster^Erika", "a person's name"), ("0.png", "no"),
    ("images/0.png", "a path"), ("1.2.840.113619.2.1", "a UID"), ("90210", "a number of five digits"),
    ("seen MRN-470", "the patient's own id"),
])  # fmt: skip
def test_one_telling_text_is_enough(tmp_path: Path, key: bytes, cell: str, what: str):
    cells = [cell, "ward", "ward", "home"]
    if what == "no":
        assert set(manifest(tmp_path, key, cells, "{Told}").cases["attr.told"]) == {cell, "ward", "home"}
        return
    with pytest.raises(ManifestError, match=f"attr.told: 1 row.* look like {what}") as caught:
        manifest(tmp_path, key, cells, "{Told}")
    assert cell not in str(caught.value)


def test_what_the_card_calls_by_another_name_may_stand(tmp_path: Path, key: bytes):
    source = {"source": "{Told}", "values": {"90210": "town", "2024-05-31": "late"}}
    cases = manifest(tmp_path, key, ["90210", "2024-05-31"], source).cases
    assert set(cases["attr.told"]) == {"town", "late"}


@pytest.mark.parametrize(("cells", "ids", "what"), [
    (["20240531", "20231201", "7"], "{}", "a date"), (["4700", "4700", "4701"], "470{}", "the patient's own id"),
])  # fmt: skip
def test_numbers_that_are_mostly_dates_or_ids_are_refused(
    tmp_path: Path, key: bytes, cells: list[str], ids: str, what: str
):
    source = {"source": "{Told}", "unit": "number"}
    with pytest.raises(ManifestError, match=f"look like {what}"):
        manifest(tmp_path, key, cells, source, ids)
    assert len(manifest(tmp_path, key, [cells[0], "12", "34"], source, ids)) == 3


def test_dates_as_days_since_the_patient_s_first(tmp_path: Path, key: bytes):
    cells = ["2024-03-01 10:15", "20240228", "2023/12/31", "", "2024-01-01"]
    built = manifest(tmp_path, key, cells, {"source": "{Told}", "unit": "days_since_first"})
    told = built.files.join(built.cases, on="case_id", maintain_order="left")["attr.told"]
    days = dict(zip(built.files["path"].str.tail(5), told, strict=True))
    assert days == {"0.png": 2, "1.png": 0, "2.png": 0, "3.png": None, "4.png": 0}


def test_days_need_dates(tmp_path: Path, key: bytes):
    with pytest.raises(ManifestError, match=r"1 row.* are no dates: '05/31/2024'"):
        manifest(tmp_path, key, ["2024-05-31", "05/31/2024"], {"source": "{Told}", "unit": "days_since_first"})


@pytest.mark.parametrize("name", ["Age", "PatientAge", "Patient Age", "age_at_scan", "AGE"])
def test_an_age_by_any_name_is_given_in_years(tmp_path: Path, key: bytes, name: str):
    card = {"name": "x", "about": "test", "layout": "scan", "patient": "{patient}", "split": {"shares": {"train": 1.0}}}
    for entry in ({"attributes": {"old": f"{{{name}}}"}}, {"labels": {"columns": [name]}},
                  {"labels": {"derived": {"old": {"source": f"{{{name}}}"}}}}):
        with pytest.raises(ValueError, match="is an age"):
            Card.model_validate(card | entry)
    Card.model_validate(card | {"attributes": {"old": {"source": f"{{{name}}}", "unit": "years"}}})
    Card.model_validate(card | {"attributes": {"stage": "{Stage}", "image": "{Image}", "average": "{average}"}})
