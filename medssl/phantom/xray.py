"""Chest X-rays in the layout of CheXpert: `train/patient00001/study1/view1_frontal.jpg`, `train.csv`, `valid.csv`.

Heart failure, infection and critical illness are drawn first and bring the findings along, together, as in life. The
sicker a patient the likelier a portable AP picture, which magnifies the heart: a confounder, as in the real set.
About one study in twenty lies in `dicom/` too, 12 bits, some MONOCHROME1, some compressed.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydicom.uid import generate_uid

from medssl.io.write import write_dicom, write_jpeg
from medssl.phantom.chest.film import expose
from medssl.phantom.chest.frontal import frontal
from medssl.phantom.chest.lateral import lateral
from medssl.phantom.chest.patient import PRESENT, Anatomy, Illness, Pose
from medssl.phantom.shapes import Array, Field
from medssl.phantom.studio import Progress, draw_patients, signed
from medssl.rng import stream

SIZE = 160
FINDINGS = (
    "No Finding", "Enlarged Cardiomediastinum", "Cardiomegaly", "Lung Opacity", "Lung Lesion", "Edema",
    "Consolidation", "Pneumonia", "Atelectasis", "Pneumothorax", "Pleural Effusion", "Pleural Other", "Fracture",
    "Support Devices",
)  # fmt: skip
COLUMNS = ("Path", "Sex", "Age", "Frontal/Lateral", "AP/PA", *FINDINGS)
DICOM_STYLES = (("jpeg2000", "MONOCHROME1"), ("rle", "MONOCHROME2"), ("explicit", "MONOCHROME1"),
                ("jpegls", "MONOCHROME2"), ("explicit", "MONOCHROME2"), ("rle", "MONOCHROME1"))  # fmt: skip

Row = tuple[str, ...]


@dataclass(frozen=True)
class View:
    """One exposure: number within its study, projection, and the picture (J, I) in 0..1."""

    number: int
    projection: str
    """AP, PA, or "" for a lateral."""

    picture: Array

    @property
    def name(self) -> str:
        return f"view{self.number}_{'frontal' if self.projection else 'lateral'}"


@dataclass(frozen=True)
class Study:
    number: int
    illness: Illness
    views: tuple[View, ...]


def write_xray(folder: str | Path, patients: int, seed: int = 0, progress: Progress | None = None) -> None:
    """Writes `patients` synthetic patients under `folder`, every tenth to the validation part.

    Patient k is the same for a seed, however many patients there are. Returns at once where they are all there;
    RunError where the folder holds something else.
    """
    folder = Path(folder)
    with signed(folder, "xray", patients, seed, ("train", "valid", "dicom", "train.csv", "valid.csv")) as needed:
        if needed:
            rows = [row for part in draw_patients(_write_patient, folder, patients, seed, progress) for row in part]
            for split in ("train", "valid"):
                _write_table(folder / f"{split}.csv", (row for row in rows if f"/{split}/" in row[0]))


def draw_patient(seed: int, index: int) -> tuple[Anatomy, list[Study]]:
    """Patient number `index` of a seed: anatomy, and one to three studies with one or two views each."""
    key = (seed, "phantom", "xray", index)
    rng = stream(*key)
    anatomy = Anatomy.draw(key)
    burden = {cause: float(rng.beta(1.2, 1.5)) if rng.random() < share else 0.0
              for cause, share in (("failure", 0.42), ("infection", 0.34), ("critical", 0.36))}  # fmt: skip
    ratio = rng.normal(0.442, 0.03) if rng.random() > 0.2 + 0.4 * (burden["failure"] > 0) else (
        0.475 + 0.14 * rng.beta(1.3, 1.7))  # fmt: skip
    count = 1 + int(rng.choice(3, p=[0.72, 0.20, 0.08]))
    numbers = range(1, count + 1)
    return anatomy, [_draw_study((*key, number), number, anatomy, burden, float(ratio)) for number in numbers]


def _draw_study(
    key: tuple[int | str, ...], number: int, anatomy: Anatomy, burden: dict[str, float], ratio: float
) -> Study:
    rng = stream(*key, "study")
    illness = _draw_illness(rng, burden, ratio)
    grave = ("Edema", "Pleural Effusion", "Consolidation", "Support Devices")
    worst = max(illness.severity[finding] for finding in grave)
    ap = bool(rng.random() < 0.22 + 0.60 * worst + 0.15 * (burden["critical"] > 0))
    views = [_expose_view((*key, 1), 1, anatomy, illness, "AP" if ap else "PA")]
    if rng.random() < (0.02 if ap else 0.25):
        views.append(_expose_view((*key, 2), 2, anatomy, illness, ""))
    return Study(number, illness, tuple(views))


def _draw_illness(rng: np.random.Generator, burden: dict[str, float], ratio: float) -> Illness:
    failure, infection, critical = burden["failure"], burden["infection"], burden["critical"]

    def severity(chance: float) -> float:
        """Present with this chance, mild more often than severe; otherwise now and then a hint below the threshold."""
        if rng.random() < chance:
            return float(PRESENT - 0.02 + 0.8 * rng.beta(1.1, 1.9))
        return float(rng.uniform(0.05, PRESENT)) if rng.random() < 0.12 else 0.0

    ratio = float(np.clip(ratio + rng.normal(0, 0.006), 0.36, 0.66))
    found = {
        "Cardiomegaly": float(np.clip(PRESENT + 5.0 * (ratio - 0.50), 0, 1)),
        "Edema": severity(0.06 + 0.75 * failure),
        "Pleural Effusion": severity(0.14 + 0.50 * failure + 0.25 * infection + 0.15 * critical),
        "Consolidation": severity(0.03 + 0.60 * infection),
        "Atelectasis": severity(0.12 + 0.20 * infection + 0.35 * critical),
        "Pneumothorax": severity(0.04 + 0.15 * critical),
        "Lung Lesion": severity(0.09),
        "Pleural Other": severity(0.04),
        "Fracture": severity(0.05),
        "Enlarged Cardiomediastinum": severity(0.05 + 0.10 * critical),
        "Support Devices": severity(0.12 + 0.80 * critical + 0.20 * failure),
    }
    found["Pneumonia"] = found["Consolidation"] if infection > 0 else 0.0
    dense = found["Consolidation"], found["Edema"], 0.8 * found["Atelectasis"], found["Lung Lesion"]
    found["Lung Opacity"] = max(dense)
    side = {finding: int(rng.choice([-1, 1])) for finding in found if finding != "Edema"}
    side["Pleural Effusion"] = int(rng.choice([-1, 0, 1], p=[0.35, 0.35, 0.30]))
    return Illness(found, side, ratio)


def _expose_view(key: tuple[int | str, ...], number: int, anatomy: Anatomy, illness: Illness, projection: str) -> View:
    rng = stream(*key, "view")
    ap = projection == "AP"
    loose = 1.5 if ap else 1.0  # a portable picture is aimed less well
    field = Field(SIZE, rng.normal(0, 0.045 * loose), rng.normal(0.98, 0.075), tuple(rng.normal(0, 0.065 * loose, 2)))
    breath = float(np.clip(rng.normal(-0.5 * ap, 0.6), -1.5, 1.2))
    magnified = float(rng.normal(1.13 if ap else 1.0, 0.05 if ap else 0.02))
    pose = Pose(ap, breath, magnified, float(rng.normal(0, 0.5 * loose)), (*key, "pose"))
    view = frontal if projection else lateral
    return View(number, projection, expose(view(anatomy, illness, pose, field), rng, ap))


def labels(illness: Illness, rng: np.random.Generator, split: str) -> dict[str, str]:
    """CheXpert's values by finding. train: "1.0", "-1.0" about the threshold, "0.0" where a report denies it, "" where
    it is silent; valid: "1.0" or "0.0", as its radiologists were asked about every finding."""
    values = {finding: _label(finding, illness.severity[finding], rng) for finding in FINDINGS[1:]}
    if split == "valid":
        values = {finding: f"{float(illness.severity[finding] >= PRESENT):.1f}" for finding in values}
    healthy = all(values[finding] not in ("1.0", "-1.0") for finding in values if finding != "Support Devices")
    absent = "0.0" if split == "valid" else ""
    return {"No Finding": "1.0" if healthy else absent} | values


def _label(finding: str, severity: float, rng: np.random.Generator) -> str:
    doubt, denial = rng.random(), rng.random()
    borderline = abs(severity - PRESENT) < 0.06 and doubt < 0.6
    if severity > 0 and (borderline or (finding == "Pneumonia" and severity >= PRESENT and doubt < 0.4)):
        return "-1.0"
    if severity >= PRESENT:
        return "1.0"
    return "0.0" if denial < 0.15 else ""


def _write_patient(folder: Path, seed: int, index: int) -> list[Row]:
    """Writes one patient's pictures; returns the rows of the table."""
    anatomy, studies = draw_patient(seed, index)
    patient, split = f"patient{index + 1:05d}", "valid" if index % 10 == 3 else "train"
    who = ("Female" if anatomy.female else "Male", str(anatomy.age))
    rows = []
    for study in studies:
        values = labels(study.illness, stream(seed, "phantom", "xray", index, study.number, "labels"), split)
        for view in study.views:
            place = f"{split}/{patient}/study{study.number}/{view.name}.jpg"
            write_jpeg(folder / place, np.round(view.picture * 255).astype(np.uint8))
            facing = ("Frontal", view.projection) if view.projection else ("Lateral", "")
            rows.append((f"CheXpert-v1.0-small/{place}", *who, *facing, *values.values()))
    if index % 12 == 5:
        _write_dicom(folder / "dicom" / patient, anatomy, studies[0], seed, index)
    return rows


def _write_dicom(folder: Path, anatomy: Anatomy, study: Study, seed: int, index: int) -> None:
    """The study's views as a digital X-ray system would send them: 12 bits, in the styles in turn."""
    syntax, photometric = DICOM_STYLES[index // 12 % len(DICOM_STYLES)]
    for view in study.views:
        stored = np.round(view.picture * 4095).astype(np.uint16)
        name = f"medssl xray {seed} {index} {study.number}"
        uids = [generate_uid(entropy_srcs=[name, part]) for part in ("", "series " + view.name, "image " + view.name)]
        write_dicom(
            folder / f"study{study.number}" / f"{view.name}.dcm",
            4095 - stored if photometric == "MONOCHROME1" else stored,
            patient_id=f"PHANTOM-{index + 1:05d}",
            study_uid=uids[0],
            series_uid=uids[1],
            instance_uid=uids[2],
            photometric=photometric,
            bits_stored=12,
            spacing=(2.4, 2.4),
            transfer_syntax=syntax,
            header={
                "PatientSex": "F" if anatomy.female else "M",
                "PatientAge": f"{anatomy.age:03d}Y",
                "BodyPartExamined": "CHEST",
                "ViewPosition": view.projection or "LL",
            },
        )


def _write_table(path: Path, rows: Iterable[Row]) -> None:
    with path.open("w", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(COLUMNS)
        table.writerows(rows)
