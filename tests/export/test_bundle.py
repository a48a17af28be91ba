"""A MONAI bundle is run by MONAI alone, and gives what `medssl predict` gives."""

from __future__ import annotations

import json
import subprocess
import sys
import traceback
from pathlib import Path

import nibabel
import numpy as np
import polars as pl
import pytest
import torch
from monai.bundle import ConfigWorkflow
from PIL import Image
from small_sets import SMALL

from medssl.data.source import DataConfig, open_data
from medssl.errors import ConfigError
from medssl.evaluate.single import predict_run
from medssl.export.bundle import write_bundle
from medssl.train.finetune import FinetuneConfig, finetune

TRAIN = {**SMALL["train"], "steps": 1, "batch_size": 2}
ALONE = """
import sys
sys.modules["medssl"] = None
from monai.bundle import run
run(config_file="configs/inference.json", bundle_root=".", inputs=sys.argv[1:], output="found.json")
"""


def run_by_monai(bundle: Path, inputs: list) -> list[dict]:
    """In this process, which is quicker."""
    workflow = ConfigWorkflow(str(bundle / "configs/inference.json"), meta_file=str(bundle / "configs/metadata.json"),
                              bundle_root=str(bundle), inputs=inputs, output=str(bundle / "predictions.json"),
                              masks=str(bundle / "masks"))
    workflow.initialize()
    workflow.run()
    return json.loads((bundle / "predictions.json").read_text())


def cases(config: DataConfig, table: pl.DataFrame, count: int) -> tuple[list[str], list, list[dict]]:
    """The first cases of a table by `predict_run`: their ids, their files, and what is predicted of each."""
    manifest, ids = open_data(config).manifest, table["case_id"].unique().sort().to_list()[:count]
    paths = [[str(path) for paths in manifest.all_paths(case_id).values() for path in paths] for case_id in ids]
    rows = [dict(table.filter(case_id=case_id).select("name", "prediction").iter_rows()) for case_id in ids]
    return ids, paths, rows


def test_it_runs_where_there_is_no_medssl(runs, discs, tmp_path):
    write_bundle(runs["regress"], tmp_path / "bundle")
    manifest = open_data(discs).manifest
    (path,) = manifest.all_paths(manifest.cases["case_id"][0])["image"]
    done = subprocess.run([sys.executable, "-c", ALONE, str(path)], cwd=tmp_path / "bundle", capture_output=True,
                          text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    table = predict_run(runs["regress"], discs.manifest)
    expected = table.filter(case_id=manifest.cases["case_id"][0])["prediction"][0]
    (found,) = json.loads((tmp_path / "bundle/found.json").read_text())
    assert found == pytest.approx({"Radius": expected}, abs=1e-3)


def test_boxes_and_views_of_pictures_are_looked_at_as_in_medssl(discs, tmp_path):
    data = discs.model_copy(update={"box": discs.box.model_copy(update={"size": (20, 18)})})
    run = finetune(FinetuneConfig.model_validate({
        "data": data, "encoder": SMALL["encoder"], "train": TRAIN, "augment": {"size": [16, 16]},
        "task": {"name": "classify", "labels": ["Bright", "Vague"]}}), tmp_path / "run")
    write_bundle(run, tmp_path / "bundle")
    _, paths, expected = cases(discs, predict_run(run, discs.manifest), 3)
    found = run_by_monai(tmp_path / "bundle", [path for path, *_ in paths])
    assert [pytest.approx(row, abs=1e-3) for row in expected] == found


def test_colours_palettes_and_transparency_are_read_as_in_medssl(runs, discs, tmp_path, medssl):
    manifest = open_data(discs).manifest
    (path,) = manifest.all_paths(manifest.cases["case_id"][0])["image"]
    with Image.open(path) as grey:
        tinted = Image.merge("RGB", [grey, grey.rotate(90), grey.transpose(Image.Transpose.FLIP_LEFT_RIGHT)])
        veiled = grey.convert("LA")
        veiled.putalpha(grey.rotate(180))
        pictures = {"palette.png": tinted.quantize(32), "grey_palette.png": grey.quantize(64), "veiled.png": veiled,
                    "clear.png": tinted.convert("RGBA"), "print.jpg": tinted.convert("CMYK"),
                    "ink.png": grey.convert("1"), "wide.tif": tinted.convert("YCbCr"), "colour.png": tinted}
    (tmp_path / "new").mkdir()
    for name, picture in pictures.items():
        picture.save(tmp_path / "new" / name)
    medssl("predict", runs["regress"], "new")
    names = {case_id: Path(path).name for case_id, path in
             pl.read_csv("predictions.files.csv").select("case_id", "path").iter_rows()}
    expected = {names[case_id]: value for case_id, value in
                pl.read_csv("predictions.csv").select("case_id", "prediction").iter_rows()}
    assert expected.keys() == pictures.keys()
    write_bundle(runs["regress"], tmp_path / "bundle")
    rows = run_by_monai(tmp_path / "bundle", [str(tmp_path / "new" / name) for name in expected])
    assert [row["Radius"] for row in rows] == pytest.approx(list(expected.values()), abs=1e-5)


def test_it_names_the_packages_that_its_command_needs(runs, volume_run, tmp_path):
    for run, reader in ((runs["pretrain"], "pillow"), (volume_run, "nibabel")):
        bundle = tmp_path / reader
        write_bundle(run, bundle)
        assert f"pip install monai {reader} fire\npython -m monai" in (bundle / "docs/README.md").read_text()
        required = json.loads((bundle / "configs/metadata.json").read_text())["required_packages_version"]
        assert required.keys() == {"nibabel", "pillow", "fire"}


def test_three_colours_are_not_several_files(discs, volume_run, tmp_path):
    coloured = discs.model_copy(update={"prepare": discs.prepare.model_copy(update={"colour": True})})
    colour_run = finetune(FinetuneConfig.model_validate({
        "data": coloured, "encoder": SMALL["encoder"] | {"channels": 3}, "train": TRAIN,
        "task": {"name": "classify", "labels": ["Bright"]}}), tmp_path / "run")
    for run, is_said in ((colour_run, False), (volume_run, True)):
        write_bundle(run, tmp_path / f"bundle_{is_said}")
        assert ("several files" in (tmp_path / f"bundle_{is_said}/docs/README.md").read_text()) == is_said


def test_regions_of_pictures_are_drawn_as_in_medssl(runs, discs, tmp_path):
    write_bundle(runs["segment"], tmp_path / "bundle")
    ids, paths, expected = cases(discs, predict_run(runs["segment"], discs.manifest, tmp_path / "masks"), 2)
    found = run_by_monai(tmp_path / "bundle", [path for path, *_ in paths])
    assert found == expected
    for case_id, (path, *_) in zip(ids, paths, strict=True):
        ours, theirs = (np.asarray(Image.open(file)) for file in (
            tmp_path / f"masks/{case_id}.png", tmp_path / f"bundle/masks/{Path(path).stem}_mask.png"))
        np.testing.assert_array_equal(theirs, ours)


def test_regions_of_volumes_lie_on_the_scans_own_voxels(volumes, volume_run, tmp_path):
    write_bundle(volume_run, tmp_path / "bundle")
    ids, paths, expected = cases(volumes, predict_run(volume_run, volumes.manifest, tmp_path / "masks"), 1)
    (found,) = run_by_monai(tmp_path / "bundle", [paths[0][:2]])
    assert found == pytest.approx(expected[0], rel=1e-3)
    ours = nibabel.load(tmp_path / f"masks/{ids[0]}.nii.gz")
    (theirs,) = map(nibabel.load, (tmp_path / "bundle/masks").iterdir())
    np.testing.assert_allclose(theirs.affine, ours.affine, atol=1e-4)
    assert (np.asarray(theirs.dataobj) != np.asarray(ours.dataobj)).mean() < 1e-3
    assert 0 < np.asarray(ours.dataobj).mean() < 2


def test_a_scan_with_voxels_that_are_no_numbers_is_refused_as_it_would_be_skipped(volumes, volume_run, tmp_path):
    write_bundle(volume_run, tmp_path / "bundle")
    _, paths, _ = cases(volumes, predict_run(volume_run, volumes.manifest), 1)
    spoilt = tmp_path / "spoilt.nii.gz"
    scan = nibabel.load(paths[0][0])
    values = scan.get_fdata(dtype=np.float32)
    values[0, 0, 0] = np.nan
    nibabel.save(nibabel.Nifti1Image(values, scan.affine), spoilt)
    with pytest.raises(RuntimeError) as refused:
        run_by_monai(tmp_path / "bundle", [[str(spoilt), *paths[0][1:]]])
    assert "The scan holds NaN or infinite values" in "".join(traceback.format_exception(refused.value))


def test_it_names_no_path_and_no_patient(runs, tmp_path):
    write_bundle(runs["classify"], tmp_path / "bundle")
    seen = json.loads((runs["classify"] / "model.json").read_text())["patients_seen"]
    folders = [Path(torch.__file__).parents[1], Path(__file__).parents[2], runs["classify"].parent]
    files = [path for path in (tmp_path / "bundle").rglob("*") if path.is_file()]
    assert {path.relative_to(tmp_path / "bundle").as_posix() for path in files} == {
        "LICENSE", "configs/inference.json", "configs/metadata.json", "docs/README.md", "models/model.ts",
        "models/preparation.ts"}
    for path in files:
        assert not [name for name in (*map(str, folders), *seen) if name.encode() in path.read_bytes()]


def test_what_a_bundle_cannot_do_is_refused(runs, tmp_path):
    (tmp_path / "used").mkdir()
    (tmp_path / "used/file").touch()
    with pytest.raises(ConfigError, match="is not empty"):
        write_bundle(runs["classify"], tmp_path / "used")
    for name in ("model.safetensors", "recipe.yaml"):
        (tmp_path / name).write_bytes((runs["classify"] / name).read_bytes())
    told = json.loads((runs["classify"] / "model.json").read_text())
    (tmp_path / "model.json").write_text(json.dumps(told | {"kind": "cine"}))
    with pytest.raises(ConfigError, match="learnt from clips"):
        write_bundle(tmp_path, tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()
