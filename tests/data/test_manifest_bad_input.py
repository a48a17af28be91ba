"""Folders, tables and rows that do not fit: each is listed as skipped or refused, with its remedy."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from data_folders import changed, skips, write_picture

from medssl.data.build import build
from medssl.errors import LeakageError, ManifestError


def test_filters_are_counted_under_their_reason(chexpert: Path, card, key) -> None:
    frontal = {"source": "{Frontal/Lateral}", "keep": "Frontal", "reason": "lateral view"}
    own = changed(card("chexpert"), filters=[frontal])
    manifest = build(own, chexpert, key)
    assert set(manifest.cases["attr.view"]) == {"AP"}
    assert skips(manifest)["left out by the card: lateral view"] == 30 - len(manifest)


def test_a_missing_column_is_named_with_its_nearest(chexpert: Path, card, key) -> None:
    for name in ("train.csv", "valid.csv"):
        table = chexpert / name
        table.write_text(table.read_text().replace("Edema", "Oedema", 1))
    with pytest.raises(ManifestError, match="'Edema' \\(nearest: 'Oedema'\\).*columns found.*Sex"):
        build(card("chexpert"), chexpert, key)


def test_missing_images_are_listed_and_none_at_all_is_an_error(chexpert: Path, card, key) -> None:
    (chexpert / "train" / "patient00001" / "study1" / "view1_frontal.jpg").unlink()
    write_picture(chexpert / "train" / "patient09999" / "study1" / "view1_frontal.jpg", 99)
    manifest = build(card("chexpert"), chexpert, key)
    assert skips(manifest) == {"no file for: image": 1, "file that no row or pattern of the card names": 1}
    assert all(manifest.skipped["remedy"])
    for folder in ("train", "valid"):
        (chexpert / folder).rename(chexpert / f"other_{folder}")
    with pytest.raises(ManifestError, match="None of the 30 cases has its images .*the first one is at other_train"):
        build(card("chexpert"), chexpert, key)


def test_a_case_without_one_of_its_channels_is_skipped(brats: Path, card, key) -> None:
    (brats / "BraTS2021_00001" / "BraTS2021_00001_t2.nii.gz").unlink()
    for channel in ("t1", "t1ce", "t2", "flair"):
        (brats / "BraTS2021_00002" / f"BraTS2021_00002_{channel}.nii.gz").unlink()
    manifest = build(card("brats2021"), brats, key)
    assert len(manifest) == 2
    assert skips(manifest) == {"no file for: t2": 1, "mask without an image": 1}


def test_the_wrong_folder_is_answered_with_the_right_one(brats: Path, card, key) -> None:
    with pytest.raises(ManifestError, match=f"give the folder .*{brats.name}"):
        build(card("brats2021"), brats.parent, key)


def test_an_empty_or_absent_folder_and_table(tmp_path: Path, card, key) -> None:
    with pytest.raises(ManifestError, match="No folder"):
        build(card("chexpert"), tmp_path / "nowhere", key)
    for name, expected in (("brats2021", "No file in .* fits"), ("chexpert", "No table .*train.csv"),
                           ("nifti_folder", "There is no scan in .*it is empty")):
        with pytest.raises(ManifestError, match=expected):
            build(card(name), tmp_path, key)
    (tmp_path / "FileList.csv").write_bytes(b"\xff\xfe\x00broken")
    with pytest.raises(ManifestError, match="cannot be read"):
        build(card("echonet_dynamic"), tmp_path, key)


def echonet_rows(folder: Path, change: Callable[[list[str]], list[str]]) -> None:
    table = folder / "FileList.csv"
    head, *rows = table.read_text().splitlines()
    table.write_text("\n".join([head, *change(rows)]) + "\n")


def test_rows_that_repeat_or_contradict_each_other(echonet: Path, card, key) -> None:
    echonet_rows(echonet, lambda rows: [*rows, rows[0], rows[0], rows[1].replace("51.5", "61.5")])
    manifest = build(card("echonet_dynamic"), echonet, key)
    assert skips(manifest) == {"row that repeats another": 2, "rows of an image contradict each other": 2}
    assert len(manifest) == 5
    assert manifest.skipped["case_id"].null_count() == 0


def test_an_unknown_split_and_a_label_that_is_no_number(echonet: Path, card, key) -> None:
    echonet_rows(echonet, lambda rows: [rows[0].replace("TRAIN", "HOLDOUT"), *rows[1:]])
    with pytest.raises(ManifestError, match="unknown split.*'holdout'"):
        build(card("echonet_dynamic"), echonet, key)
    echonet_rows(echonet, lambda rows: [rows[0].replace("HOLDOUT", "TRAIN").replace("50.5", "about 50"), *rows[1:]])
    with pytest.raises(ManifestError, match="label.EF: 1 row.*not numbers: 'about 50'"):
        build(card("echonet_dynamic"), echonet, key)


def test_a_value_that_the_card_does_not_list(chexpert: Path, card, key) -> None:
    table = chexpert / "train.csv"
    table.write_text(table.read_text().replace("Female", "F"))
    with pytest.raises(ManifestError, match="does not list: 'F'.*one of Male, Female"):
        build(card("chexpert"), chexpert, key)


def test_a_patient_in_two_splits_stops_the_build(chexpert: Path, card, key) -> None:
    for name in ("train", "valid"):
        (chexpert / name / "patient00777" / "study1").mkdir(parents=True)
        write_picture(chexpert / name / "patient00777" / "study1" / "view1_frontal.jpg", 7)
        with (chexpert / f"{name}.csv").open("a") as table:
            table.write(f"{name}/patient00777/study1/view1_frontal.jpg,Male,50,Frontal,AP" + "," * 14 + "\n")
    own = changed(card("chexpert"), split={"shares": {"train": 1.0}})
    with pytest.raises(LeakageError, match="1 patient.*p[0-9a-f]{16}") as error:
        build(own, chexpert, key)
    assert "patient00777" not in str(error.value)


def test_rows_without_a_patient_are_skipped_and_all_of_them_are_an_error(echonet: Path, card, key) -> None:
    own = changed(card("echonet_dynamic"), patient=["{ward}"])
    table = echonet / "FileList.csv"
    lines = table.read_text().splitlines()
    wards = ["", "x", "x", "y", "y", "y"]
    table.write_text("\n".join(f"{line},{ward}" for line, ward in zip(lines, ["ward", *wards], strict=True)))
    own = changed(own, split={"shares": {"train": 1.0}})
    manifest = build(own, echonet, key)
    assert (len(manifest), manifest.skipped["count"].sum()) == (5, 1)
    table.write_text("\n".join([lines[0] + ",ward", *(f"{line}," for line in lines[1:])]))
    with pytest.raises(ManifestError, match="No case is left .*6 × no patient id"):
        build(own, echonet, key)


@pytest.mark.parametrize(
    ("text", "years"), [("058Y", 58.0), ("58", 58.0), ("018M", 1.5), ("89", 89.0), ("89.5", 90.0), ("120", 90.0)]
)
def test_ages(echonet: Path, card, key, text: str, years: float) -> None:
    echonet_rows(echonet, lambda rows: [row.replace(",175,", f",{text},") for row in rows])
    own = changed(card("echonet_dynamic"), attributes={"age": {"source": "{NumberOfFrames}", "unit": "years"}})
    assert build(own, echonet, key).cases["attr.age"].unique().to_list() == [years]


def test_progress_is_told(brats: Path, card, key) -> None:
    told: list[tuple[int, int]] = []
    build(card("brats2021"), brats, key, lambda done, total: told.append((done, total)))
    assert told[-1] == (19, 0)
