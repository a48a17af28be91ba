"""A network as ONNX gives what PyTorch gives, says how to feed it, and is not written where it does not."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from typer.testing import CliRunner

from medssl.cli import app
from medssl.errors import ConfigError, RunError
from medssl.export.handed import Handed
from medssl.export.onnx import TOLERANCE, write_onnx
from medssl.models import ENCODERS
from medssl.models.weights import save_model
from medssl.tasks import TASKS, build_task

NETWORKS = {
    "resnet in 3-D": ("resnet", {"dims": 3, "widths": [4, 4, 4, 4]}, (32, 32, 32), "segment"),
    "vit with a class token": ("vit", {"size": [4, 16, 16], "patch": [2, 8, 8], "width": 24, "depth": 2, "heads": 2,
                                       "class_token": True, "pooled": "class"}, (4, 16, 16), "classify"),
    "vit as UNETR": ("vit", {"size": [16, 16], "patch": [8, 8], "width": 24, "depth": 3, "heads": 2}, (16, 16),
                     "segment"),
    "swin": ("swin", {"dims": 2, "width": 12, "heads": [1, 1, 1, 1], "window": 4}, (64, 64), "classify"),
    "r2plus1d": ("r2plus1d", {"channels": 1, "widths": [4, 4, 4, 4]}, (4, 16, 16), "classify"),
}
"""{name: (encoder, its settings, S, task)}: those of which the exporters of torch lose something if they can."""
LABELLED = {"classify": {"labels": ["a", "b"]}, "segment": {"skips": True}}


def answer(path: Path, image: np.ndarray) -> np.ndarray:
    (found,) = onnxruntime.InferenceSession(path).run(None, {"image": image})
    return found


def description(path: Path) -> dict:
    return json.loads(onnxruntime.InferenceSession(path).get_modelmeta().custom_metadata_map["medssl"])


@pytest.mark.parametrize("name", NETWORKS)
def test_each_network_keeps_its_numbers_for_any_batch(name, tmp_path):
    kind, settings, size, task_name = NETWORKS[name]
    encoder = ENCODERS[kind](ENCODERS[kind].Config.model_validate(settings))
    task = build_task(TASKS[task_name].Config(**LABELLED[task_name]), encoder, {"lesion": [1]})
    save_model(tmp_path, {"encoder": encoder, "task": task}, {
        "preprocessing": {}, "size": size, "task": task.config.model_dump(mode="json"), "regions": {"lesion": [1]}})
    handed = Handed.open(tmp_path)
    assert write_onnx(handed, tmp_path / "net.onnx") <= TOLERANCE
    image = handed.example(5)
    np.testing.assert_allclose(answer(tmp_path / "net.onnx", image.numpy()), handed.answer(image), atol=1e-3)


@pytest.mark.parametrize(("name", "output", "names", "shape"), [
    ("classify", "probability", ["Bright"], (4, 1)), ("regress", "value", ["Radius"], (4, 1)),
    ("segment", "logits", ["disc"], (4, 1, 24, 24)), ("pretrain", "features", [], (4, 8))])
def test_a_run_says_what_it_takes_and_gives(name, output, names, shape, runs, tmp_path):
    write_onnx(Handed.open(runs[name]), tmp_path / "net.onnx")
    told = description(tmp_path / "net.onnx")
    assert told["task"] == {"pretrain": "encode"}.get(name, name)
    assert (told["output"]["name"], told["output"]["names"]) == (output, names)
    given = told["input"]
    assert (given["size"], given["channels"]) == ([24, 24], ["image"])
    assert (given["kind"], given["modalities"]) == ("image", ["OT"])
    assert given["axes"] == ["batch", "channel", "row", "column"]
    assert given["preparation"]["intensity"] == "range"
    assert any("255" in step for step in given["preparation_in_words"])
    assert answer(tmp_path / "net.onnx", np.zeros((4, 1, 24, 24), np.float32)).shape == shape


def test_the_command_tells_the_difference_and_writes_a_bundle_too(runs, tmp_path):
    done = CliRunner().invoke(app, ["export", str(runs["pretrain"]), "--onnx", str(tmp_path / "net.onnx"), "--size",
                                    "32,16", "--bundle", str(tmp_path / "bundle")])
    assert done.exit_code == 0, done.output
    assert re.search(r"differ by \S+ of the largest output at most; allowed are 0.0001", done.output)
    assert description(tmp_path / "net.onnx")["input"]["size"] == [32, 16]
    assert (tmp_path / "bundle/models/model.ts").is_file()
    refused = CliRunner().invoke(app, ["export", str(runs["pretrain"]), "--onnx", "net.onnx", "--size", "2x2"])
    assert "whole numbers with commas between" in str(refused.exception)


def test_it_names_no_path_and_no_patient(runs, tmp_path):
    write_onnx(Handed.open(runs["classify"]), tmp_path / "net.onnx")
    content = (tmp_path / "net.onnx").read_bytes()
    seen = json.loads((runs["classify"] / "model.json").read_text())["patients_seen"]
    folders = [Path(torch.__file__).parents[1], Path(__file__).parents[2], runs["classify"].parent]
    for name in (*map(str, folders), *seen):
        assert name.encode() not in content


@pytest.mark.parametrize("off", [2 * TOLERANCE, float("nan")])
def test_a_difference_is_refused_and_nothing_written(off, runs, tmp_path, monkeypatch):
    handed = Handed.open(runs["pretrain"])
    monkeypatch.setattr(Handed, "answer", lambda self, image: self.network(image).detach() + off)
    with pytest.raises(RunError, match="nothing was written"):
        write_onnx(handed, tmp_path / "net.onnx")
    assert not list(tmp_path.iterdir())


def test_a_missing_package_is_told(runs, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ConfigError, match=r"onnxruntime is not installed.*medssl\[export\]"):
        write_onnx(Handed.open(runs["classify"]), tmp_path / "net.onnx")


def test_a_size_is_asked_for_where_an_older_run_does_not_say(runs, tmp_path):
    for name in ("model.json", "model.safetensors"):
        (tmp_path / name).write_bytes((runs["classify"] / name).read_bytes())
    told = json.loads((tmp_path / "model.json").read_text())
    (tmp_path / "model.json").write_text(json.dumps({key: value for key, value in told.items() if key != "size"}))
    with pytest.raises(ConfigError, match="give --size, e.g. --size 224,224"):
        Handed.open(tmp_path)
    assert Handed.open(tmp_path, (32, 40)).description["input"]["size"] == [32, 40]
    with pytest.raises(ConfigError, match="has 3 sides.*2 sides"):
        Handed.open(tmp_path, (8, 8, 8))
    for size in ((0, 48), (-8, -8)):
        with pytest.raises(ConfigError, match=f"has a side of {size[0]}.*1 voxel or more"):
            Handed.open(tmp_path, size)
