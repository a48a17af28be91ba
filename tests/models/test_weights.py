"""Models on disk: what is written can be trusted, and what cannot be trusted is refused with its remedy."""

from __future__ import annotations

import json
import os

import pytest
import safetensors.torch
import torch
from torch import nn

from medssl import load_encoder as public_load_encoder
from medssl.errors import RunError
from medssl.models import UNetDecoder
from medssl.models.cnn import UNetEncoder
from medssl.models.weights import load_encoder, load_into, load_parts, save_model


def unet(**settings):
    return UNetEncoder(UNetEncoder.Config(dims=2, **{"widths": (2, 3), **settings}))


@pytest.fixture
def run(tmp_path):
    encoder = unet()
    parts = {"encoder": encoder, "decoder": UNetDecoder(encoder.map_widths, 2)}
    save_model(tmp_path / "run", parts, {"preprocessing": {}, "patients_seen": ["00ff00ff00ff00ff"]})
    return tmp_path / "run"


def test_the_file_reads_without_this_program(run):
    tensors = safetensors.torch.load_file(run / "model.safetensors")
    description = json.loads((run / "model.json").read_text())
    assert {key.split(".")[0] for key in tensors} == {"encoder", "decoder"} == set(description["parts"])
    assert description["format"] == 1
    assert description["encoder"]["widths"] == [2, 3]
    assert description["patients_seen"] == ["00ff00ff00ff00ff"]
    assert sorted(os.listdir(run)) == ["model.json", "model.safetensors"], "no temporary file is left"


def test_parts_load_apart(run):
    tensors, _ = load_parts(run)
    fresh = UNetDecoder((3, 2), 2)
    load_into(fresh, tensors, "decoder")
    assert all(torch.equal(tensor, tensors["decoder"][name]) for name, tensor in fresh.state_dict().items())


def test_the_public_name_is_this_one():
    assert public_load_encoder is load_encoder


def test_a_missing_folder_and_an_unfinished_run_are_told_apart(run, tmp_path):
    with pytest.raises(RunError, match="No run folder"):
        load_encoder(tmp_path / "nowhere")
    (tmp_path / "data").mkdir()
    (tmp_path / "data/scan.png").touch()
    with pytest.raises(RunError, match="data is no run folder: nothing of a run is in it.*Remedy: check the path"):
        load_encoder(tmp_path / "data")
    (run / "model.json").unlink()
    with pytest.raises(RunError, match=r"has not finished.*Remedy: wait for the run"):
        load_encoder(run)


def test_tampered_tensors_are_refused(run):
    path = run / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(RunError, match="SHA-256 differ"):
        load_encoder(run)
    path.unlink()
    with pytest.raises(RunError, match=r"no model\.safetensors"):
        load_encoder(run)


def test_tensors_of_another_run_are_refused(run, tmp_path):
    save_model(tmp_path / "other", {"encoder": unet()}, {})
    (tmp_path / "other" / "model.safetensors").replace(run / "model.safetensors")
    with pytest.raises(RunError, match="damaged"):
        load_encoder(run)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.update(format=2), "not of format 1"),
        (lambda d: d.update(encoder={"name": "vgg"}), "cannot be built"),
        (lambda d: d["encoder"].update(widths=[0, 3]), r"widths.*greater than 0"),
        (lambda d: d.pop("encoder"), "cannot be built"),
        (lambda d: d["encoder"].update(widths=[2, 4]), "does not fit"),
    ],
)
def test_a_description_that_does_not_hold_is_refused(run, change, message):
    path = run / "model.json"
    description = json.loads(path.read_text())
    change(description)
    path.write_text(json.dumps(description))
    with pytest.raises(RunError, match=message):
        load_encoder(run)


def test_a_description_that_is_not_json_is_refused(run):
    (run / "model.json").write_text("{")
    with pytest.raises(RunError, match="not JSON"):
        load_encoder(run)


def test_nothing_is_skipped_in_silence(run):
    tensors, _ = load_parts(run)
    with pytest.raises(RunError) as caught:
        load_into(unet(widths=(2, 3, 4)), tensors, "encoder")
    assert "levels.2" in str(caught.value)
    assert "missing from the run" in str(caught.value)
    with pytest.raises(RunError, match="no place in this model"):
        load_into(nn.Sequential(), tensors, "encoder")
    with pytest.raises(RunError, match=r"no part 'head'.*encoder, decoder"):
        load_into(unet(), {"encoder": {}, "decoder": {}}, "head")


def test_a_failed_save_leaves_the_old_model(run, monkeypatch):
    before = (run / "model.safetensors").read_bytes(), (run / "model.json").read_bytes()

    def full_disk(*_, metadata=None):
        raise OSError("No space left on device")

    monkeypatch.setattr(safetensors.torch, "save_file", full_disk)
    with pytest.raises(OSError, match="No space"):
        save_model(run, {"encoder": unet()}, {})
    assert before == ((run / "model.safetensors").read_bytes(), (run / "model.json").read_bytes())
    load_encoder(run)
