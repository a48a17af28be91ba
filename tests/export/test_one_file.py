"""A run as one file: it predicts, starts and encodes as its folder does, and holds no more than that needs."""

from __future__ import annotations

import json
import shutil
import stat
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import safetensors.torch
import torch
from small_sets import write_discs

from medssl import find_scans, load_encoder, prepare_scan
from medssl.data.manifest import Manifest
from medssl.data.pseudonym import pseudonym
from medssl.data.source import open_data
from medssl.errors import AmbiguousSeries, ConfigError, LeakageError, MedsslError, RunError
from medssl.evaluate.single import evaluate_elsewhere, predict_run
from medssl.export.one_file import write_file
from medssl.io.write import write_dicom, write_nifti
from medssl.models.start import open_start
from medssl.rng import stream


@pytest.fixture(scope="module")
def files(runs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """{name of a run: its one file}."""
    root = tmp_path_factory.mktemp("files")
    for name, run in runs.items():
        write_file(run, root / f"{name}.medssl")
    return {name: root / f"{name}.medssl" for name in runs}


def told(table: pl.DataFrame) -> list[float]:
    """The predictions, whatever the cases are called."""
    return sorted(table["prediction"].to_list())


@pytest.mark.parametrize("name", ["classify", "segment"])
def test_the_file_predicts_a_folder_as_the_run_predicts_its_manifest(name, runs, files, discs, medssl, tmp_path):
    pictures = Path(discs.manifest).parent / "images"
    medssl("predict", files[name], pictures, "--out", "out/predictions.csv")
    found = pl.read_csv(tmp_path / "out/predictions.csv")
    assert told(found) == pytest.approx(told(predict_run(runs[name], discs.manifest)), abs=1e-6)
    places = pl.read_csv(tmp_path / "out/predictions.files.csv")
    assert sorted(places["path"]) == sorted(str(path) for path in pictures.iterdir())
    assert set(places["case_id"]) == set(found["case_id"])
    assert stat.S_IMODE((tmp_path / "out/predictions.files.csv").stat().st_mode) == 0o600
    left = {path.name for path in (tmp_path / "out").iterdir()}
    assert left == {"predictions.csv", "predictions.files.csv"}, "no prepared voxels stay"


def test_a_run_folder_predicts_a_folder_too_and_a_file_a_manifest(runs, files, discs, medssl, tmp_path):
    new = write_discs(tmp_path / "new", salt="new")
    medssl("predict", runs["regress"], tmp_path / "new/images", "--out", "folder.parquet")
    medssl("predict", files["regress"], new.manifest, "--out", "manifest.parquet")
    both = [told(pl.read_parquet(tmp_path / f"{name}.parquet")) for name in ("folder", "manifest")]
    assert both[0] == pytest.approx(both[1], abs=1e-6)
    assert not (tmp_path / "runs").exists(), "nothing was cached where nobody asked for it"


def test_dicom_is_predicted_with_its_own_patients(files, medssl, tmp_path):
    for number in range(3):
        uid = f"1.2.826.0.1.3680043.8.498.{number}"
        film = stream("films", number).integers(0, 4000, (24, 24)).astype(np.uint16)
        write_dicom(tmp_path / f"new/{number}/film.dcm", film, patient_id=f"MRN{number // 2}", study_uid=f"{uid}.1",
                    series_uid=f"{uid}.2", instance_uid=f"{uid}.3")
    medssl("predict", files["classify"], tmp_path / "new")
    found = pl.read_csv(tmp_path / "predictions.csv")
    key = (tmp_path / "pseudonym.key").read_bytes()
    assert sorted(found["patient_id"]) == sorted(pseudonym(key, "p", "hospital", f"MRN{n}") for n in (0, 0, 1))
    assert "MRN" not in (tmp_path / "predictions.csv").read_text()


def test_an_encoder_alone_predicts_nothing(files, medssl, tmp_path):
    with pytest.raises(RunError, match="not a finetuning run"):
        medssl("predict", files["pretrain"], tmp_path)


def test_channels_are_told_apart_by_a_card(volumes, volume_run, medssl, tmp_path):
    write_file(volume_run, tmp_path / "model.medssl")
    folder = volumes.manifest.parent
    with pytest.raises(MedsslError, match="takes the channels a, b, and the card has image.*--card"):
        medssl("predict", "model.medssl", folder)
    card = Manifest.load(volumes.manifest).card
    (tmp_path / "card.yaml").write_text(card.to_yaml())
    medssl("predict", "model.medssl", folder, "--card", "card.yaml", "--masks", "masks")
    assert told(pl.read_csv("predictions.csv")) == told(predict_run(volume_run, volumes.manifest))
    assert len(list((tmp_path / "masks").iterdir())) == 6
    assert set(pl.read_csv("predictions.files.csv")["channel"]) == {"a", "b"}


@pytest.mark.parametrize(("scans", "told"), [
    ("nowhere", "There is no nowhere. Expected a manifest, or a folder of scans. Remedy: check the path"),
    ("film.png", "film.png is no manifest.*Remedy: give the folder that the scans lie in"),
])
def test_what_is_neither_a_manifest_nor_a_folder_is_called_so(scans, told, files, medssl, tmp_path):
    (tmp_path / "film.png").touch()
    with pytest.raises(ConfigError, match=told):
        medssl("predict", files["classify"], scans)


def test_masks_of_what_draws_nothing_are_refused_before_anything_is_read(files, medssl, tmp_path):
    (tmp_path / "empty").mkdir()
    for scans in ("empty", "nowhere.parquet"):
        with pytest.raises(ConfigError, match="task.name=classify"):
            medssl("predict", files["classify"], scans, "--masks", "masks")


def test_cases_of_another_kind_are_refused_or_left_out(files, medssl, tmp_path, caplog):
    scans = tmp_path / "scans"
    write_discs(tmp_path / "set")
    (tmp_path / "set/images").rename(scans)
    write_nifti(scans / "head.nii.gz", torch.rand(8, 9, 10).numpy(), np.eye(4))
    medssl("predict", files["classify"], scans)
    assert "1 of 81 cases are no image" in caplog.text
    for picture in scans.glob("*.png"):
        picture.unlink()
    with pytest.raises(MedsslError, match="holds no image, but volume"):
        medssl("predict", files["classify"], scans)


@pytest.mark.parametrize("given", ["folder", "manifest"])
def test_scans_that_cannot_be_prepared_are_listed_beside_the_predictions(given, files, medssl, tmp_path, caplog):
    new = write_discs(tmp_path / "new")
    pictures = tmp_path / "new/images"
    spoilt = sorted(pictures.iterdir())[:12]
    for picture in spoilt:
        picture.write_bytes(picture.read_bytes()[:60])
    medssl("predict", files["classify"], pictures if given == "folder" else new.manifest, "--out", "out/found.csv")
    listed = pl.read_csv(tmp_path / "out/found.skipped.csv")
    assert len(listed) == 12
    assert listed["reason"].null_count() == 0
    assert "12 of 80 cases skipped:\n" in caplog.text
    assert "all of them: out/found.skipped.csv" in caplog.text
    if given == "folder":
        places = dict(pl.read_csv(tmp_path / "out/found.files.csv").select("case_id", "path").iter_rows())
        assert {places[case_id] for case_id in listed["case_id"]} == set(map(str, spoilt))
    for picture in pictures.iterdir():
        picture.write_bytes(picture.read_bytes()[:60])
    with pytest.raises(MedsslError, match="None of 80.*all of them: found.skipped.csv"):
        medssl("predict", files["classify"], pictures if given == "folder" else new.manifest, "--out", "found.csv")
    assert len(pl.read_csv(tmp_path / "found.skipped.csv")) == 80


def test_the_command_writes_the_file(runs, medssl, tmp_path):
    medssl("export", runs["classify"], "--file", "deep/model.medssl")
    assert load_encoder(tmp_path / "deep/model.medssl").channels == 1
    with pytest.raises(MedsslError, match="Nothing to write"):
        medssl("export", runs["classify"])


@pytest.mark.parametrize("option", ["--file", "--onnx"])
def test_neither_a_run_nor_its_file_is_written_over(option, runs, medssl, tmp_path):
    shutil.copytree(runs["pretrain"], tmp_path / "run")
    medssl("export", "run", "--file", "run/model.medssl")
    before = {path: path.read_bytes() for path in (tmp_path / "run").iterdir() if path.is_file()}
    for source, target in (("run", "run/model.safetensors"), ("run", "run/recipe.yaml"),
                           ("run/model.medssl", "run/model.medssl")):
        with pytest.raises(ConfigError, match=f"{target} is of the run itself, and would be lost"):
            medssl("export", source, option, target)
    assert {path: path.read_bytes() for path in before} == before
    medssl("export", "run", "--file", "run/model.medssl")


@pytest.mark.parametrize("option", ["--file", "--onnx"])
def test_a_folder_is_no_file_to_write(option, medssl, tmp_path):
    with pytest.raises(ConfigError, match=f"{tmp_path} is a folder"):
        medssl("export", "no run that could be read", option, tmp_path)


@pytest.mark.parametrize("command", ["evaluate", "robustness"])
def test_without_a_manifest_a_file_is_not_judged(command, files, medssl):
    with pytest.raises(ConfigError, match="classify.medssl holds no manifest.*--manifest"):
        medssl(command, files["classify"])


def test_a_mistake_in_what_overrides_a_file_is_not_put_into_a_recipe_that_is_not_there(files, medssl):
    with pytest.raises(ConfigError, match=r"classify.medssl has 1 mistake"):
        medssl("evaluate", files["classify"], "data.manifest=a.parquet", "train.precision=wide")


def test_it_is_judged_elsewhere_as_its_run_is(runs, files, discs, tmp_path):
    new = write_discs(tmp_path / "new", salt="new")
    overrides = [f"data.cache={tmp_path / 'cache'}"]
    theirs, ours = (evaluate_elsewhere(source["classify"], new.manifest, "test", {}, overrides)
                    for source in (runs, files))
    assert ours.scores == theirs.scores
    assert ours.folder == files["classify"].parent / "classify_judged/transfer/discs"
    with pytest.raises(LeakageError, match="trained on 24 of the 24"):
        evaluate_elsewhere(files["classify"], discs.manifest, "train", {}, overrides)


def test_what_is_found_of_a_file_is_left_beside_it(runs, files, discs, medssl, tmp_path):
    new = write_discs(tmp_path / "new", salt="new")
    own = [f"data.manifest={discs.manifest}", f"data.cache={discs.cache}"]
    ours = files["classify"].parent / "classify_judged"
    for source in (files["classify"], runs["classify"]):
        medssl("robustness", source, *own)
        medssl("ood", source, new.manifest, *own)
    for name in ("robustness.parquet", "ood/discs.parquet"):
        assert pl.read_parquet(ours / name).equals(pl.read_parquet(runs["classify"] / name))
    assert (ours / "robustness.png").is_file()


def test_its_encoder_is_the_runs(runs, files):
    image = torch.rand(2, 1, 24, 24)
    ours, theirs = (load_encoder(source) for source in (files["pretrain"], runs["pretrain"]))
    assert torch.equal(ours(image).pooled, theirs(image).pooled)
    assert ours.preprocessing == theirs.preprocessing != {}
    assert not ours.training


def test_it_starts_a_training_and_tells_whom_it_saw(runs, files):
    ours, theirs = (open_start(source[name]) for source, name in ((files, "pretrain"), (runs, "pretrain")))
    assert ours.patients_known
    assert ours.description == theirs.description
    assert {*ours.tensors} == {*theirs.tensors}


def test_no_path_is_in_it(files, discs):
    for path in files.values():
        content = path.read_bytes()
        for name in (str(path.parent), str(Path(discs.manifest).parent), "discs.parquet"):
            assert name.encode() not in content


@pytest.mark.parametrize("change", ["description", "recipe", "tensor", "cut"])
def test_a_file_that_was_changed_is_refused(change, files, tmp_path):
    tensors = safetensors.torch.load_file(files["classify"])
    with safetensors.safe_open(files["classify"], "pt") as file:
        header = file.metadata()
    if change == "tensor":
        next(iter(tensors.values())).flatten()[0] += 1
    elif change != "cut":
        header[change] = json.dumps(json.loads(header[change]) | {"channels": ["t2"]})
    safetensors.torch.save_file(tensors, tmp_path / "model.medssl", metadata=header)
    if change == "cut":
        whole = (tmp_path / "model.medssl").read_bytes()
        (tmp_path / "model.medssl").write_bytes(whole[:-8])
    with pytest.raises(RunError, match="or was cut short" if change == "cut" else "is damaged.*SHA-256"):
        load_encoder(tmp_path / "model.medssl")


def test_a_scan_prepared_by_itself_is_the_case_of_the_cache(runs, files, discs):
    data = open_data(discs)
    case_id = data.cases["case_id"][0]
    encoder = load_encoder(files["pretrain"])
    (path,) = data.manifest.all_paths(case_id)["image"]
    alone = prepare_scan(path, encoder.preprocessing)
    assert alone.dtype == np.float32
    np.testing.assert_allclose(alone, data.cache.read(case_id).array, atol=1e-3)
    assert prepare_scan([path, path], encoder.preprocessing).shape == (2, *alone.shape[1:])


def test_of_a_folder_of_several_scans_each_is_prepared_by_itself(tmp_path):
    for number in range(2):
        film = stream("films", number).integers(0, 4000, (24, 24)).astype(np.uint16)
        write_dicom(tmp_path / f"{number}.dcm", film, patient_id="MRN1", study_uid="1.2.1",
                    series_uid=f"1.2.1.{number}", instance_uid=f"1.2.1.{number}.1")
    with pytest.raises(AmbiguousSeries, match=r"2 scans(?s:.*)Remedy: give one of those that medssl.find_scans finds"):
        prepare_scan(tmp_path, {})
    for found in find_scans(tmp_path):
        np.testing.assert_array_equal(prepare_scan(found, {}), prepare_scan(found.paths[0], {}))
    with pytest.raises(ConfigError, match="No scan was given"):
        prepare_scan([], {})
