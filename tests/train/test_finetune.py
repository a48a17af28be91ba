"""medssl.train.finetune and build: where weights come from, on how many labels, and whom the model has seen."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from safetensors.torch import load_file
from small_sets import SMALL, write_discs

from medssl.data.prepare import prepare
from medssl.data.source import DataConfig, open_data
from medssl.errors import ConfigError, LeakageError, RunError
from medssl.evaluate.predict import outputs
from medssl.models import weights
from medssl.models.cnn import ResNetEncoder
from medssl.models.start import open_start
from medssl.tasks import LabelledModel
from medssl.train.build import fitted_encoder, labelled_model, refuse_seen, start_model
from medssl.train.finetune import FinetuneConfig, finetune, fit_labelled
from medssl.train.pretrain import PretrainConfig, pretrain
from medssl.train.run import patient_digest

CLASSIFY = {"name": "classify", "labels": ["Bright"]}
REST = {key: SMALL[key] for key in ("augment", "train")}


def recipe(discs: DataConfig, **changes) -> FinetuneConfig:
    start = {} if "init" in changes else {"encoder": SMALL["encoder"]}
    return FinetuneConfig.model_validate({**REST, **start, "data": discs, "task": CLASSIFY, **changes})


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory: pytest.TempPathFactory, discs: DataConfig) -> Path:
    return pretrain(PretrainConfig.model_validate({**SMALL, "data": discs}), tmp_path_factory.mktemp("pretrained"))


def test_a_model_starts_from_the_pretrained_weights_all_of_them(discs, pretrained):
    data, config = open_data(discs), recipe(discs, init=pretrained, task={"name": "segment"})
    encoder = PretrainConfig.model_validate({**SMALL, "data": discs}).encoder
    start = open_start(pretrained)
    model, fresh = (labelled_model(config.task, encoder, data, config.augment) for _ in range(2))
    start_model(model, start, data, with_decoder=True)
    start_model(fresh, start, data)
    saved = load_file(pretrained / "model.safetensors")
    for part, module in (("encoder", model.encoder), ("decoder", model.task.decoder)):
        assert all(torch.equal(tensor, saved[f"{part}.{name}"]) for name, tensor in module.state_dict().items())
    assert not all(torch.equal(tensor, saved[f"decoder.{name}"])
                   for name, tensor in fresh.task.decoder.state_dict().items())
    with pytest.raises(ConfigError, match=r"no decoder in common.*a run of masked_reconstruction, inpainting,"):
        start_model(labelled_model(recipe(discs).task, encoder, data, config.augment), start, data, with_decoder=True)


def test_a_run_keeps_task_and_everyone_it_or_its_start_has_seen(tmp_path, discs, pretrained):
    finetune(recipe(discs, init=pretrained, fraction=0.25), tmp_path / "run")
    described = json.loads((tmp_path / "run/model.json").read_text())
    assert described["patients_seen"] == json.loads((pretrained / "model.json").read_text())["patients_seen"]
    assert described["task"]["labels"] == ["Bright"]
    assert json.loads((tmp_path / "run/provenance.json").read_text())["patients"] == 6
    finetune(recipe(discs, fraction=0.25), tmp_path / "scratch")
    assert len(json.loads((tmp_path / "scratch/model.json").read_text())["patients_seen"]) == 6


def test_training_learns_the_labels(discs):
    data, config = open_data(discs), recipe(discs, train={**SMALL["train"], "steps": 80, "optim": {"lr": 0.02}})
    cases = data.cases.filter(data.cases["split"] == "train")
    torch.manual_seed(0)
    model = labelled_model(config.task, config.encoder, data, config.augment)
    fitted = fit_labelled(model, data, cases, config.augment, config.train, seed=0)
    assert fitted.loss < 0.4  # ln 2 knows nothing


SELF_TRAINED = {"name": "classify", "labels": ["Bright", "Vague"], "uncertain_by_label": {"Vague": "self_trained"}}


def test_a_teacher_says_what_is_uncertain_and_the_same_start_learns_it(discs):
    data, config = open_data(discs), recipe(discs, task=SELF_TRAINED)
    cases = data.cases.filter(pl.col("split") == "train")

    def learnt(uncertain: str) -> LabelledModel:
        torch.manual_seed(0)
        task = config.task.model_copy(update={"uncertain_by_label": {"Vague": uncertain}})
        model = labelled_model(task, config.encoder, data, config.augment)
        fit_labelled(model, data, cases, config.augment, config.train, seed=0)
        return model

    teacher, pupil = learnt("ignore"), learnt("self_trained")
    unsure = cases.filter(pl.col("label.Vague") == -1)
    said = [output[1] for _, output, _ in outputs(teacher, data, unsure, config.augment, config.train.precision)]
    targets = pupil.task.prepare_targets(cases)
    np.testing.assert_allclose([targets[case_id][1] for case_id in unsure["case_id"]], said, rtol=1e-5)
    assert len(said) == 12
    torch.manual_seed(0)
    by_hand = labelled_model(config.task, config.encoder, data, config.augment)
    by_hand.task.be_taught({case_id: targets[case_id] for case_id in unsure["case_id"]})
    by_hand.task.to_be_taught = lambda cases: cases.clear()
    fit_labelled(by_hand, data, cases, config.augment, config.train, seed=0)
    assert all(torch.equal(tensor, pupil.state_dict()[name]) for name, tensor in by_hand.state_dict().items())
    assert not all(torch.equal(tensor, pupil.state_dict()[name]) for name, tensor in teacher.state_dict().items())


def test_a_self_training_that_is_cut_off_ends_as_if_it_had_not_been(discs, tmp_path):
    config = recipe(discs, task=SELF_TRAINED, train={**SMALL["train"], "checkpoint_seconds": 0.0})
    seen = []
    finetune(config, tmp_path / "whole", lambda done, total, note="": seen.append((done, total)))
    assert seen == [(done, 16) for done in range(1, 17)]

    def cut_at(step: int):
        def progress(done: int, total: int, note: str = "") -> None:
            if done == step:
                raise KeyboardInterrupt
        return progress

    for step in (5, 8, 11, 16):
        with pytest.raises(KeyboardInterrupt):
            finetune(config, tmp_path / "cut", cut_at(step))
    finetune(config, tmp_path / "cut")
    assert (tmp_path / "cut/teacher/metrics.jsonl").is_file()
    whole, cut = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "cut"))
    assert whole.keys() == cut.keys()
    assert all(torch.equal(tensor, cut[name]) for name, tensor in whole.items())


def test_a_task_without_anything_uncertain_has_no_teacher(discs, tmp_path):
    task = {"name": "classify", "labels": ["Bright"], "uncertain": "self_trained"}
    finetune(recipe(discs, task=task, fraction=0.25), tmp_path)
    assert not (tmp_path / "teacher").exists()


def test_mean_and_sd_come_from_the_chosen_training_labels_alone(tmp_path, discs):
    config = recipe(discs, task={"name": "regress", "label": "Radius"}, fraction=0.25)
    finetune(config, tmp_path)
    seen = json.loads((tmp_path / "model.json").read_text())["patients_seen"]
    cases = open_data(discs).cases
    chosen = [patient_digest(patient) in seen for patient in cases["patient_id"]]
    radii = cases["label.Radius"].filter(chosen).to_numpy()
    saved = load_file(tmp_path / "model.safetensors")
    assert len(radii) == 12
    assert float(saved["task.mean"]) == pytest.approx(radii.mean(), rel=1e-5)
    assert float(saved["task.sd"]) == pytest.approx(np.std(radii), rel=1e-5)
    assert float(saved["task.mean"]) != pytest.approx(cases["label.Radius"].mean(), rel=1e-5)


def test_weights_from_scans_prepared_differently_are_refused(tmp_path, discs, pretrained):
    other = discs.model_copy(update={"prepare": discs.prepare.model_copy(update={"size": (24, 12)})})
    prepare(open_data(discs).manifest, other.cache, other.prepare, workers=0)
    with pytest.raises(ConfigError, match=r"prepared differently \(size\)"):
        finetune(recipe(other, init=pretrained), tmp_path)


def test_a_run_of_an_earlier_version_lacks_what_is_at_its_default(tmp_path, discs, pretrained):
    shutil.copytree(pretrained, tmp_path / "old")
    described = json.loads((tmp_path / "old/model.json").read_text())
    del described["preprocessing"]["colour"]
    (tmp_path / "old/model.json").write_text(json.dumps(described))
    finetune(recipe(discs, init=tmp_path / "old", fraction=0.25), tmp_path / "run")
    assert (tmp_path / "run/model.json").is_file()


def test_a_foreign_file_is_a_start_of_which_is_said_that_nobody_knows_whom_it_saw(tmp_path, discs, caplog):
    torch.manual_seed(0)
    state = ResNetEncoder(ResNetEncoder.Config(channels=3, blocks=(1, 1, 1, 1), widths=(4, 6, 8, 10))).net.state_dict()
    torch.save(state, tmp_path / "resnet.pth")
    out = finetune(recipe(discs, init=tmp_path / "resnet.pth", fraction=0.25), tmp_path / "run")
    described = json.loads((out / "model.json").read_text())
    assert described["encoder"]["channels"] == 1
    assert (described["init"]["layout"], described["init"]["patients"]) == ("torchvision ResNet", "unknown")
    assert len(described["init"]["sha256"]) == 64
    assert len(described["patients_seen"]) == 6
    assert "adapted, channels 3 to 1: net.conv1.weight" in (out / "init.txt").read_text()
    assert "whom these weights saw is unknown" in caplog.text
    pretrain(PretrainConfig.model_validate({**SMALL, "data": discs, "encoder": None, "init": out, "objective": {
        "name": "simsiam", "width": 8}}), tmp_path / "on")
    described = json.loads((tmp_path / "on/model.json").read_text())
    assert (described["init"]["layout"], described["init"]["patients"]) == ("medssl", "unknown")
    assert described["encoder"]["name"] == "resnet"


def test_a_refused_start_may_be_corrected_in_the_same_folder(tmp_path, discs, pretrained):
    (tmp_path / "no.pth").write_bytes(b"no")
    with pytest.raises(RunError, match="cannot be read"):
        finetune(recipe(discs, init=tmp_path / "no.pth", fraction=0.25), tmp_path / "run")
    assert finetune(recipe(discs, init=pretrained, fraction=0.25), tmp_path / "run") == tmp_path / "run"


def test_a_start_is_read_once(tmp_path, discs, pretrained, monkeypatch):
    read, hashed = [], weights.file_sha256
    monkeypatch.setattr(weights, "file_sha256", lambda path: read.append(path) or hashed(path))
    finetune(recipe(discs, init=pretrained, fraction=0.25), tmp_path / "run")
    assert [path.parent for path in read].count(pretrained) == 1


@pytest.mark.parametrize(("patch", "told"), [
    ([14, 14], r"Views of \(24, 24\) voxels are not tiled by blocks of \(14, 14\).*augment.size=\[28, 28\]"),
    ([4, 4, 4], r"encoder.patch \(4, 4, 4\) has 3 axes.*2, as views of \(24, 24\)"),
])
def test_patches_that_do_not_fit_the_views_say_which_views_would(discs, patch, told):
    encoder = {"name": "vit", "patch": patch, "size": patch, "width": 12, "depth": 1, "heads": 2}
    config = recipe(discs, encoder=encoder)
    with pytest.raises(ConfigError, match=told):
        fitted_encoder(config.encoder, open_data(discs), config.augment)


def test_weights_from_patients_under_another_key_are_refused(tmp_path, pretrained):
    renamed = write_discs(tmp_path / "renamed", key=bytes(range(1, 33)))
    with pytest.raises(LeakageError, match="by another key.*same key"):
        finetune(recipe(renamed, init=pretrained), tmp_path / "run")


def test_a_model_may_not_be_judged_on_whom_it_saw(discs, pretrained):
    data = open_data(discs)
    by_split = {split: rows["patient_id"].unique().to_list() for (split,), rows in data.cases.group_by("split")}
    start = open_start(pretrained)
    refuse_seen(start, data, by_split["test"])
    with pytest.raises(LeakageError, match="trained on 1 of the 13 patients"):
        refuse_seen(start, data, [*by_split["test"], by_split["train"][0]])


def test_a_segmentation_learns_at_the_resolution_it_is_judged_at(discs):
    config = recipe(discs, task={"name": "segment"}, augment={"size": [16, 16]})
    with pytest.raises(ConfigError, match=r"augment.size \(16, 16\) resamples the boxes \(24, 24\)"):
        labelled_model(config.task, config.encoder, open_data(discs), config.augment)


@pytest.mark.parametrize("wrong", [{"init": None}, {"init": "run", "encoder": SMALL["encoder"]}])
def test_give_either_an_encoder_or_a_start(discs, wrong):
    with pytest.raises(ValueError, match="give either `encoder` or `init`"):
        recipe(discs, **wrong)


@pytest.mark.parametrize("fraction", [0, -0.1, 1.5])
def test_fraction_is_a_share(discs, fraction):
    with pytest.raises(ValueError, match="fraction"):
        recipe(discs, fraction=fraction)
