"""What `check` finds once every file was opened, and that it finds nothing in a sound set."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
from data_folders import case_of, changed, found, write_volume
from PIL import Image
from pydicom import dcmread
from pydicom.dataset import Dataset

from medssl.data.build import build
from medssl.data.card import Card
from medssl.data.checks import Finding, check, gather
from medssl.data.manifest import Manifest
from medssl.io.write import write_dicom
from medssl.rng import stream


def deep(manifest: Manifest) -> list[Finding]:
    return check(manifest, gather(manifest, workers=0))


def volumes(folder: Path, key: bytes, **entries: object) -> Manifest:
    """The manifest of <folder>/<case>.nii.gz, a patient each."""
    plain = {"name": "plain", "about": "A test.", "layout": "pattern", "kind": "volume", "modality": "MR",
             "files": {"image": "{case}.nii.gz"}, "patient": "{case}", "split": {"shares": {"train": 1.0}}}
    return build(Card.model_validate({**plain, **entries}), folder, key)


def noise(number: int, scale: float = 1.0) -> np.ndarray:
    return 100 + scale * stream("check", number).normal(size=(6, 5, 4))


def test_a_sound_set_has_no_error(brats: Path, card, key) -> None:
    told: list[tuple[int, int]] = []
    manifest = build(card("brats2021"), brats, key)
    facts = gather(manifest, progress=lambda *counts: told.append(counts))
    findings = check(manifest, facts)
    assert not [finding.what for finding in findings if finding.level == "error"]
    assert found(findings, "1 of 4 cases have no mask").level == "note"
    assert found(findings, "only 3 patient(s) in train").level == "warning"  # a handful of patients
    assert told[-1] == (4, 4)
    assert dict(facts.group_by("role").len().rows()) == {"t1": 4, "t1ce": 4, "t2": 4, "flair": 4, "mask": 3}
    assert facts["shape"].unique().to_list() == [[3, 4, 5]]


def test_many_cases_are_read_in_worker_processes_with_the_same_facts(tmp_path: Path, key) -> None:
    for number in range(17):
        write_volume(tmp_path / f"p{number:02d}.nii.gz", noise(number))
    manifest = volumes(tmp_path, key)
    assert gather(manifest, workers=2).equals(gather(manifest, workers=0))


def test_foreign_grids_strange_values_and_unreadable_files(brats: Path, card, key) -> None:
    mask = np.zeros((5, 4, 3))
    mask[0, 0] = 3
    write_volume(brats / "BraTS2021_00000" / "BraTS2021_00000_seg.nii.gz", mask)
    write_volume(brats / "BraTS2021_00001" / "BraTS2021_00001_seg.nii.gz", np.zeros((5, 4, 2)))
    write_volume(brats / "BraTS2021_00002" / "BraTS2021_00002_t2.nii.gz", noise(0)[:5, :4, :3], offset=2.0)
    (brats / "BraTS2021_00003" / "BraTS2021_00003_flair.nii.gz").write_bytes(b"no volume at all")
    manifest = build(card("brats2021"), brats, key)
    assert not [finding for finding in check(manifest) if finding.level == "error"]
    findings = deep(manifest)
    for text, name in [("mask values 3 are in no region", "00000"), ("mask lies on another grid", "00001"),
                       ("t2 lies on another grid", "00002"), ("flair: ", "00003")]:
        finding = found(findings, text)
        assert (finding.level, finding.cases) == ("error", [case_of(manifest, name)])
        assert finding.remedy
        assert name not in finding.what
    assert not [finding for finding in findings if "channel(s)" in finding.what]  # what is unreadable is told once


def test_a_thousand_faults_that_differ_in_numbers_are_one_line(tmp_path: Path, key) -> None:
    for number in range(3):
        path = tmp_path / f"p{number}.nii"
        write_volume(path, noise(number))
        path.write_bytes(path.read_bytes()[: 400 + number])
    finding = found(deep(volumes(tmp_path, key, files={"image": "{case}.nii"})), "image: The file ends after")
    assert len(finding.cases) == 3
    assert "the others differ in their numbers" in finding.what


def test_masks_of_anything_but_labels(tmp_path: Path, key) -> None:
    for number, odd in enumerate([0.5, -1, 256, np.nan, 1]):
        write_volume(tmp_path / f"p{number}.nii.gz", noise(number))
        mask = np.zeros((6, 5, 4))
        mask[0, 0, 0] = odd
        write_volume(tmp_path / f"p{number}_seg.nii.gz", mask)
    manifest = volumes(tmp_path, key, mask="{case}_seg.nii.gz", regions={"lesion": [1], "core": [2]})
    findings = deep(manifest)
    assert found(findings, "values that are no labels").cases == sorted(
        case_of(manifest, f"p{number}.nii.gz") for number in range(4))
    assert not [finding for finding in findings if "in no region" in finding.what]
    assert found(findings, "region lesion, positive cases").what.endswith("train 1 of 5")
    assert found(findings, "region core is in no mask").level == "warning"


def test_blank_clipped_and_infinite_images_and_other_kinds_and_channels(tmp_path: Path, key) -> None:
    arrays = {"blank": np.full((6, 5, 4), 7.0), "clipped": np.minimum(noise(0), 100.5), "nan": noise(1),
              "two": np.stack([noise(2), noise(3)], axis=-1), "flat": noise(4)[:, :, 0], "good": noise(5)}
    arrays["nan"][0, 0, 0] = np.nan
    for name, array in arrays.items():
        write_volume(tmp_path / f"{name}.nii.gz", array)
    manifest = volumes(tmp_path, key)
    findings = deep(manifest)
    for text, name, level in [
        ("every pixel of image has the same value", "blank", "warning"), ("image is clipped", "clipped", "warning"),
        ("NaN or infinite", "nan", "error"), ("image holds 2 channel(s)", "two", "error"),
        ("image is a image where the manifest says volume", "flat", "error"),
    ]:
        assert (found(findings, text).level, found(findings, text).cases) == (level, [case_of(manifest, f"/{name}.")])


def test_copies_across_splits_patients_and_within_one(chexpert: Path, card, key) -> None:
    def image(name: str, view: int = 1) -> Path:
        return chexpert / name / "study1" / f"view{view}_frontal.jpg"

    shutil.copy(image("train/patient00001"), image("valid/patient64541"))
    shutil.copy(image("train/patient00002"), image("train/patient00003"))
    shutil.copy(image("train/patient00004", 1), image("train/patient00004", 2))
    manifest = build(changed(card("chexpert"), split={"shares": {"train": 1.0}}), chexpert, key)
    findings = deep(manifest)
    for text, level, names in [
        ("same image in different splits", "error", ("00001/study1/view1", "64541/study1/view1")),
        ("different patients of one split", "warning", ("00002/study1/view1", "00003/study1/view1")),
        ("copies of an image of the same patient", "warning", ("00004/study1/view1", "00004/study1/view2")),
    ]:
        finding = found(findings, text)
        assert (finding.level, set(finding.cases)) == (level, {case_of(manifest, name) for name in names})
    assert not [finding for finding in findings if "as in another patient" in finding.what]  # told as whole cases


def test_a_channel_that_is_another_patients_is_told_of_both(brats: Path, card, key) -> None:
    first, second, third = (brats / f"BraTS2021_0000{number}" / f"BraTS2021_0000{number}" for number in range(3))
    shutil.copy(f"{first}_t2.nii.gz", f"{second}_t1.nii.gz")
    for channel in ("t1", "t1ce"):  # blank is like blank
        write_volume(Path(f"{third}_{channel}.nii.gz"), np.zeros((5, 4, 3)))
        write_volume(Path(str(third).replace("00002", "00003") + f"_{channel}.nii.gz"), np.zeros((5, 4, 3)))
    manifest = build(changed(card("brats2021"), split={"shares": {"train": 1.0}}), brats, key)
    findings = deep(manifest)
    told = {finding.what: (finding.level, finding.cases) for finding in findings if "another patient" in finding.what}
    assert told == {f"1 case(s): {role} is the same image as in another patient": ("warning", [case_of(manifest, name)])
                    for role, name in (("t2", "00000"), ("t1", "00001"))}
    apart = pl.when(pl.col("case_id") == case_of(manifest, "00000")).then(pl.lit("test")).otherwise(pl.lit("train"))
    apart = replace(manifest, cases=manifest.cases.with_columns(split=apart))
    assert [finding.level for finding in deep(apart) if "another patient" in finding.what] == ["error", "error"]


def test_copies_are_known_by_their_pixels_whatever_the_format_and_blank_ones_are_none(tmp_path: Path, key) -> None:
    pixels = stream("check", "copy").integers(0, 256, (32, 32)).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "grey.png")
    Image.fromarray(np.stack([pixels] * 3, axis=-1)).save(tmp_path / "colour.tif")
    uids = {"study_uid": "1.2", "series_uid": "1.2.3", "instance_uid": "1.2.3.4"}
    write_dicom(tmp_path / "dicom.png", pixels.astype(np.uint16), patient_id="x", transfer_syntax="rle", **uids)
    for name in ("blank", "void"):
        Image.fromarray(np.zeros((32, 32), np.uint8)).save(tmp_path / f"{name}.png")
    rows = ["file", "grey.png", "colour.tif", "dicom.png", "blank.png", "void.png"]
    (tmp_path / "rows.csv").write_text("\n".join(rows) + "\n")
    manifest = volumes(tmp_path, key, layout="table", kind="image", modality="DX", tables=[{"path": "rows.csv"}],
                       files={"image": "{file}"}, patient="{file}")
    finding = found(deep(manifest), "the same image under different patients")
    assert set(finding.cases) == {case_of(manifest, name) for name in ("grey.png", "colour.tif", "dicom.png")}


def test_a_channel_that_repeats_another(brats: Path, card, key) -> None:
    for number, (source, target) in enumerate([("t1", "flair"), ("t1", "flair"), ("t2", "t1ce")]):
        folder = brats / f"BraTS2021_{number:05d}"
        shutil.copy(folder / f"{folder.name}_{source}.nii.gz", folder / f"{folder.name}_{target}.nii.gz")
    zeros = brats / "BraTS2021_00003"
    for channel in ("t1", "t2"):
        write_volume(zeros / f"{zeros.name}_{channel}.nii.gz", np.zeros((5, 4, 3)))
    manifest = build(card("brats2021"), brats, key)
    findings = deep(manifest)
    first = found(findings, "channels t1 and flair hold the same pixels")
    assert (first.level, first.cases) == ("warning", sorted(case_of(manifest, f"0000{i}") for i in (0, 1)))
    assert found(findings, "channels t1ce and t2 hold the same pixels").cases == [case_of(manifest, "00002")]


def test_a_channel_of_a_4d_file_that_repeats_another(tmp_path: Path, key) -> None:
    write_volume(tmp_path / "p.nii.gz", np.stack([noise(0), noise(1), noise(0), noise(0)], axis=-1))
    assert found(deep(volumes(tmp_path, key)), "channels image 1, image 3 and image 4 hold the same pixels")


def test_outliers_of_spacing_and_intensity_are_told_with_what_is_usual(tmp_path: Path, key) -> None:
    for number in range(14):
        write_volume(tmp_path / f"p{number:02d}.nii.gz", noise(number), spacing=1.0 + 0.01 * number)
    write_volume(tmp_path / "coarse.nii.gz", noise(20), spacing=3.0)
    write_volume(tmp_path / "bright.nii.gz", noise(21) + 50)
    write_volume(tmp_path / "steep.nii.gz", 100 + 20 * (noise(22) - 100))
    manifest = volumes(tmp_path, key)
    findings = deep(manifest)
    spacing = found(findings, "unusual spacing")
    assert spacing.cases == [case_of(manifest, "coarse")]
    assert "1 MR volume(s)" in spacing.what
    assert "mm between slices 3" in spacing.what
    assert "mm between slices about 1.06" in spacing.expected
    intensity = found(findings, "unusual intensities of image")
    assert sorted(intensity.cases) == sorted(case_of(manifest, name) for name in ("bright", "steep"))
    few = manifest.select(patients=manifest.cases["patient_id"].to_list()[:9])
    assert not [finding for finding in deep(few) if "unusual" in finding.what]


def test_burned_in_text_that_the_header_admits(tmp_path: Path, card, key) -> None:
    for number, flag in enumerate(("YES", "NO")):
        pixels = stream("check", "burned", number).integers(0, 4096, (16, 16)).astype(np.uint16)
        write_dicom(tmp_path / f"{number}.dcm", pixels, patient_id=f"P{number}", study_uid=f"1.{number}",
                    series_uid=f"1.{number}.1", instance_uid=f"1.{number}.1.1", header={"BurnedInAnnotation": flag})
    manifest = build(card("dicom_folder"), tmp_path, key)
    finding = found(deep(manifest), "text is burned into the pixels")
    assert (finding.level, finding.cases) == ("warning", [case_of(manifest, "0.dcm")])


def test_burned_in_text_in_one_slice_of_a_volume(tmp_path: Path, card, key) -> None:
    for number, flag in enumerate(("NO", "YES", "NO")):
        pixels = stream("check", "burned", number).integers(0, 4096, (16, 16)).astype(np.uint16)
        write_dicom(tmp_path / f"{number}.dcm", pixels, patient_id="P", study_uid="1.2", series_uid="1.2.3",
                    instance_uid=f"1.2.3.{number}", modality="MR", spacing=(1, 1), position=(0, 0, number),
                    orientation=(1, 0, 0, 0, 1, 0), header={"BurnedInAnnotation": flag})
    finding = found(deep(build(card("dicom_folder"), tmp_path, key)), "text is burned into the pixels")
    assert len(finding.cases) == 1


def test_ultrasound_with_marks_outside_its_regions_or_without_regions(tmp_path: Path, card, key) -> None:
    for name, text, regions in [("clean", False, True), ("marked", True, True), ("bare", True, False)]:
        pixels = np.zeros((40, 60), np.uint16)
        pixels[12:38, 10:50] = stream("check", name).integers(0, 256, (26, 40))
        pixels[2:8, 5:55:3] = 200 if text else 0
        write_dicom(tmp_path / f"{name}.dcm", pixels, patient_id=name, study_uid="1.2", series_uid=f"1.2.{len(name)}",
                    instance_uid=f"1.2.{len(name)}.1", modality="US")
        data = dcmread(tmp_path / f"{name}.dcm")
        if regions:
            data.SequenceOfUltrasoundRegions = [Dataset()]
            data.SequenceOfUltrasoundRegions[0].update({
                "RegionSpatialFormat": 1, "RegionLocationMinX0": 10, "RegionLocationMaxX1": 49,
                "RegionLocationMinY0": 12, "RegionLocationMaxY1": 37})
        data.save_as(tmp_path / f"{name}.dcm")
    manifest = build(card("dicom_folder"), tmp_path, key)
    findings = deep(manifest)
    for words, name in [("marks lie outside the regions", "marked"), ("nothing is cropped", "bare")]:
        finding = found(findings, words)
        assert (finding.level, finding.cases) == ("warning", [case_of(manifest, f"{name}.dcm")])
        assert finding.what.startswith("1 case(s): ")


def test_a_missing_file_is_named_once_and_stops_nothing(chexpert: Path, card, key) -> None:
    manifest = build(card("chexpert"), chexpert, key)
    lost = chexpert / "train" / "patient00001" / "study1" / "view1_frontal.jpg"
    case_id = case_of(manifest, "patient00001/study1/view1")
    lost.unlink()
    facts = gather(manifest, workers=0)
    assert case_id not in facts["case_id"]
    assert facts["case_id"].n_unique() == len(manifest) - 1
    told = [finding.what for finding in check(manifest, facts) if finding.cases == [case_id]]
    assert told == ["1 file(s) are missing"]


def test_the_real_set_of_chest_films_shows_its_known_defects(real, card, key) -> None:
    findings = deep(build(card("nih_cxr"), real("cxr_nih"), key))
    assert not [finding for finding in findings if finding.level == "error"]
    found(findings, "label Pneumonia goes with view")
    assert "Hernia no positive in validation, no positive in test" in found(findings, "have one class only").what
    assert "Hernia 0.01 (10 at none)" in found(findings, "too few positive training patients").what


def test_every_real_hippocampus_can_be_opened(real, card, key) -> None:
    findings = deep(build(card("hippocampus_msd"), real("hippocampus_msd"), key))
    assert not [finding for finding in findings if finding.level == "error"]
    assert found(findings, "1 of 160 cases have no mask").level == "note"
    assert found(findings, "unusual intensities").expected.startswith("contrast about")


def test_the_seven_real_gliomas_with_a_copied_channel_are_found(real, card, key) -> None:
    manifest = build(card("glioma_lgg"), real("glioma_lgg"), key)
    known = manifest.cases.filter(pl.col("attr.repeats_flair").is_not_null())
    repeating = [finding for finding in deep(manifest) if "hold the same pixels" in finding.what]
    assert sorted(case for finding in repeating for case in finding.cases) == known["case_id"].to_list()
    assert len(known) == 7
