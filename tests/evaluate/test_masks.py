"""medssl.evaluate.masks: what a segmentation drew, in files that others read, on the voxels of the input."""

from __future__ import annotations

from pathlib import Path

import highdicom
import nibabel
import numpy as np
import polars as pl
import pydicom
import pytest
from dicom_masks import oblique, positions, write_image
from PIL import Image
from small_sets import SMALL, make

from medssl import open_scan
from medssl.data.decode import decode
from medssl.data.files import Files
from medssl.data.prepare import prepare
from medssl.data.source import Data, DataConfig, open_data
from medssl.errors import ConfigError
from medssl.evaluate.masks import label_values, painted, write_masks
from medssl.evaluate.single import predict_run
from medssl.io import open_mask
from medssl.io.geometry import to_canonical
from medssl.io.write import write_dicom, write_nifti
from medssl.metrics.segment import dice
from medssl.train.finetune import FinetuneConfig, finetune

BRATS = {"WT": [1, 2, 4], "TC": [1, 4], "ET": [4]}


class Pen:
    """A task that draws where its output is above 0."""

    names, regions = tuple(BRATS), BRATS

    def drawn(self, output: np.ndarray) -> np.ndarray:
        return output > 0


def opened(folder: Path, prepared: dict, **card) -> Data:
    make(folder / "in", **card).save(folder / "m.parquet")
    config = DataConfig.model_validate({"manifest": folder / "m.parquet", "cache": folder / "cache",
                                        "prepare": prepared})
    prepare(open_data(config).manifest, config.cache, config.prepare, workers=0)
    return open_data(config)


def balls(shape: tuple[int, ...]) -> dict[str, np.ndarray]:
    """BraTS's nested regions, one within the other, off the centre."""
    grid = np.meshgrid(*(np.arange(n) - 0.45 * n for n in shape), indexing="ij")
    radius = np.sqrt(sum((axis / n) ** 2 for axis, n in zip(grid, shape, strict=True)))
    return {name: radius < r for name, r in zip(BRATS, (0.35, 0.25, 0.15), strict=True)}


def logits(regions: dict[str, np.ndarray]) -> np.ndarray:
    return np.stack(list(regions.values())) * 8.0 - 4


def test_values_are_the_files_own_whichever_way_round_regions_are_named():
    assert label_values(BRATS) == {"WT": 2, "TC": 1, "ET": 4}
    assert label_values(dict(reversed(BRATS.items()))) == label_values(BRATS)
    assert label_values({"liver": [1], "spleen": [2]}) == {"liver": 1, "spleen": 2}
    assert label_values({"all": [1, 2], "a": [1], "b": [2]}) == {"all": 1, "a": 1, "b": 2}


def test_painting_gives_back_the_file_that_the_regions_were_read_from():
    mask = np.array([[0, 1, 2], [4, 4, 0]], np.uint8)
    drawn = {name: np.isin(mask, values) for name, values in BRATS.items()}
    np.testing.assert_array_equal(painted(drawn, BRATS), mask)


def test_a_volume_becomes_a_label_map_on_its_own_voxels(tmp_path):
    affine = np.array([[0, -1.2, 0, 9], [0.9, 0, 0, -4], [0, 0, -2.0, 31], [0, 0, 0, 1]])
    image = np.zeros((32, 56, 60), np.float32)
    image[2:30, 3:52, 2:57] = 1 + np.arange(28)[:, None, None]
    write_nifti(tmp_path / "in/a.nii.gz", image, affine)
    data = opened(tmp_path, {"margin": 1, "spacing": [1.5, 1, 1]}, kind="volume", files={"t1": "{case}.nii.gz"})
    [case] = data.cases["case_id"]
    regions = balls(data.cache.shape(case)[1:])
    path = write_masks(tmp_path / "masks", case, logits(regions), Pen(), data)
    assert path == tmp_path / f"masks/{case}.nii.gz"
    assert path.stat().st_mode & 0o777 == 0o600
    written = nibabel.load(path)
    np.testing.assert_allclose(written.affine, affine, atol=1e-6)
    assert written.shape == image.T.shape
    assert written.get_data_dtype() == np.uint8
    assert set(np.unique(written.dataobj)) == {0, 1, 2, 4}
    files = Files("volume", ("t1",), {"t1": (tmp_path / "in/a.nii.gz",), "mask": (path,)})
    mask = decode(case, files, data.config.prepare).mask
    for name, values in BRATS.items():
        assert dice(np.isin(mask, values), regions[name]) > 0.95


def test_a_dicom_series_becomes_a_dicom_segmentation_that_refers_to_it(tmp_path):
    orientation, volume = oblique(25), np.arange(12 * 20 * 24).reshape(12, 20, 24) % 2000
    write_image(tmp_path / "in/a", volume, positions(12, orientation=orientation), orientation=orientation,
                header={"PatientName": "Doe^Jane", "Manufacturer": "Maker"})
    data = opened(tmp_path, {}, layout="scan", modality=None, patient="{patient}")
    [case] = data.cases["case_id"]
    regions = balls((12, 20, 24))
    path = write_masks(tmp_path / "masks", case, logits(regions), Pen(), data)
    assert path == tmp_path / f"masks/{case}.dcm"
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.read_bytes()[:128] == bytes(128)
    written = pydicom.dcmread(path)
    assert [segment.SegmentLabel for segment in written.SegmentSequence] == list(BRATS)
    assert {segment.SegmentAlgorithmType for segment in written.SegmentSequence} == {"AUTOMATIC"}
    assert written.ReferencedSeriesSequence[0].SeriesInstanceUID == "1.2.3"
    assert (written.PatientID, written.PatientName, written.StudyInstanceUID) == ("P1", "Doe^Jane", "1.2")
    assert written.FrameOfReferenceUID == "1.9"
    scan = open_scan(tmp_path / "in/a")
    found = highdicom.seg.segread(path).get_volume(combine_segments=False)  # (k, j, i, segment), affine to LPS+ mm
    voxels = np.linalg.inv(scan.affine) @ np.diag([-1.0, -1, 1, 1]) @ found.affine[:, [2, 1, 0, 3]]
    for number, (name, region) in enumerate(regions.items()):
        drawn = open_mask([path], {1: [name]}, scan, tmp_path / "in/a/1.2.3.0.dcm").array[0] > 0
        np.testing.assert_array_equal(to_canonical(drawn, scan.affine)[0], region)
        places = np.argwhere(found.array[..., number])[:, ::-1]
        theirs = np.column_stack([places, np.ones(len(places))]) @ voxels.T
        np.testing.assert_allclose(theirs[:, 2::-1][np.lexsort(theirs[:, :3].round().T)], np.argwhere(drawn), atol=1e-3)


def test_an_x_ray_becomes_a_dicom_segmentation_of_one_frame(tmp_path):
    picture = np.arange(40 * 50, dtype=np.uint16).reshape(40, 50)
    write_dicom(tmp_path / "in/a.dcm", picture, patient_id="P", study_uid="1.2", series_uid="1.3", instance_uid="1.4",
                spacing=(0.2, 0.2))
    data = opened(tmp_path, {"size": [40, 50]}, kind="image", files={"image": "{case}.dcm"})
    [case] = data.cases["case_id"]
    regions = balls((40, 50))
    path = write_masks(tmp_path / "masks", case, logits(regions), Pen(), data)
    frames = pydicom.dcmread(path).pixel_array
    np.testing.assert_array_equal(frames.astype(bool), np.stack(list(regions.values())))


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_mask_lies_on_its_image_for_viewers_that_follow_exif_and_for_those_that_do_not(tmp_path, orientation, name):
    bright, exif = balls((24, 36))["WT"], Image.Exif()
    exif[0x0112] = orientation
    (tmp_path / "in").mkdir()
    Image.fromarray(np.where(bright, 200, 20).astype(np.uint8)).save(tmp_path / "in" / name, exif=exif)
    data = opened(tmp_path, {}, kind="image", files={"image": f"{{case}}{name[1:]}"})
    [case] = data.cases["case_id"]
    seen = data.cache.read(case).array
    seen = seen > (seen.min() + seen.max()) / 2
    path = write_masks(tmp_path / "masks", case, np.repeat(seen, 3, axis=0) * 8.0 - 4, Pen(), data)
    np.testing.assert_array_equal(np.asarray(Image.open(path)) > 0, bright)
    np.testing.assert_array_equal(open_scan(path).array > 0, seen)


def test_a_run_draws_on_pictures_of_their_own_size(discs, tmp_path):
    config = FinetuneConfig.model_validate({
        "data": discs, "task": {"name": "segment"}, "encoder": SMALL["encoder"], "augment": SMALL["augment"],
        "train": {**SMALL["train"], "steps": 40, "optim": {"lr": 0.02}}})
    run = finetune(config, tmp_path / "run")
    table = predict_run(run, discs.manifest, tmp_path / "masks")
    for case, voxels in table.select("case_id", "prediction").head(5).iter_rows():
        labels = np.asarray(Image.open(tmp_path / f"masks/{case}.png"))
        assert labels.shape == (24, 24)
        assert (labels == 1).sum() == voxels
    assert table["prediction"].max() > 0
    assert sorted(path.stem for path in (tmp_path / "masks").iterdir()) == sorted(table["case_id"])


def test_a_task_that_draws_nothing_is_refused(discs, tmp_path):
    config = FinetuneConfig.model_validate({
        "data": discs, "task": {"name": "regress", "label": "Radius"}, "encoder": SMALL["encoder"],
        "train": {**SMALL["train"], "steps": 1}})
    with pytest.raises(ConfigError, match="task.name=regress"):
        predict_run(finetune(config, tmp_path / "run"), discs.manifest, tmp_path / "masks")
    assert not (tmp_path / "masks").exists()


def test_a_case_that_cannot_be_put_back_is_named_and_the_others_are_written(discs, tmp_path, caplog, monkeypatch):
    config = FinetuneConfig.model_validate({"data": discs, "task": {"name": "segment"}, "encoder": SMALL["encoder"],
                                            "train": {**SMALL["train"], "steps": 1}})
    run, [lost, *others] = finetune(config, tmp_path / "run"), open_data(discs).cases["case_id"].to_list()

    def failing(folder, case_id, *rest):
        if case_id == lost:
            raise ConfigError("It will not go back")
        return write_masks(folder, case_id, *rest)

    monkeypatch.setattr("medssl.evaluate.single.write_masks", failing)
    assert pl.Series(predict_run(run, discs.manifest, tmp_path / "masks")["case_id"]).n_unique() == 1 + len(others)
    assert f"no masks of {lost}: It will not go back" in caplog.text
    assert {path.stem for path in (tmp_path / "masks").iterdir()} == set(others)
