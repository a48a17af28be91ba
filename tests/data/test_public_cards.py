"""Cards of public sets that are not at hand: tiny folders in their layouts, and the real Sunnybrook patient."""

from __future__ import annotations

import gzip
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from data_folders import CARDS_FOLDER, skips, write_picture, write_volume

from medssl.data.build import build
from medssl.data.card import Card
from medssl.data.manifest import Manifest
from medssl.errors import ConfigError
from medssl.io import FoundScan, open_scan
from medssl.io.write import write_dicom
from medssl.rng import stream


def read_first(manifest: Manifest) -> np.ndarray:
    case_id, kind = manifest.cases.select("case_id", "kind").row(0)
    return open_scan(FoundScan(manifest.all_paths(case_id)["image"], kind)).array


def film(number: int) -> np.ndarray:
    return stream("film", number).integers(0, 99, (8, 8)).astype(np.uint16)


def write_table(path: Path, rows: list[dict[str, object]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    content = pl.DataFrame(rows).write_csv().encode()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


def test_mimic_cxr_jpg_joins_its_split_by_image_and_its_labels_by_study(tmp_path: Path, card, key) -> None:
    mimic = card("mimic_cxr_jpg")
    images, splits, labels = [], [], []
    for number, split in enumerate(["train", "train", "validate", "test"]):
        patient, study = f"1000{number}032", f"5041426{number}"
        for view in ("PA", "LATERAL"):
            image = f"{number:08x}-{view.lower()}"
            write_picture(tmp_path / f"files/p10/p{patient}/s{study}/{image}.jpg", number)
            ids = {"dicom_id": image, "subject_id": patient, "study_id": study}
            images.append({**ids, "ViewPosition": view, "Rows": 8, "Columns": 8, "StudyDate": 21800506})
            splits.append({**ids, "split": split})
        findings = dict.fromkeys(mimic.labels.columns) | {"Edema": [1.0, -1.0, None, 0.0][number]}
        labels.append({"subject_id": patient, "study_id": study, **findings})
    write_table(tmp_path / "mimic-cxr-2.0.0-metadata.csv.gz", images)
    write_table(tmp_path / "mimic-cxr-2.0.0-split.csv.gz", splits)
    write_table(tmp_path / "mimic-cxr-2.0.0-chexpert.csv.gz", labels[:3])
    manifest = build(mimic, tmp_path, key)
    assert len(manifest) == 8
    found = manifest.cases.group_by("split").agg(pl.col("label.Edema").unique(), pl.col("patient_id").n_unique())
    assert {split: (sorted(edema, key=str), patients) for split, edema, patients in found.rows()} == {
        "train": ([-1.0, 1.0], 2), "validation": ([None], 1), "test": ([None], 1)}
    assert sorted(manifest.cases["attr.view"].unique()) == ["LATERAL", "PA"]
    assert skips(manifest) == {"columns of a case that has no row in the joined table": 2}
    assert read_first(manifest).shape == (1, 8, 8)


def test_vindr_cxr_is_read_by_majority_with_the_lines_in_its_head(tmp_path: Path, card, key) -> None:
    names = [*card("vindr_cxr").labels.columns, "Other diseases"]
    train, test = [], []
    for number in range(6):
        part = "test" if number > 3 else "train"
        (tmp_path / part).mkdir(exist_ok=True)
        write_dicom(tmp_path / part / f"{number:032x}.dicom", film(number), patient_id="",
                    study_uid=f"1.2.{number}", series_uid=f"1.3.{number}", instance_uid=f"1.4.{number}")
        if part == "test":
            test.append({"image_id": f"{number:032x}", **dict.fromkeys(names[:-1], 1), "Other disease": 0})
        else:  # of three radiologists, as many as the image's number call it cardiomegaly
            train += [{"image_id": f"{number:032x}", "rad_id": f"R{reader}", **dict.fromkeys(names, 0),
                       "Cardiomegaly": int(reader < number)} for reader in range(3)]
    write_table(tmp_path / "annotations/image_labels_train.csv", train)
    write_table(tmp_path / "annotations/image_labels_test.csv", test)
    head = [line.removeprefix("# ") for line in (CARDS_FOLDER / "vindr_cxr.yaml").read_text().splitlines()]
    first = head.index('python -c "')
    script = "\n".join(head[first + 1 : head.index('"', first)])
    subprocess.run([sys.executable, "-c", script], cwd=tmp_path, check=True)
    manifest = build(card("vindr_cxr"), tmp_path, key)
    assert sorted(manifest.cases.filter(pl.col("split") != "test")["label.Cardiomegaly"]) == [0, 0, 1, 1]
    assert manifest.cases.filter(pl.col("split") == "test")["label.Tuberculosis"].to_list() == [1, 1]
    assert read_first(manifest).shape == (1, 8, 8)


@pytest.mark.parametrize(
    ("name", "case", "channels"), [("brain_tumour_msd", "BRATS_001", 4), ("spleen_msd", "spleen_2", 1)])
def test_decathlon_tasks_in_their_own_layout(tmp_path: Path, card, key, name: str, case: str, channels: int) -> None:
    image = stream("msd", name).normal(size=(6, 5, 4, channels))
    write_volume(tmp_path / f"imagesTr/{case}.nii.gz", image if channels > 1 else image[..., 0])
    write_volume(tmp_path / f"labelsTr/{case}.nii.gz", np.ones((6, 5, 4)))
    (tmp_path / f"imagesTr/._{case}.nii.gz").write_bytes(b"left by a Mac")
    manifest = build(card(name), tmp_path, key)
    assert manifest.cases["has_mask"].to_list() == [True]
    assert skips(manifest) == {}
    assert read_first(manifest).shape == (channels, 4, 5, 6)


def test_acdc_has_two_outlined_frames_a_patient_and_its_own_split(tmp_path: Path, card, key) -> None:
    for part, patient in (("training", "patient001"), ("training", "patient002"), ("testing", "patient101")):
        for frame in ("_4d", "_frame01", "_frame01_gt", "_frame12", "_frame12_gt"):
            write_volume(tmp_path / part / patient / f"{patient}{frame}.nii.gz", np.ones((6, 5, 4)))
        (tmp_path / part / patient / "Info.cfg").write_text("ED: 1\nES: 12\nGroup: DCM\n")
    manifest = build(card("acdc"), tmp_path, key)
    assert sorted(manifest.cases.select("split", "has_mask").rows()) == [("test", True)] * 2 + [("train", True)] * 4
    assert manifest.cases["patient_id"].n_unique() == 3
    assert skips(manifest) == {"file that no row or pattern of the card names": 3}  # the cines


def test_sunnybrook_slices_become_clips(tmp_path: Path, card, key) -> None:
    for number, (place, time) in enumerate(np.ndindex(2, 3)):
        write_dicom(
            tmp_path / "SCD0000101/CINESAX_300" / f"IM-0003-{number:04d}.dcm",
            film(number), patient_id="", study_uid="1.2", series_uid="1.3",
            instance_uid=f"1.3.{number}", modality="MR", spacing=(1.4, 1.4), position=(0, 0, 8.0 * place),
            orientation=(1, 0, 0, 0, 1, 0), instance_number=number + 1, header={"TriggerTime": 40.0 * time})
    (tmp_path / "SCD0000101" / "README").write_text("no image")
    manifest = build(card("sunnybrook_cine"), tmp_path, key)
    assert manifest.cases["kind"].to_list() == ["cine", "cine"]
    assert manifest.cases["patient_id"].n_unique() == 1
    assert read_first(manifest).shape == (1, 3, 8, 8)


def test_the_real_sunnybrook_patient_has_twelve_clips_of_twenty_frames(real, card, key) -> None:
    manifest = build(card("sunnybrook_cine"), real("cine_sunnybrook"), key)
    assert len(manifest) == 12
    assert read_first(manifest).shape == (1, 20, 256, 256)


def test_time_belongs_to_scans() -> None:
    text = (CARDS_FOLDER / "acdc.yaml").read_text()
    with pytest.raises(ConfigError, match="no use for `time`"):
        Card.from_yaml(f"{text}\ntime: clips\n")
