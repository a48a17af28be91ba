"""The whole way from files to report through the command line, for each kind of data, with everything it says."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from pathlib import Path

import yaml

from medssl.cli import main

_SCAN = {"layout": "scan", "namespace": "hospital", "patient": ["{patient}", "{folder}"], "study": "{study}",
         "extract": {"path": "(?P<folder>[^/]+)/.+"}}
_SHOWN = {name: f"{{{name}}}" for name in ("view", "manufacturer", "model", "body_part", "image_type")}
CARDS = {
    "films": _SCAN | {
        "kind": "image", "filters": [{"source": "{modality}", "keep": "DX", "reason": "no X-ray"}],
        "join": {"path": "labels.csv", "match": {"patient": "PatientID"}}, "labels": {"columns": ["Sick"]},
        "split": {"source": "{Split}"}, "attributes": _SHOWN | {"age": {"source": "{age}", "unit": "years"}}},
    "pictures": {
        "layout": "table", "kind": "image", "modality": "CR", "tables": [{"path": "labels.csv"}],
        "files": {"image": "{Path}"}, "patient": "{MRN}", "study": "{Study}", "split": {"source": "{Split}"},
        "labels": {"columns": ["Sick"]},
        "attributes": {"view": "{View}", "age": {"source": "{Age}", "unit": "years"}}},
    "volumes": {
        "layout": "pattern", "kind": "volume", "modality": "MR", "mask": "{case}/{case}_seg.nii.gz",
        "files": {"t1": "{case}/{case}_t1.nii.gz", "flair": "{case}/{case}_flair.nii.gz"}, "regions": {"whole": [1]},
        "patient": "{case}", "split": {"shares": {"train": 1.0}}},
    "clips": {
        "layout": "table", "kind": "cine", "modality": "US", "tables": [{"path": "FileList.csv"}],
        "files": {"image": "{FileName}"}, "patient": "{MRN}", "split": {"source": "{Split}"},
        "join": {"path": "EF.csv", "match": {"MRN": "MRN"}}, "labels": {"columns": ["EF"]}},
}  # fmt: skip
SHORT = {"steps": 2, "batch_size": 2, "workers": 0, "precision": "float32", "log_every": 1}
_ENCODER = {"name": "resnet", "blocks": [1, 1, 1, 1], "widths": [4, 4, 4, 4]}
_FILMS = {"manifest": "films.parquet", "cache": "cache", "prepare": {"size": [32, 32]}}
_TASK = {"task": {"name": "classify", "labels": ["Sick"]}, "data": _FILMS, "train": SHORT}
_MASKED = {"name": "masked_reconstruction", "ratio": 0.5, "block": [8, 8], "fill": "noise"}
_UNET = {"name": "unet", "dims": 2, "widths": [4, 8]}
RECIPES = {
    "pretrain": {"step": "pretrain", "data": _FILMS, "encoder": _UNET, "objective": _MASKED, "train": SHORT},
    "finetune": _TASK | {"step": "finetune", "encoder": _ENCODER},
    "curve": _TASK | {"step": "curve", "fractions": [1.0], "seeds": 2, "subgroup": "view", "arms": {
        "scratch": {"encoder": _UNET}, "masked": {"init": "run", "baseline": "scratch"},
        "probe": {"how": "probe", "weights_of": "masked"}}},
}  # fmt: skip
SMALL = ("data.prepare.size=[16,16]", "data.cache=cache")
STEPS = (
    ("manifest", "data_manifests/dicom_folder.yaml", "{hospital}/dicom", "--out", "archive.parquet"),
    ("check", "archive.parquet", "--deep", "--out", "archive.html"),
    ("prepare", "pipelines/dicom_folder/simsiam.yaml", "data.manifest=archive.parquet", *SMALL,
     "data.where={{kind: [image]}}"),
    ("manifest", "films.yaml", "{hospital}/dicom", "--out", "films.parquet"),
    ("preview", "pretrain.yaml", "--out", "views.png"),
    ("pretrain", "pretrain.yaml", "--out", "run"),
    ("finetune", "finetune.yaml", "--out", "tuned"),
    ("evaluate", "tuned"),
    ("predict", "tuned", "films.parquet", "--out", "predictions.csv"),
    ("curve", "curve.yaml", "--out", "curve", "--workers", "1"),
    ("report", "curve", "run", "--out", "report.html"),
    ("manifest", "pictures.yaml", "{hospital}/xrays", "--out", "pictures.csv"),
    ("check", "pictures.csv", "--deep", "--out", "pictures-check.html"),
    ("prepare", "pretrain.yaml", "data.manifest=pictures.csv", *SMALL),
    ("manifest", "volumes.yaml", "{hospital}/volumes", "--out", "volumes.parquet"),
    ("manifest", "data_manifests/nifti_folder.yaml", "{hospital}/volumes", "--out", "untold.parquet"),
    ("check", "volumes.parquet", "--deep"),
    ("prepare", "pretrain.yaml", "data.manifest=volumes.parquet", *SMALL),
    ("manifest", "clips.yaml", "{hospital}/clips", "--out", "clips.parquet"),
    ("check", "clips.parquet", "--deep", "--out", "clips.html"),
    ("prepare", "pretrain.yaml", "data.manifest=clips.parquet", *SMALL),
)
FINDS_ERRORS = ("check",)
"""These end with exit status 1 here, since there is something to find."""


def travel(hospital: Path, folder: Path, steps: tuple[tuple[str, ...], ...] = STEPS) -> str:
    """Takes the steps within `folder`; returns all that reached the terminal, whoever wrote it there."""
    for name, card in CARDS.items():
        (folder / f"{name}.yaml").write_text(yaml.safe_dump({"name": name, "about": "a test", **card}))
    for name, recipe in RECIPES.items():
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(recipe))
    said = folder.with_name(f"{folder.name}.terminal")
    with contextlib.chdir(folder), _terminal(said):
        for step in steps:
            status = _run([word.format(hospital=hospital) for word in step])
            assert status == 0 or (status == 1 and step[0] in FINDS_ERRORS), f"{step}: {said.read_text()}"
    return said.read_text(errors="replace")


def _run(arguments: list[str]) -> int:
    kept, sys.argv = sys.argv, ["medssl", *arguments]
    try:
        main()
    except SystemExit as done:
        return int(done.code or 0)
    finally:
        sys.argv = kept
    return 0


@contextlib.contextmanager
def _terminal(path: Path):
    """Standard output and error of Python, of its logging and of native libraries go to a file."""
    with open(path, "a", buffering=1) as file:
        handler = logging.StreamHandler(file)
        kept = os.dup(1), os.dup(2)
        logging.getLogger().addHandler(handler)
        try:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
            with contextlib.redirect_stdout(file), contextlib.redirect_stderr(file):
                yield
        finally:
            logging.getLogger().removeHandler(handler)
            for number, old in enumerate(kept, start=1):
                os.dup2(old, number)
                os.close(old)
