"""Masks by the names of their structures, from DICOM objects beside the scans to prepared cases."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
import yaml
from data_folders import skips, told_by
from dicom_masks import in_patient, positions, write_image, write_segmentation, write_structure_set

from medssl.data.build import build
from medssl.data.card import Card
from medssl.data.checks import check, gather
from medssl.data.manifest import Manifest
from medssl.data.prepare import PrepareConfig, prepare
from medssl.errors import ConfigError, ManifestError
from medssl.rng import stream

SHAPE = (5, 9, 11)
PLACES = positions(SHAPE[0])
CARD = {
    "name": "ct", "about": "x", "layout": "scan", "kind": "volume", "patient": "{patient}", "study": "{study}",
    "split": {"shares": {"train": 1}}, "structures": {1: ["tumou?r.*", "GTV"], 2: ["liver"]},
    "regions": {"lesion": [1], "organ": [1, 2]},
}
SCAN = {"kind": "volume", "intensity": "window", "window": (0, 100)}


def read(folder: Path, **changes: object) -> Manifest:
    return build(Card.from_yaml(yaml.safe_dump({**CARD, **changes}, sort_keys=False)), folder, bytes(range(32)))


def blob(name: str) -> np.ndarray:
    return stream("structures", name).random(SHAPE) < 0.3


def write_scan(folder: Path, number: int, **more: object) -> str:
    """A series of its own patient and study; returns its UID."""
    series = f"1.2.{number}"
    write_image(folder / f"{number}", np.full(SHAPE, 50), PLACES, series=series, study=f"1.1.{number}",
                patient=f"P{number}", frame=f"1.9.{number}", **more)
    return series


def write_mask(path: Path, number: int, masks: dict[str, np.ndarray]) -> None:
    frames = [(n, PLACES[k], mask[k]) for n, mask in enumerate(masks.values(), start=1) for k in range(SHAPE[0])]
    write_segmentation(path, frames, list(masks), series=f"1.2.{number}", frame=f"1.9.{number}")


def prepared_masks(manifest: Manifest, root: Path, **config: object) -> dict[str, np.ndarray]:
    """{folder of the scan: its prepared mask (K, J, I)}."""
    cache, _ = prepare(manifest, root, PrepareConfig(**config), workers=0)
    masked = manifest.cases.filter("has_mask")["case_id"]
    return {manifest.paths(case)["image"].name: cache.mask(case) for case in masked}


def test_segmentations_and_structure_sets_find_their_scans_wherever_they_lie(tmp_path: Path) -> None:
    pacs, masks = tmp_path / "pacs", {name: blob(name) for name in ("Tumor of Mrs Miller", "liver", "spine")}
    for number in (1, 2, 3):
        write_scan(pacs, number)
    write_mask(pacs / "elsewhere" / "seg.dcm", 1, masks)
    square = np.array([(1.5, 1.5), (5.5, 1.5), (5.5, 5.5), (1.5, 5.5)])
    write_structure_set(pacs / "rt.dcm", {"gtv": [in_patient(square, PLACES[2])]}, series="1.2.2", frame="1.9.2")
    manifest = read(pacs)
    assert manifest.cases["has_mask"].sum() == 2
    assert skips(manifest) == {"structure that no name under the card's `structures` fits": 1}
    found = prepared_masks(manifest, tmp_path / "cache")
    expected = np.where(masks["Tumor of Mrs Miller"], 1, np.where(masks["liver"], 2, 0))
    flipped = expected[:, ::-1, ::-1]  # DICOM counts to the left and back, a prepared case to the right and front
    np.testing.assert_array_equal(found["1"], flipped)
    assert (found["2"] == 1).sum() == 16
    assert not [one.what for one in check(manifest, gather(manifest, workers=0)) if one.level == "error"]
    manifest.save(tmp_path / "out" / "m.parquet")
    assert not told_by(tmp_path / "out", "Miller")
    assert not told_by(tmp_path / "out", "1.2.1")
    assert Manifest.load(tmp_path / "out" / "m.parquet").card == manifest.card


def test_what_belongs_to_no_scan_or_cannot_be_told_apart_is_listed_and_leaves_its_scan_unlabelled(tmp_path) -> None:
    for number in (1, 2, 3, 4):
        write_scan(tmp_path, number)
    write_mask(tmp_path / "none.dcm", 1, {"spine": blob("a"), "ribs": blob("b")})
    write_mask(tmp_path / "gone.dcm", 9, {"GTV": blob("a")})
    for reader in "ab":
        write_mask(tmp_path / f"reader_{reader}.dcm", 2, {"GTV": blob(reader)})
    write_mask(tmp_path / "tumour.dcm", 3, {"GTV": blob("a")})
    write_mask(tmp_path / "liver.dcm", 3, {"Liver": blob("b")})  # two files, and each value from one of them
    for k, place in enumerate(PLACES):  # a second stack in the series of scan 4
        write_image(tmp_path / "4b", np.zeros((1, *SHAPE[1:])), [place + 100], series="1.2.4", study="1.1.4",
                    patient="P4", frame="1.9.4", spacing=(1.4, 1.0), header={"SOPInstanceUID": f"1.2.4.9{k}"})
        (tmp_path / "4b" / "1.2.4.0.dcm").rename(tmp_path / "4b" / f"{k}.dcm")
    write_mask(tmp_path / "which.dcm", 4, {"GTV": blob("a")})
    manifest = read(tmp_path)
    assert skips(manifest) == {
        "mask with none of the card's structures": 1, "mask of a scan that is not here": 1,
        "mask that draws the same structure of a scan as another": 2,
        "mask of a series that holds several scans, so that nobody can tell whose it is": 1,
        "structure that no name under the card's `structures` fits": 2,
    }
    (masked,) = manifest.cases.filter("has_mask")["case_id"]
    assert [path.name for path in manifest.all_paths(masked)["mask"]] == ["liver.dcm", "tumour.dcm"]
    assert set(np.unique(prepared_masks(manifest, tmp_path / "cache")["3"])) == {0, 1, 2}


def test_a_pattern_or_table_leads_to_a_dicom_mask_as_to_any_other(tmp_path: Path) -> None:
    from medssl.io.write import write_nifti

    folder = tmp_path / "in"
    affine = np.diag([-0.5, -0.7, 2.0, 1.0])
    affine[:3, 3] = 10.0, -5.0, 7.0
    for case in "abc":
        write_nifti(folder / case / "ct.nii.gz", np.full(SHAPE, 50, np.int16), affine)
    masks = {"GTV": blob("a"), "spine": blob("b")}
    write_mask(folder / "a" / "seg.dcm", 1, masks)
    write_mask(folder / "b" / "seg.dcm", 1, {"spine": blob("a")})
    (folder / "c" / "seg.dcm").write_text("no DICOM")
    manifest = read(folder, layout="pattern", modality="CT", files={"image": "{case}/ct.nii.gz"},
                    mask="{case}/seg.dcm", patient="{case}", study=None)
    assert skips(manifest) == {
        "mask with none of the card's structures": 1,
        "mask that is no DICOM segmentation or structure set, as `structures` are for": 1,
        "structure that no name under the card's `structures` fits": 2,
    }
    (found,) = prepared_masks(manifest, tmp_path / "cache").values()
    np.testing.assert_array_equal(found, masks["GTV"][:, ::-1, ::-1])


def test_the_mask_of_a_study_is_the_first_channels(tmp_path: Path) -> None:
    for name, series in (("FLAIR", "1.2.1"), ("T1", "1.2.2")):
        write_image(tmp_path / name, np.full(SHAPE, 50), PLACES, series=series, modality="MR", frame="1.9.1",
                    header={"SeriesDescription": name})
    write_mask(tmp_path / "seg.dcm", 1, {"GTV": blob("a")})
    channels = {name: {"description": name} for name in ("flair", "t1")}
    manifest = read(tmp_path, channels=channels)
    assert manifest.cases["has_mask"].to_list() == [True]
    assert list(manifest.all_paths(manifest.cases["case_id"][0])) == ["flair", "t1", "mask"]
    other = read(tmp_path, channels=dict(reversed(channels.items())))
    assert other.cases["has_mask"].to_list() == [False]
    assert skips(other) == {"mask drawn on another channel than the first": 1}


def test_other_structures_make_another_sample_of_the_same_files(tmp_path: Path) -> None:
    write_scan(tmp_path / "in", 1)
    write_mask(tmp_path / "in" / "seg.dcm", 1, {"GTV": blob("a"), "liver": blob("b")})
    both = prepared_masks(read(tmp_path / "in"), tmp_path / "cache")["1"]
    only = read(tmp_path / "in", structures={2: ["liver"]}, regions={})
    assert set(np.unique(both)) == {0, 1, 2}
    assert set(np.unique(prepared_masks(only, tmp_path / "cache")["1"])) == {0, 2}


def test_phases_of_one_multi_frame_file_are_cases_of_their_own(tmp_path: Path) -> None:
    from pydicom import dcmread
    from pydicom.dataset import Dataset

    def item(**attributes: object) -> list[Dataset]:
        made = Dataset()
        for keyword, value in attributes.items():
            setattr(made, keyword, value)
        return [made]

    frames = stream("structures", "phases").integers(0, 100, (2, 3, 6, 7)).astype(np.int16)  # (T, K, J, I)
    write_image(tmp_path / "in", frames[0, :1], PLACES[:1], modality="MR")
    (path,) = (tmp_path / "in").iterdir()
    data = dcmread(path)
    data.SOPClassUID = data.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.4.1"
    for keyword in ("RescaleSlope", "RescaleIntercept"):
        data.pop(keyword, None)
    data.NumberOfFrames, data.PixelData = 6, frames.tobytes()
    data.SharedFunctionalGroupsSequence = item(PixelMeasuresSequence=item(PixelSpacing=[0.7, 0.5], SliceThickness=2))
    data.PerFrameFunctionalGroupsSequence = [item(
        PlanePositionSequence=item(ImagePositionPatient=[0.0, 0.0, 2.0 * k]),
        PlaneOrientationSequence=item(ImageOrientationPatient=[1, 0, 0, 0, 1, 0]),
        FrameContentSequence=item(TemporalPositionIndex=t + 1, StackID="1", InStackPositionNumber=k + 1),
    )[0] for t in range(2) for k in range(3)]
    data.save_as(path)

    manifest = read(tmp_path / "in", structures={}, regions={})
    manifest.save(tmp_path / "m.parquet")
    manifest = Manifest.load(tmp_path / "m.parquet")
    cache, _ = prepare(manifest, tmp_path / "cache", PrepareConfig(intensity="window", window=(0, 100)), workers=0)
    found = sorted((cache.array(case)[0] * 100.0).round().sum() for case in manifest.cases["case_id"])
    assert found == pytest.approx(sorted(frames.sum(axis=(1, 2, 3))), rel=1e-2)
    assert len(found) == 2
    clips = read(tmp_path / "in", structures={}, regions={}, kind=None, time="clips")
    assert clips.cases["kind"].to_list() == ["cine"] * 3


def test_a_files_table_of_an_older_version_is_refused_by_name(tmp_path: Path) -> None:
    write_scan(tmp_path / "in", 1)
    read(tmp_path / "in").save(tmp_path / "m.parquet")
    place = tmp_path / "m.files.parquet"
    pl.read_parquet(place).drop("part").write_parquet(place)
    with pytest.raises(ManifestError, match="older medssl"):
        Manifest.load(tmp_path / "m.parquet")

def test_without_structures_masks_are_skipped_as_ever(tmp_path: Path) -> None:
    write_scan(tmp_path, 1)
    write_mask(tmp_path / "seg.dcm", 1, {"GTV": blob("a")})
    manifest = read(tmp_path, structures={}, regions={})
    assert (manifest.cases["has_mask"].to_list(), skips(manifest)) == (
        [False], {"No acquired image: Segmentation Storage": 1})


@pytest.mark.parametrize(("changes", "message"), [
    ({"structures": {}}, "`regions` without a `mask` or `structures`"),
    ({"structures": {0: ["x"]}}, "greater than 0"),
    ({"structures": {256: ["x"]}}, "less than or equal to 255"),
    ({"structures": {1: []}}, "at least 1 item"),
    ({"structures": {1: ["("]}}, "no regular expression"),
    ({"structures": {1: ["x"]}}, "`regions` hold the value 2"),
    ({"kind": "image"}, "`structures` lie in volumes"),
    ({"layout": "pattern", "modality": "CT", "files": {"image": "{case}.nii"}}, "`structures` without a `mask`"),
])
def test_mistakes_are_named(changes: dict, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        Card.from_yaml(yaml.safe_dump({**CARD, **changes}, sort_keys=False))
    assert message in str(error.value)
