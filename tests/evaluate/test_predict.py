"""medssl.evaluate.predict: several looks at a case, sliding windows, and nothing random."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from small_sets import SMALL, make
from torch import Tensor, nn

from medssl.augment.policy import PolicyConfig
from medssl.data.prepare import PrepareConfig, prepare
from medssl.data.source import Data, DataConfig, open_data
from medssl.errors import ManifestError
from medssl.evaluate.examples import Drawn, Ranked
from medssl.evaluate.predict import outputs, predict
from medssl.io.write import write_avi, write_nifti, write_png
from medssl.rng import stream
from medssl.tasks import LabelledModel, Segment
from medssl.train.build import labelled_model
from medssl.train.features import pixels, pooled_features
from medssl.train.finetune import FinetuneConfig
from medssl.types import Features

RAW = {"intensity": "window", "window": [0, 1]}


class Mean(nn.Module):
    """An encoder whose pooled feature is the mean grey value, and whose only map is the picture itself."""

    def forward(self, x: Tensor) -> Features:
        return Features(maps=[x], pooled=x.flatten(1).mean(1, keepdim=True))


class Itself(nn.Module):
    """A task that says what the encoder says: the mean, or (dense) twice each voxel less a half."""

    def __init__(self, dense: bool) -> None:
        super().__init__()
        self.needs_mask, self.config = dense, Segment.Config()

    def outputs(self, features: Features, size: tuple[int, ...]) -> Tensor:
        return 2 * features.maps[0] - 0.5 if self.needs_mask else features.pooled


def model_of(dense: bool = False) -> LabelledModel:
    return LabelledModel(Mean(), Itself(dense))


def opened(folder: Path, box: dict, prepared: dict, **card) -> Data:
    manifest = make(folder / "in", **card)
    manifest.save(folder / "m.parquet")
    config = DataConfig.model_validate({"manifest": folder / "m.parquet", "cache": folder / "cache", "box": box,
                                        "prepare": prepared})
    prepare(manifest, config.cache, config.prepare, workers=0)
    return open_data(config)


def clips(folder: Path, frames: int, box: dict) -> tuple[Data, np.ndarray]:
    """One clip whose frame t is grey t²; its frames' values."""
    values = np.arange(frames, dtype=np.uint8) ** 2
    write_avi(folder / "in/a.avi", np.broadcast_to(values[:, None, None], (frames, 16, 16)).copy(), 20, "ffv1")
    return opened(folder, box, {"intensity": "range"}, kind="cine", files={"image": "{case}.avi"}), values / 255


def said(data: Data, dense: bool = False, **kwargs) -> list[np.ndarray]:
    return [output for _, output, _ in outputs(model_of(dense), data, data.cases, PolicyConfig(), "float32", **kwargs)]


@pytest.mark.parametrize(("box", "starts", "step"), [
    ({"size": [4, 16, 16]}, (0, 2, 4, 6), 1), ({"size": [3, 16, 16], "period": 2}, (0, 2, 3, 5), 2),
])
def test_a_clip_longer_than_the_box_is_looked_at_four_times(tmp_path, box, starts, step):
    data, grey = clips(tmp_path, 10, box)
    frames = box["size"][0]
    looks = [grey[start : start + step * frames : step].mean() for start in starts]
    np.testing.assert_allclose(said(data), [[np.mean(looks)]], atol=1e-3)
    np.testing.assert_allclose(pooled_features(Mean(), data, data.cases, PolicyConfig(), "float32"),
                               [[np.mean(looks)]], atol=1e-3)


@pytest.mark.parametrize(("judged", "starts"), [("all", range(7)), (1, (3,)), (2, (0, 6))])
def test_a_clip_is_looked_at_as_often_as_the_recipe_says(tmp_path, judged, starts):
    data, frames = clips(tmp_path, 10, {"size": [4, 16, 16], "judged": judged})
    (found,) = said(data)
    assert found[0] == pytest.approx(np.mean([frames[start : start + 4].mean() for start in starts]), abs=2e-3)


def test_every_frame_s_clip_is_the_middle_of_its_plane_and_none_is_a_corner(tmp_path):
    for number, frames in enumerate((3, 5)):
        place = tmp_path / str(number)
        array = np.zeros((frames, 24, 24), np.uint8)
        array[:, 8:16, 8:16] = 200
        write_avi(place / "in/a.avi", array, 20, "ffv1")
        data = opened(place, {"size": [3, 8, 8], "judged": "all"}, {"intensity": "range"}, kind="cine",
                      files={"image": "{case}.avi"})
        corner = number == 0 and said(data)[0][0] < 0.1
        assert not corner
        if number:
            assert said(data)[0][0] == pytest.approx(200 / 255, abs=0.02)


def test_a_clip_that_fits_is_looked_at_once_and_whole(tmp_path):
    data, grey = clips(tmp_path, 10, {})
    np.testing.assert_allclose(said(data), [[grey.mean()]], atol=1e-3)


def test_a_short_clip_is_filled_up_as_in_training(tmp_path):
    data, grey = clips(tmp_path, 5, {"size": [10, 16, 16]})
    np.testing.assert_allclose(said(data), [[grey.sum() / 10]], atol=1e-3)


def volumes(folder: Path, box: dict, count: int = 1) -> Data:
    for number in range(count):
        array = stream("volumes", number).random((7, 20, 24)).astype(np.float32)
        array += np.arange(7, dtype=np.float32)[:, None, None]
        write_nifti(folder / f"in/{number}/t1.nii.gz", array / 8, np.eye(4))
        write_nifti(folder / f"in/{number}/seg.nii.gz", (array > 5).astype(np.uint8), np.eye(4))
    return opened(folder, box, RAW, kind="volume", files={"t1": "{case}/t1.nii.gz"}, mask="{case}/seg.nii.gz",
                  regions={"high": [1]})


def test_slices_are_looked_at_evenly_through_the_volume(tmp_path):
    data = volumes(tmp_path, {"planar": True})
    array = data.cache.array(data.cases["case_id"][0])[0].astype(np.float32)
    np.testing.assert_allclose(said(data), [[array[[1, 2, 4, 5]].mean()]], atol=1e-4)


@pytest.mark.parametrize("box", [{"planar": True}, {"planar": True, "size": [16, 16]}, {"size": [4, 16, 16]},
                                 {"size": [7, 32, 32]}, {}])
def test_windows_put_every_voxel_back_in_its_place(tmp_path, box):
    data = volumes(tmp_path, box)
    [(case, found, mask)] = outputs(model_of(dense=True), data, data.cases, PolicyConfig(), "float32", batch_size=3)
    array = data.cache.array(data.cases["case_id"][0]).astype(np.float32)
    np.testing.assert_allclose(found, 2 * array - 0.5, atol=1e-5)
    np.testing.assert_array_equal(mask, data.cache.mask(data.cases["case_id"][0]))
    assert case["spacing"] == (1, 1, 1)


class Count(Itself):
    """Counts the windows that it is shown."""

    def outputs(self, features: Features, size: tuple[int, ...]) -> Tensor:
        self.windows = getattr(self, "windows", 0) + len(features.maps[0])
        return super().outputs(features, size)


def test_windows_overlap_as_the_task_says(tmp_path):
    data, counts = volumes(tmp_path, {"size": [7, 8, 8]}), []
    for overlap in (0, 0.25, 0.5):
        model = model_of(dense=True)
        model.task = Count(dense=True)
        model.task.config = Segment.Config(overlap=overlap)
        list(outputs(model, data, data.cases, PolicyConfig(), "float32"))
        counts.append(model.task.windows)
    assert counts == [3 * 3, 3 * 4, 4 * 5]  # of 20 × 24 voxels: a step of 8, 6 and 4


def test_a_window_that_covers_the_case_is_a_plain_forward(discs):
    config = FinetuneConfig.model_validate({"data": discs, "task": {"name": "segment"}, "encoder": SMALL["encoder"]})
    data = open_data(discs)
    model = labelled_model(config.task, config.encoder, data, config.augment).eval()
    cases = data.cases.head(3)
    for case, found, _ in outputs(model, data, cases, PolicyConfig(), "float32"):
        image = torch.from_numpy(data.cache.array(case["case_id"]).astype(np.float32))[None]
        with torch.no_grad():
            expected = model.task.outputs(model.encoder(image), (24, 24))[0]
        torch.testing.assert_close(torch.from_numpy(found), expected, atol=1e-5, rtol=1e-4)


def test_predictions_do_not_depend_on_batches_and_carry_attributes(discs):
    config = FinetuneConfig.model_validate({
        "data": discs, "task": {"name": "classify", "labels": ["Bright", "Vague"]}, "encoder": SMALL["encoder"],
        "augment": {"size": [16, 16], "spatial": {"scale": [0.3, 0.5], "flip": {"i": 0.5}},
                    "intensity": [{"name": "jitter", "brightness": 0.5, "contrast": 0.5}]}})
    data = open_data(discs)
    model = labelled_model(config.task, config.encoder, data, config.augment)
    cases = data.cases.filter(pl.col("split") == "test")
    first = predict(model, data, cases, config.augment, "float32", batch_size=64)
    again = predict(model, data, cases.reverse(), config.augment, "float32", batch_size=5)
    assert first.columns == ["case_id", "patient_id", "name", "target", "prediction", "attr.view"]
    key = ["case_id", "name"]
    joined = first.join(again, on=key, suffix="_again")
    np.testing.assert_allclose(joined["prediction"], joined["prediction_again"], atol=1e-6)
    truth = cases.select("case_id", pl.col("label.Vague")).filter(pl.col("label.Vague").is_in([0.0, 1.0]))
    vague = first.filter(pl.col("name") == "Vague")
    assert sorted(vague.select("case_id", "target").rows()) == sorted(truth.rows())
    assert len(first.filter(pl.col("name") == "Bright")) == 24
    assert dict(first.select("case_id", "attr.view").rows()) == dict(cases.select("case_id", "attr.view").rows())


def test_pixels_are_the_shrunk_picture(discs):
    data = open_data(discs)
    found = pixels(data, data.cases.head(2), 4)
    image = data.cache.array(data.cases["case_id"][1])[0].astype(np.float32)
    np.testing.assert_allclose(found[1], image.reshape(4, 6, 4, 6).mean(axis=(1, 3)).ravel(), rtol=1e-3)


def test_pictures_of_different_size_say_what_to_mend(tmp_path):
    for side in (8, 12):
        write_png(tmp_path / f"in/{side}.png", np.zeros((side, side), np.uint8))
    data = opened(tmp_path, {}, PrepareConfig().model_dump(), kind="image", files={"image": "{case}.png"})
    with pytest.raises(ManifestError, match="Cases differ in shape.*data.prepare.size"):
        said(data)


class Drawing(Itself):
    """Draws a voxel into the region `high` where it is above 5/8."""

    regions = {"high": [1]}

    def drawn(self, output: np.ndarray) -> np.ndarray:
        return output > 2 * 5 / 8 - 0.5


def test_examples_show_the_fullest_slice_of_cases_of_any_size(tmp_path):
    for number, size in enumerate([(3, 16, 20), (4, 20, 16)]):
        array, mask = np.zeros(size, np.float32), np.zeros(size, np.uint8)
        array[2, 4:8, 4:9], mask[2, 4:8, 4:8], mask[1, 0, 0] = 0.9, 1, 1
        write_nifti(tmp_path / f"in/{number}/t1.nii.gz", array, np.eye(4))
        write_nifti(tmp_path / f"in/{number}/seg.nii.gz", mask, np.eye(4))
    data = opened(tmp_path, {"planar": True, "size": [16, 16]}, RAW, kind="volume", files={"t1": "{case}/t1.nii.gz"},
                  mask="{case}/seg.nii.gz", regions={"high": [1]})
    model = model_of(dense=True)
    model.task = Drawing(dense=True)
    drawn, dice = Drawn(model, data, data.cases), {}
    for case, output, mask in outputs(model, data, data.cases, PolicyConfig(), "float32"):
        drawn.keep(case, output, mask)
        dice[case["case_id"]] = float(len(dice))
    predictions = pl.DataFrame({"case_id": list(dice), "name": "high", "target": 1.0,
                                "prediction": list(dice.values())})
    drawn.save(tmp_path / "examples/arm.npz", predictions)
    kept = np.load(tmp_path / "examples/arm.npz")
    assert kept["image"].shape == (2, 20, 20)
    assert [int(kept[name].sum()) for name in ("truth", "prediction")] == [2 * 16, 2 * 20]
    assert (kept["truth"][:, 4:8, 4:8] == 1).all()
    assert kept["score"].tolist() == [dice[case_id] for case_id in sorted(dice)]


def test_the_best_the_median_and_the_worst_case_are_kept_with_what_was_said_of_them(discs, tmp_path):
    data = open_data(discs)
    cases = data.training["case_id"].sort().head(11).to_list()
    bright = pl.DataFrame({"case_id": cases, "patient_id": cases, "name": "Bright", "target": [1.0] * 6 + [0.0] * 5,
                           "prediction": [0.9, 0.99, 0.8, 0.7, 0.65, 0.6, 0.42, 0.9, 0.44, 0.46, 0.48]})
    of_one = pl.col("case_id").is_in(cases[:5])
    rare = bright.with_columns(name=pl.lit("Rare"), prediction=0.5, target=of_one.cast(pl.Float64),
                               patient_id=pl.when(of_one).then(pl.lit(cases[0])).otherwise("patient_id"))
    Ranked(data, "classify").save(tmp_path / "arm.npz", pl.concat([bright, rare]))
    kept = np.load(tmp_path / "arm.npz")
    assert kept["told"].tolist() == ["Bright: 0.99, truth 1", "Bright: 0.60, truth 1", "Bright: 0.90, truth 0"], \
        "and nothing of what one patient has"
    expected = [data.cache.array(cases[place])[0] for place in (1, 5, 7)]
    np.testing.assert_array_equal(kept["image"], np.stack(expected).astype(np.float16))
    radius = pl.DataFrame({"case_id": cases[:5], "name": "Radius", "target": [5.0, 6, 7, 4, 3],
                           "prediction": [5.5, 6, 4, 4.1, 3.3]})
    Ranked(data, "regress").save(tmp_path / "other.npz", radius)
    assert np.load(tmp_path / "other.npz")["told"].tolist() == [
        "Radius: 6.0, truth 6", "Radius: 3.3, truth 3", "Radius: 4.0, truth 7"]


def test_a_study_is_judged_once_and_one_of_its_images_is_shown(discs: DataConfig, tmp_path: Path):
    data = open_data(discs)
    cases = data.cases.with_columns(study_id=pl.col("patient_id"))
    recipe = FinetuneConfig.model_validate({**{k: v for k, v in SMALL.items() if k != "objective"}, "data": discs,
                                            "task": {"name": "classify", "labels": ["Bright"]}})
    torch.manual_seed(0)
    model = labelled_model(recipe.task, recipe.encoder, data, recipe.augment)
    by_image = predict(model, data, cases, recipe.augment, "float32")
    model.task.config = recipe.task.model_copy(update={"scored_by": "study"})
    by_study = predict(model, data, cases, recipe.augment, "float32")
    expected = {}
    for (patient,), rows in by_image.group_by("patient_id"):
        if rows["target"].n_unique() == 1:
            expected[patient] = (rows["target"][0], rows["prediction"].mean())
    assert 10 < len(expected) < 40
    rows = by_study.select("case_id", "target", "prediction").iter_rows()
    assert {case_id: row for case_id, *row in rows} == {
        patient: [target, pytest.approx(said)] for patient, (target, said) in expected.items()}
    assert set(by_study["attr.view"]) == {"A + B"}
    shown = replace(data, cases=cases)
    Ranked(shown, "classify").save(tmp_path / "shown.npz", by_study)
    assert np.load(tmp_path / "shown.npz")["image"].shape == (3, 24, 24)
