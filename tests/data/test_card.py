"""Cards: strict, complete on their own, and closed to what names a person."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from medssl.config import validate
from medssl.data.card import Card
from medssl.data.template import template_regex
from medssl.errors import ConfigError

CARDS = sorted((Path(__file__).parents[2] / "data_manifests").glob("*.yaml"))

PLAIN = {
    "name": "plain", "about": "A test.", "layout": "table", "kind": "image", "modality": "DX",
    "tables": [{"path": "rows.csv"}], "files": {"image": "{file}"}, "patient": "{person}",
    "split": {"shares": {"train": 0.8, "test": 0.2}},
}


def read(**changes: object) -> Card:
    return Card.from_yaml(yaml.safe_dump({**PLAIN, **changes}))


@pytest.mark.parametrize("path", CARDS, ids=lambda path: path.stem)
def test_every_card_of_the_house_is_valid_named_after_its_file_and_survives_a_round_trip(path: Path) -> None:
    card = Card.read(path)
    assert card.name == path.stem
    assert Card.from_yaml(card.to_yaml()) == card
    opening = path.read_text().split("\nname:")[0]
    assert all(word in opening for word in ("# source ", "# licence ", "# layout ", "# Splits. "))


def test_nine_cards_are_there() -> None:
    assert {path.stem for path in CARDS} >= {
        "chexpert", "brats2021", "brats2023_gli", "echonet_dynamic", "dicom_folder", "nifti_folder", "nih_cxr",
        "glioma_lgg", "hippocampus_msd",
    }


def test_brats_regions_keep_their_order_and_the_number_of_their_year(card) -> None:
    assert list(card("brats2021").regions.items()) == [("WT", [1, 2, 4]), ("TC", [1, 4]), ("ET", [4])]
    assert card("brats2023_gli").regions == {"WT": [1, 2, 3], "TC": [1, 3], "ET": [3]}
    assert card("brats2021").channel_names == card("brats2023_gli").channel_names == ["t1", "t1ce", "t2", "flair"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tabels": []}, "did you mean 'tables'"),
        ({"kind": None}, "layout table needs `kind`"),
        ({"layout": "scan"}, "layout scan has no use for `tables`"),
        ({"files": {"image": "file"}}, "write '{file}'"),
        ({"files": {"mask": "{file}"}}, "a channel cannot be called mask"),
        ({"patient": []}, "at least 1 item"),
        ({"name": "My Set"}, "pattern"),
        ({"split": {"shares": {"train": 0.8}}}, "sum to 1"),
        ({"split": {"shares": {"train": 1.5, "test": -0.5}}}, "positive"),
        ({"split": {}}, "either `source` or `shares`"),
        ({"filters": [{"source": "{view}", "reason": "lateral"}]}, "either `keep` or `drop`"),
        ({"filters": [{"source": "{view}", "reason": "lateral", "keep": "("}]}, "no regular expression"),
        ({"regions": {"WT": [1]}}, "`regions` without a `mask`"),
        ({"mask": "{file}_seg", "regions": {"WT": [0]}}, "greater than 0"),
        ({"attributes": {"sex": {"source": "{sex}", "values": {True: 1}}}}, "put the value in quotes"),
        ({"attributes": {"age": "{age}"}}, "unit: years"),
        ({"labels": {"columns": ["Age"]}}, "unit: years"),
        ({"labels": {"columns": ["Edema"], "derived": {"Edema": "{x}"}}}, "both a column and derived"),
        ({"attributes": {"who": "{person}"}}, "names the patient"),
        ({"labels": {"columns": ["person"]}}, "names the patient"),
        ({"filters": [{"source": "{person}", "drop": "p1", "reason": "withdrawn"}]}, "names the patient"),
    ],
)
def test_a_mistake_is_named_with_its_remedy(changes: dict, message: str) -> None:
    with pytest.raises(ConfigError, match="mistake") as error:
        read(**changes)
    assert message in str(error.value)


def test_files_of_a_pattern_card_must_share_their_fields() -> None:
    files = {"t1": "{case}/t1.nii", "t2": "{case}/{visit}/t2.nii"}
    with pytest.raises(ConfigError, match="same fields"):
        read(layout="pattern", tables=[], files=files)


def test_a_template_matches_only_paths_it_could_have_made() -> None:
    regex = template_regex("{case}/{case}_t1.nii.gz")
    assert regex.fullmatch("a/a_t1.nii.gz")
    assert not regex.fullmatch("a/b_t1.nii.gz")
    assert not regex.fullmatch("x/a/a_t1.nii.gz")
    assert not regex.fullmatch("a/a_t1xnii.gz")


def test_a_card_named_as_one_of_its_keys_keeps_that_key_in_messages():
    with pytest.raises(ConfigError, match=r"labels\.colums: unknown key; did you mean 'columns'"):
        validate(Card, {"name": "labels", "labels": {"colums": ["A"]}}, "card.yaml")
