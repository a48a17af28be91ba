"""medssl.train.pretrain: who is seen, what is left behind, and a run that is killed outright."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from small_sets import SMALL

from medssl.data.source import DataConfig, open_data
from medssl.errors import ConfigError, RunError
from medssl.models.weights import load_encoder
from medssl.train.build import fitted_encoder
from medssl.train.pretrain import PretrainConfig, pretrain
from medssl.train.run import patient_digest


def recipe(discs: DataConfig, **changes) -> PretrainConfig:
    return PretrainConfig.model_validate({**SMALL, "data": discs, **changes})


def test_only_training_patients_are_seen_and_they_are_written_down(tmp_path, discs):
    data = open_data(discs)
    pretrain(recipe(discs), tmp_path / "run", data=data)
    described = json.loads((tmp_path / "run/model.json").read_text())
    train = data.cases.filter(data.cases["split"] == "train")["patient_id"].unique()
    assert described["patients_seen"] == sorted(map(patient_digest, train))
    assert len(described["patients_seen"]) == 24
    assert described["preprocessing"] == discs.prepare.model_dump(mode="json")
    assert not any(patient in (tmp_path / "run/model.json").read_text() for patient in train)
    told = json.loads((tmp_path / "run/provenance.json").read_text())
    assert (told["cases"], told["patients"], told["manifest"]) == (48, 24, data.manifest.digest)
    encoder = load_encoder(tmp_path / "run")
    assert encoder(torch.rand(1, 1, 24, 24)).pooled.shape == (1, 8)
    few = train.sort().to_list()[:3]
    pretrain(recipe(discs), tmp_path / "few", patients=few, data=data)
    assert json.loads((tmp_path / "few/model.json").read_text())["patients_seen"] == sorted(map(patient_digest, few))


def test_a_share_of_the_unlabelled_patients_lies_within_a_larger_one_and_is_written_down(tmp_path, discs):
    data, seen = open_data(discs), {}
    kinds = {"tenth": {"share": 0.1}, "third": {"share": 0.3}, "all": {}, "other": {"share": 0.3, "seed": 1}}
    for name, changes in kinds.items():
        pretrain(recipe(discs, train={**SMALL["train"], "steps": 1}, **changes), tmp_path / name, data=data)
        told = json.loads((tmp_path / name / "provenance.json").read_text())
        seen[name] = set(json.loads((tmp_path / name / "model.json").read_text())["patients_seen"])
        assert (told["patients"], told["cases"]) == (len(seen[name]), 2 * len(seen[name]))
    assert [len(seen[name]) for name in ("tenth", "third", "all")] == [2, 7, 24]
    assert seen["tenth"] < seen["third"] < seen["all"]
    assert seen["other"] != seen["third"]


def test_a_finished_run_is_left_as_it_is_and_another_recipe_refused(tmp_path, discs):
    pretrain(recipe(discs), tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    pretrain(recipe(discs), tmp_path)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before
    with pytest.raises(RunError, match=r"differs in objective.ratio, seed"):
        pretrain(recipe(discs, seed=1, objective={**SMALL["objective"], "ratio": 0.25}), tmp_path)


def test_seed_decides_the_weights(tmp_path, discs):
    data = open_data(discs)
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        torch.manual_seed(len(name) + seed)
        pretrain(recipe(discs, seed=seed), tmp_path / name, data=data)
    a, b, c = (load_file(tmp_path / name / "model.safetensors") for name in "abc")
    assert all(torch.equal(a[key], b[key]) for key in a)
    assert not all(torch.equal(a[key], c[key]) for key in a)


def test_a_run_goes_on_from_the_weights_of_an_earlier_one_and_remembers_whom_that_saw(tmp_path, discs, caplog):
    data = open_data(discs)
    people = data.cases.filter(data.cases["split"] == "train")["patient_id"].unique().sort().to_list()
    pretrain(recipe(discs), tmp_path / "first", people[:3], data)
    still = {"steps": 1, "batch_size": 4, "precision": "float32", "optim": {"lr": 1e-9, "warmup": 0}}
    pretrain(recipe(discs, encoder=None, init=tmp_path / "first", train=still), tmp_path / "second", people[3:5], data)
    first, second = (load_file(tmp_path / name / "model.safetensors") for name in ("first", "second"))
    assert {name.split(".")[0] for name in first} == {"encoder", "decoder"}
    for name, tensor in first.items():
        torch.testing.assert_close(second[name], tensor, rtol=0, atol=1e-6)
    earlier, described = (json.loads((tmp_path / name / "model.json").read_text()) for name in ("first", "second"))
    assert described["patients_seen"] == sorted(map(patient_digest, people[:5]))
    assert described["init"] == {"layout": "medssl", "sha256": earlier["sha256"], "patients": "known"}
    account = (tmp_path / "second/init.txt").read_text()
    assert "encoder: 12 matched, 0 adapted, 0 missing" in account
    assert "decoder: " in account
    assert str(tmp_path) not in account
    assert f"started from {tmp_path / 'first'}" in caplog.text


def test_parts_that_the_objective_does_not_have_are_left_over(tmp_path, discs):
    pretrain(recipe(discs), tmp_path / "first")
    few = {**SMALL["train"], "steps": 1}
    pretrain(recipe(discs, init=tmp_path / "first", train=few, objective={"name": "simsiam", "width": 8}),
             tmp_path / "second")
    account = (tmp_path / "second/init.txt").read_text()
    assert "encoder: 12 matched" in account
    assert "left over in the file, not used: " in account
    assert "decoder.joining.0." in account


def test_an_encoder_or_a_start_is_needed(discs):
    with pytest.raises(ValueError, match="give `encoder`, or `init`"):
        recipe(discs, encoder=None)


RESNET = {"name": "resnet", "blocks": [1, 1, 1, 1], "widths": [4, 4, 8, 8]}


@pytest.mark.parametrize(("objective", "batch", "remedy"), [
    ({"name": "simsiam", "width": 8}, 1, "train.batch_size=64"),
    ({"name": "simclr", "width": 8}, 1, "train.batch_size=64"),
    ({"name": "rotation", "shown": "one"}, 1, "train.batch_size=2 or more, or make views larger"),
    ({"name": "masked_reconstruction", "block": 8}, 1, "train.batch_size=2 or more, or make views larger"),
    ({"name": "masked_reconstruction", "block": 8}, 4, "Remedy: make views larger: augment.size"),
])
def test_norms_that_have_one_value_to_normalise_are_refused(tmp_path, discs, objective, batch, remedy):
    config = recipe(discs, encoder=RESNET, objective=objective, train={**SMALL["train"], "batch_size": batch},
                    augment={"size": [16, 16]})
    with pytest.raises(ConfigError, match=f"train.batch_size (is )?{batch}") as error:
        pretrain(config, tmp_path)
    assert remedy in str(error.value)


def test_a_batch_of_one_is_trained_where_its_maps_have_cells(tmp_path, discs):
    few = {**SMALL["train"], "batch_size": 1, "steps": 1}
    pretrain(recipe(discs, encoder=RESNET, train=few, augment={"size": [40, 40]}), tmp_path)
    assert (tmp_path / "model.json").is_file()


def test_encoders_are_made_to_measure(discs):
    config = recipe(discs, encoder={"name": "vit", "size": [99, 99], "patch": [1, 1], "width": 12, "depth": 1,
                                    "heads": 2, "channels": 7})
    encoder = fitted_encoder(config.encoder, open_data(discs), config.augment)
    assert (encoder.channels, encoder.dims, encoder.config.size) == (1, 2, (24, 24))


KILLED = """
import sys, time
from pathlib import Path
import torch
from medssl.train.pretrain import PretrainConfig, pretrain

def slow(done, total, note):
    if done > 9:
        time.sleep(0.5)

torch.set_num_threads(1)
pretrain(PretrainConfig.model_validate_json(sys.argv[1]), Path(sys.argv[2]), progress=slow)
"""


def test_a_killed_process_costs_nothing_but_the_steps_since_its_checkpoint(tmp_path, discs):
    config = recipe(discs, train={**SMALL["train"], "steps": 16, "checkpoint_seconds": 0.0, "log_every": 1})
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    child = subprocess.Popen([sys.executable, "-c", KILLED, config.model_dump_json(), str(tmp_path / "killed")],
                             env=environment)
    deadline, metrics = time.monotonic() + 120, tmp_path / "killed/metrics.jsonl"
    while time.monotonic() < deadline and not (metrics.is_file() and len(metrics.read_text().splitlines()) > 9):
        assert child.poll() is None, "the run ended before it could be killed"
        time.sleep(0.02)
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    checkpoints = tmp_path / "killed/checkpoints"  # between two moves the last good one has the earlier one's name
    assert (checkpoints / "last.ckpt").is_file() or (checkpoints / "earlier.ckpt").is_file()
    assert not (tmp_path / "killed/model.json").exists()
    pretrain(config, tmp_path / "killed")
    pretrain(config, tmp_path / "whole")
    killed, whole = (load_file(tmp_path / name / "model.safetensors") for name in ("killed", "whole"))
    assert all(torch.equal(killed[key], whole[key]) for key in whole)
    assert steps(tmp_path / "killed") == steps(tmp_path / "whole") == list(range(16))


def steps(folder: Path) -> list[int]:
    return [json.loads(line)["step"] for line in (folder / "metrics.jsonl").read_text().splitlines()]
