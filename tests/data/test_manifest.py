"""Folder and card to manifest, and back from disk: every set's layout, identity, and what is saved."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest
from data_folders import changed, skips, told_by, write_volume

from medssl.data.build import build
from medssl.data.card import Card
from medssl.data.manifest import Manifest
from medssl.errors import ManifestError
from medssl.rng import stream

# The real layouts


def test_chexpert_keeps_minus_one_reads_blank_as_negative_and_turns_valid_into_test(chexpert: Path, card, key) -> None:
    manifest = build(card("chexpert"), chexpert, key)
    assert len(manifest) == 30
    assert set(manifest.cases["label.Edema"]) == {-1.0, 0.0, 1.0}
    assert manifest.cases["label.Fracture"].null_count() == 0
    tests = manifest.select(split="test").cases
    assert tests["patient_id"].n_unique() == 3
    where = {path.parts[-4] for case in tests["case_id"] for path in manifest.paths(case).values()}
    assert where == {"valid"}
    assert manifest.cases.group_by("attr.sex", "attr.view").len().height == 2
    assert set(manifest.cases.filter(pl.col("attr.sex") == "male")["label.Male"]) == {1.0}
    assert manifest.cases["attr.age"].max() == 90.0
    assert manifest.cases.filter(pl.col("attr.age") == 90)["patient_id"].n_unique() == 2  # 90 and 92 years


@pytest.mark.parametrize("prefix", ["CheXpert-v1.0/", "", "some/other/root/"])
def test_whatever_stands_before_train_is_cut_off_and_changes_nothing(chexpert: Path, card, key, prefix: str) -> None:
    before = build(card("chexpert"), chexpert, key)
    for name in ("train.csv", "valid.csv"):
        table = chexpert / name
        table.write_text(table.read_text().replace("CheXpert-v1.0-small/", prefix))
    assert build(card("chexpert"), chexpert, key).digest == before.digest


def test_brats_has_its_channels_in_order_and_keeps_a_case_without_mask(brats: Path, card, key) -> None:
    manifest = build(card("brats2021"), brats, key)
    assert len(manifest) == 4
    assert manifest.channels == ["t1", "t1ce", "t2", "flair"]
    masked = manifest.cases.filter("has_mask")["case_id"].to_list()
    assert len(masked) == 3
    paths = manifest.paths(masked[0])
    assert list(paths) == ["t1", "t1ce", "t2", "flair", "mask"]
    assert all(path.is_file() for path in paths.values())
    assert len({path.parent for path in paths.values()}) == 1


def test_timepoints_of_brats_2023_are_one_patient(tmp_path: Path, card, key) -> None:
    for case in ("BraTS-GLI-00002-000", "BraTS-GLI-00002-001", "BraTS-GLI-00005-000"):
        for channel in ("t1n", "t1c", "t2w", "t2f"):
            (tmp_path / case).mkdir(exist_ok=True)
            (tmp_path / case / f"{case}-{channel}.nii.gz").write_bytes(b"x")
    cases = build(card("brats2023_gli"), tmp_path, key).cases
    assert (cases["case_id"].n_unique(), cases["patient_id"].n_unique(), cases["study_id"].n_unique()) == (3, 2, 3)


def test_echonet_splits_by_its_column_in_any_case_with_or_without_avi(echonet: Path, card, key) -> None:
    manifest = build(card("echonet_dynamic"), echonet, key)
    assert dict(manifest.cases["split"].value_counts().rows()) == {"train": 3, "validation": 2, "test": 1}
    assert manifest.labels == ["EF", "ESV", "EDV"]
    case = manifest.case(manifest.cases.filter(pl.col("split") == "test")["case_id"].item())
    assert (case.kind, case.modality, case.labels["EF"], case.attributes["fps"]) == ("cine", "US", 55.5, 50.0)
    assert manifest.paths(case.case_id)["image"].name == "0X0005.avi"


def test_an_image_may_lie_beside_its_mask_and_hidden_copies_are_no_cases(tmp_path: Path, key) -> None:
    for name in ("a.nii.gz", "a_seg.nii.gz", "b.nii.gz", "._a.nii.gz", "c_seg.nii.gz"):
        (tmp_path / name).write_bytes(b"x")
    card = Card.from_yaml(
        "{name: beside, about: x, layout: pattern, kind: volume, modality: MR, files: {image: '{case}.nii.gz'}, "
        "mask: '{case}_seg.nii.gz', patient: '{case}', split: {shares: {train: 1}}}"
    )
    manifest = build(card, tmp_path, key)
    assert sorted(manifest.cases["has_mask"]) == [False, True]
    assert skips(manifest) == {"mask without an image": 1}


def test_a_folder_of_nifti_files_takes_its_patients_from_the_folders(tmp_path: Path, card, key) -> None:
    for path in ("anna/t1.nii.gz", "anna/deep/t2.nii.gz", "berta.nii.gz", "anna/t1_seg.nii.gz"):
        write_volume(tmp_path / path, stream("test", path).normal(size=(4, 4, 4)))
    (tmp_path / "anna" / "notes.txt").write_text("nothing to see")
    manifest = build(card("nifti_folder"), tmp_path, key)
    assert (len(manifest), manifest.cases["patient_id"].n_unique()) == (3, 2)
    assert manifest.cases["kind"].unique().to_list() == ["volume"]
    assert skips(manifest)["left out by the card: a mask by its name"] == 1
    assert manifest.skipped["count"].sum() == 2  # and the text file, with the reader's own reason


def test_a_folder_of_dicom_files_is_one_case_a_series_named_by_no_raw_id(tmp_path: Path, card, key) -> None:
    from medssl.io import FoundScan, open_scan
    from medssl.io.write import write_dicom

    for patient in ("Mustermann^Max", "Musterfrau^Erika"):
        for number in range(3):
            pixels = stream("test", patient, number).integers(0, 99, (6, 5)).astype("u2")
            write_dicom(
                tmp_path / patient[:7] / f"{patient[:11]}{number}.dcm", pixels, patient_id=patient, study_uid="1.2.3",
                series_uid=f"1.2.3.{len(patient)}", modality="CT",
                instance_uid=f"1.2.3.{len(patient)}.{number}", spacing=(1.0, 1.0), position=(0.0, 0.0, 2.0 * number),
                orientation=(1.0, 0.0, 0.0, 0.0, 1.0, 0.0), instance_number=number + 1,
            )
    manifest = build(card("dicom_folder"), tmp_path, key)
    assert (len(manifest), manifest.cases["patient_id"].n_unique()) == (2, 2)
    assert manifest.cases["study_id"].n_unique() == 2  # one study number in two patients is two studies
    assert manifest.cases.select("kind", "modality").unique().rows() == [("volume", "CT")]
    case = manifest.cases["case_id"][0]
    slices = manifest.all_paths(case)["image"]
    assert open_scan(FoundScan(slices, "volume")).array.shape == (1, 3, 6, 5)
    assert manifest.paths(case)["image"] == slices[0].parent
    manifest.save(tmp_path / "out" / "m.parquet")
    assert not told_by(tmp_path / "out", "Muster")


def test_a_table_can_be_joined_to_scans(tmp_path: Path, card, key) -> None:
    for name in ("anna", "berta"):
        write_volume(tmp_path / name / "t1.nii.gz", stream("test", name).normal(size=(4, 4, 4)))
    (tmp_path / "outcomes.csv").write_text("person;relapse\nanna;1\ncarla;0\n")
    own = changed(card("nifti_folder"), join={"path": "outcomes.csv", "match": {"owner": "person"}},
                  labels={"columns": ["relapse"]})
    manifest = build(own, tmp_path, key)
    assert sorted(manifest.cases["label.relapse"], key=str) == [1.0, None]
    assert skips(manifest)["row of the joined table without a case"] == 1


# Identity


def test_ids_need_the_key_and_nothing_else(chexpert: Path, card, key, tmp_path: Path) -> None:
    first = build(card("chexpert"), chexpert, key)
    moved = chexpert.rename(tmp_path / "moved")
    table = moved / "train.csv"
    head, *rows = table.read_text().splitlines()
    table.write_text("\n".join([head, *reversed(rows)]) + "\n")
    assert build(card("chexpert"), moved, key).digest == first.digest
    other = build(card("chexpert"), moved, bytes(32))
    assert not set(other.cases["patient_id"]) & set(first.cases["patient_id"])
    splits = [m.cases.group_by("split").len().sort("split").rows() for m in (first, other)]
    assert splits[0] == splits[1]
    with pytest.raises(ManifestError, match="holds 3 bytes"):
        build(card("chexpert"), moved, b"abc")


def test_cards_of_one_namespace_know_their_patients_again(brats: Path, card, key) -> None:
    plain = build(card("brats2021"), brats, key)
    one, two = (build(changed(card("brats2021"), name=name, namespace="hospital"), brats, key) for name in "ab")
    assert set(one.cases["patient_id"]) == set(two.cases["patient_id"])
    assert not set(one.cases["patient_id"]) & set(plain.cases["patient_id"])
    assert not set(one.cases["case_id"]) & set(two.cases["case_id"])


@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
def test_what_is_shared_names_nobody_and_paths_stay_private(chexpert: Path, card, key, tmp_path, suffix) -> None:
    (chexpert / "train" / "patient00003" / "study1" / "view1_frontal.jpg").unlink()
    manifest = build(card("chexpert"), chexpert, key)
    manifest.save(tmp_path / f"m{suffix}")
    private = tmp_path / "m.files.parquet"
    assert private.stat().st_mode & 0o777 == 0o600
    assert not told_by(tmp_path, "patient0")
    assert not told_by(tmp_path, "frontal.jpg")
    assert not any("patient0" in str(value) for row in manifest.cases.rows() for value in row)
    assert "patient00003" in manifest.skipped["what"][0]  # the terminal may say it


def test_dates_do_not_enter(chexpert: Path, card, key) -> None:
    table = chexpert / "train.csv"
    table.write_text(table.read_text().replace("Male", "2019-03-04"))
    own = changed(card("chexpert"), attributes={"seen": "{Sex}"}, labels={"columns": ["Edema"]})
    with pytest.raises(ManifestError, match="look like a date"):
        build(own, chexpert, key)


# On disk


@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
def test_a_manifest_comes_back_as_it_was(brats: Path, echonet: Path, card, key, tmp_path: Path, suffix: str) -> None:
    for name, folder in (("brats2021", brats), ("echonet_dynamic", echonet)):
        manifest = build(card(name), folder, key)
        path = tmp_path / "out" / f"{name}{suffix}"
        manifest.save(path)
        back = Manifest.load(path)
        assert back.cases.equals(manifest.cases)
        assert back.files.equals(manifest.files)
        assert (back.card, back.digest, back.key_id) == (manifest.card, manifest.digest, manifest.key_id)
        assert back.skipped.drop("what").equals(manifest.skipped.drop("what"))


def test_the_digest_tells_content_and_not_order(brats: Path, card, key) -> None:
    manifest = build(card("brats2021"), brats, key)

    def of(cases: pl.DataFrame) -> str:
        return Manifest(cases, manifest.files, manifest.card, manifest.skipped, manifest.key_id).digest

    assert of(manifest.cases.reverse().select(sorted(manifest.cases.columns))) == manifest.digest
    assert of(manifest.cases.with_columns(has_mask=~pl.col("has_mask"))) != manifest.digest


def test_a_changed_or_incomplete_manifest_is_refused(brats: Path, card, key, tmp_path: Path) -> None:
    manifest = build(card("brats2021"), brats, key)
    path = tmp_path / "m.csv"
    manifest.save(path)
    text = path.read_text()
    path.write_text(text.replace(",train,", ",test,", 1))
    with pytest.raises(ManifestError, match="changed after it was built"):
        Manifest.load(path)
    path.write_text(text.replace("has_mask", "mask"))
    with pytest.raises(ManifestError, match=r"lacks columns \['has_mask'\]"):
        Manifest.load(path)
    path.write_text(text)
    (tmp_path / "m.files.parquet").unlink()
    with pytest.raises(ManifestError, match="files table m.files.parquet is not beside"):
        Manifest.load(path)
    bare = Manifest.load(path, files=False)
    assert bare.digest == manifest.digest
    with pytest.raises(ManifestError, match="files of case .* are not known"):
        bare.paths(bare.cases["case_id"][0])
    (tmp_path / "m.manifest.json").unlink()
    with pytest.raises(ManifestError, match="m.manifest.json is missing"):
        Manifest.load(path)


def test_what_is_no_manifest_is_said_to_be_none(brats: Path, card, key, tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="No manifest .*none.parquet"):
        Manifest.load(tmp_path / "none.parquet")
    with pytest.raises(ManifestError, match="no name for a manifest"):
        Manifest.load(tmp_path / "cases.xlsx")
    (tmp_path / "junk.parquet").write_text("junk")
    with pytest.raises(ManifestError, match="cannot be read"):
        Manifest.load(tmp_path / "junk.parquet")
    pl.DataFrame({"a": [1]}).write_parquet(tmp_path / "table.parquet")
    with pytest.raises(ManifestError, match="but no manifest"):
        Manifest.load(tmp_path / "table.parquet")
    manifest = build(card("brats2021"), brats, key)
    manifest.select(split="train").save(tmp_path / "part.parquet")
    manifest.save(tmp_path / "whole.parquet")
    (tmp_path / "part.files.parquet").replace(tmp_path / "whole.files.parquet")
    with pytest.raises(ManifestError, match="lacks . of 4 cases"):
        Manifest.load(tmp_path / "whole.parquet")


def test_a_files_table_that_leads_to_others_scans_is_refused(brats: Path, card, key, tmp_path: Path) -> None:
    manifest = build(card("brats2021"), brats, key)
    manifest.save(tmp_path / "m.parquet")
    place = tmp_path / "m.files.parquet"
    files, told = pl.read_parquet(place), pl.read_parquet_metadata(place)
    swapped = files.with_columns(pl.col("path").reverse())
    swapped.write_parquet(place, metadata={name: value for name, value in told.items() if name.startswith("medssl")})
    with pytest.raises(ManifestError, match=r"m.files.parquet is not what m.parquet was built with"):
        Manifest.load(tmp_path / "m.parquet")
    assert len(Manifest.load(tmp_path / "m.parquet", files=False)) == len(manifest)


def test_select_and_case(chexpert: Path, card, key) -> None:
    manifest = build(card("chexpert"), chexpert, key)
    assert len(manifest.select(split=["train", "validation"])) == 24
    assert len(manifest.select(kind="volume")) == 0
    person = manifest.cases["patient_id"][0]
    part = manifest.select(patients=[person])
    assert part.cases["patient_id"].unique().to_list() == [person]
    assert part.files.height == len(part) == 2
    with pytest.raises(ManifestError, match="No case c0"):
        part.case("c0")


# Real sets


@pytest.mark.parametrize(
    ("name", "folder", "cases", "patients", "masks", "raw"),
    [
        ("nih_cxr", "cxr_nih", 754, 502, 0, ["00001280", ".jpg"]),
        ("glioma_lgg", "glioma_lgg", 60, 60, 60, ["TCGA-DU", "A5TW"]),
        ("hippocampus_msd", "hippocampus_msd", 160, 160, 159, ["hippocampus_0", "hippocampus_1"]),
    ],
)
def test_real_sets(real, card, key, tmp_path: Path, name, folder, cases, patients, masks, raw) -> None:
    manifest = build(card(name), real(folder), key)
    found = manifest.cases
    assert (len(manifest), found["patient_id"].n_unique(), found["has_mask"].sum()) == (cases, patients, masks)
    assert skips(manifest) == {}
    test = manifest.select(split="test").cases["patient_id"].n_unique() / patients
    assert 0.2 < test < 0.4
    manifest.save(tmp_path / "m.parquet")
    manifest.save(tmp_path / "m.csv")
    for text in raw:
        assert not told_by(tmp_path, text)
    assert told_by(tmp_path, manifest.cases["case_id"][7])  # the search does find what is there
    assert Manifest.load(tmp_path / "m.parquet").digest == manifest.digest
