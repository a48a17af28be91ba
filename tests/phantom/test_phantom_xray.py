"""The xray phantom: CheXpert's layout and columns, labels that say what was drawn, a DICOM part."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import numpy as np
import pydicom
import pytest
from PIL import Image

from medssl.phantom import write_xray
from medssl.phantom.chest.frontal import frontal
from medssl.phantom.chest.lateral import lateral
from medssl.phantom.chest.patient import PRESENT, Anatomy, Illness, Pose
from medssl.phantom.shapes import Field
from medssl.phantom.xray import FINDINGS, draw_patient, labels
from medssl.rng import stream

HEADER = (
    "Path,Sex,Age,Frontal/Lateral,AP/PA,No Finding,Enlarged Cardiomediastinum,Cardiomegaly,Lung Opacity,Lung Lesion,"
    "Edema,Consolidation,Pneumonia,Atelectasis,Pneumothorax,Pleural Effusion,Pleural Other,Fracture,Support Devices"
)
PATIENTS = 42


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("xray")
    write_xray(folder, PATIENTS, seed=3)
    return folder


def rows(folder: Path, split: str) -> list[dict[str, str]]:
    with (folder / f"{split}.csv").open() as file:
        return list(csv.DictReader(file))


def test_header_is_chexperts(folder: Path) -> None:
    for split in ("train", "valid"):
        assert (folder / f"{split}.csv").read_text().splitlines()[0] == HEADER


def test_every_row_has_its_picture_and_every_picture_its_row(folder: Path) -> None:
    for split in ("train", "valid"):
        named = {row["Path"].removeprefix("CheXpert-v1.0-small/") for row in rows(folder, split)}
        assert named == {path.relative_to(folder).as_posix() for path in (folder / split).rglob("*.jpg")}
        pattern = rf"{split}/patient\d{{5}}/study\d/(view1_frontal|view2_lateral)\.jpg"
        assert named
        assert all(re.fullmatch(pattern, name) for name in named)


def test_pictures_are_grey_and_of_one_size(folder: Path) -> None:
    for path in list((folder / "train").rglob("*.jpg"))[:10]:
        with Image.open(path) as image:
            assert (image.mode, image.size) == ("L", (160, 160))
            assert np.asarray(image).std() > 20


def test_values_are_those_that_chexpert_uses(folder: Path) -> None:
    train = {row[finding] for row in rows(folder, "train") for finding in FINDINGS}
    valid = {row[finding] for row in rows(folder, "valid") for finding in FINDINGS}
    assert train == {"1.0", "0.0", "-1.0", ""}
    assert valid == {"1.0", "0.0"}
    assert {row["Sex"] for row in rows(folder, "train")} == {"Male", "Female"}
    assert all(18 <= int(row["Age"]) <= 90 for row in rows(folder, "train"))


def test_no_finding_excludes_findings(folder: Path) -> None:
    for row in rows(folder, "train") + rows(folder, "valid"):
        others = {row[finding] for finding in FINDINGS if finding not in ("No Finding", "Support Devices")}
        assert (row["No Finding"] == "1.0") == (not others & {"1.0", "-1.0"})


def test_laterals_have_no_projection_and_frontals_have_one(folder: Path) -> None:
    found = rows(folder, "train") + rows(folder, "valid")
    assert {(row["Frontal/Lateral"], row["AP/PA"]) for row in found} == {
        ("Frontal", "AP"), ("Frontal", "PA"), ("Lateral", "")}  # fmt: skip
    assert all(("lateral" in row["Path"]) == (row["Frontal/Lateral"] == "Lateral") for row in found)


def test_a_tenth_of_patients_is_valid_and_none_is_in_both(folder: Path) -> None:
    def named(split: str) -> set[str]:
        return {re.search(r"patient\d+", row["Path"])[0] for row in rows(folder, split)}

    patients = named("train"), named("valid")
    assert not patients[0] & patients[1]
    assert len(patients[0] | patients[1]) == PATIENTS
    assert len(patients[1]) == 4


def test_dicom_part_holds_the_same_pictures(folder: Path) -> None:
    files = sorted((folder / "dicom").rglob("*.dcm"))
    read = [pydicom.dcmread(path) for path in files]
    assert {"MONOCHROME1", "MONOCHROME2"} == {data.PhotometricInterpretation for data in read}
    assert any(data.file_meta.TransferSyntaxUID.is_compressed for data in read)
    for path, data in zip(files, read, strict=True):
        assert data.BitsStored == 12
        assert data.PatientID == f"PHANTOM-{path.parts[-3].removeprefix('patient')}"
        shown = data.pixel_array.astype(float) / 4095
        shown = 1 - shown if data.PhotometricInterpretation == "MONOCHROME1" else shown
        twin = next(folder.glob(f"*/{path.relative_to(folder / 'dicom').with_suffix('.jpg').as_posix()}"))
        assert np.abs(shown - np.asarray(Image.open(twin)) / 255).mean() < 0.02


def test_a_patient_keeps_sex_and_age_and_differs_from_the_next() -> None:
    first, studies = draw_patient(3, 7)
    again, same = draw_patient(3, 7)
    assert first == again
    assert np.array_equal(studies[0].views[0].picture, same[0].views[0].picture)
    assert not np.array_equal(studies[0].views[0].picture, draw_patient(3, 8)[1][0].views[0].picture)


def test_borderline_findings_may_be_uncertain_and_clear_ones_are_not() -> None:
    def given(severity: float) -> set[str]:
        illness = Illness({finding: severity for finding in FINDINGS[1:]}, {}, 0.5)
        return {labels(illness, stream(k), "train")["Edema"] for k in range(60)}

    assert given(0.0) == {"", "0.0"}
    assert given(PRESENT + 0.02) == {"1.0", "-1.0"}
    assert given(0.9) == {"1.0"}


# what was drawn -------------------------------------------------------------------------------------------------------

FIELD = Field(160, 0.0, 1.0, (0.0, 0.0))


def absorbance(number: int, *, heart: float = 0.45, ap: bool = False, view=frontal, **severity: float) -> np.ndarray:
    """A patient without any nuisance of pose, with the given findings on the left."""
    anatomy = Anatomy.draw(("test", number))
    found = dict.fromkeys(FINDINGS[1:], 0.0) | {name.replace("_", " "): value for name, value in severity.items()}
    illness = Illness(found, dict.fromkeys(found, 1), heart)
    pose = Pose(ap, breath=0.0, magnified=1.13 if ap else 1.0, yaw=0.0, key=("test", number, "pose"))
    return view(anatomy, illness, pose, FIELD)


def left_lung(picture: np.ndarray) -> float:
    return float(picture[70:115, 105:132].mean())


@pytest.mark.parametrize("number", range(4))
def test_the_heart_is_drawn_as_wide_as_its_ratio_says(number: int) -> None:
    narrow = absorbance(number, heart=0.42)
    changed = [np.abs(absorbance(number, heart=ratio) - narrow) > 0.15 for ratio in (0.48, 0.54, 0.60)]
    areas = [int(mask.sum()) for mask in changed]
    assert areas[0] < areas[1] < areas[2]
    columns = np.flatnonzero(changed[2].any(0))
    inner_width = 2 * Anatomy.draw(("test", number)).thorax * 80  # pixels
    assert np.ptp(columns) == pytest.approx(0.60 * inner_width, abs=9)


def test_an_ap_film_magnifies_the_heart() -> None:
    assert absorbance(1, ap=True)[85:105, 95:125].mean() > absorbance(1)[85:105, 95:125].mean()


@pytest.mark.parametrize("finding", ["Edema", "Consolidation", "Pleural_Effusion", "Atelectasis", "Lung_Lesion"])
@pytest.mark.parametrize("view", [frontal, lateral])
def test_opacities_grow_with_severity(finding: str, view) -> None:
    changes = []
    for severity in (0.25, 0.5, 0.9):
        pairs = [(absorbance(n, view=view, **{finding: severity}), absorbance(n, view=view)) for n in range(4)]
        changes.append(np.mean([(ill - well).clip(0).mean() for ill, well in pairs]))
    assert 0 < changes[0] < changes[1] < changes[2]


def test_one_sided_findings_stay_on_their_side() -> None:
    well, ill = absorbance(2), absorbance(2, Pleural_Effusion=0.6)
    assert np.abs(ill - well)[:, :60].max() < 1e-4
    assert left_lung(ill) > left_lung(well) + 0.05


def test_a_pneumothorax_takes_the_markings_away() -> None:
    well, ill = absorbance(3), absorbance(3, Pneumothorax=0.9)
    assert ill[40:70, 118:128].mean() < well[40:70, 118:128].mean()


def test_devices_are_strokes_of_metal() -> None:
    gain = absorbance(0, Support_Devices=0.9) - absorbance(0)
    assert gain.max() > 0.3
    assert 0.002 < (gain > 0.1).mean() < 0.1
