"""A segmentation of several channels that starts from a pretraining on one, and what becomes of its volumes."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
from small_sets import make

from medssl.data.manifest import Manifest
from medssl.data.prepare import prepare
from medssl.data.source import DataConfig
from medssl.evaluate.single import predict_run
from medssl.io.write import write_nifti
from medssl.rng import stream
from medssl.train.finetune import FinetuneConfig, finetune
from medssl.train.pretrain import PretrainConfig, pretrain

FOUR = {name: f"{{case}}/{name}.nii.gz" for name in ("t1", "t1ce", "t2", "flair")}
TRAIN = {"batch_size": 2, "precision": "float32", "steps": 3}


def volumes(folder: Path) -> None:
    for number in range(4):
        rng = stream("channels", number)
        for name in FOUR:
            write_nifti(folder / f"{number}/{name}.nii.gz", rng.random((20, 18, 22)).astype(np.float32), np.eye(4))
        mask = np.zeros((20, 18, 22), np.uint8)
        mask[4:9, 5:12, 6:10], mask[5:7, 6:8, 7:9] = 1, 2
        write_nifti(folder / f"{number}/seg.nii.gz", mask, np.eye(4))


def data(manifest: Manifest, path: Path, **box) -> DataConfig:
    manifest.save(path)
    config = DataConfig.model_validate({"manifest": path, "cache": path.parent / "cache", "box": box,
                                        "prepare": {"intensity": "zscore"}})
    prepare(manifest, config.cache, config.prepare, workers=0)
    return config


def test_weights_of_one_channel_start_a_segmentation_of_four(tmp_path):
    volumes(tmp_path / "in")
    one = make(tmp_path / "in", kind="volume", files={"t1": FOUR["t1"]})
    four = make(tmp_path / "in", kind="volume", files=FOUR, mask="{case}/seg.nii.gz", regions={"WT": [1, 2], "ET": [2]})
    start = pretrain(PretrainConfig.model_validate({
        "data": data(one, tmp_path / "one.parquet", size=[16, 16, 16]), "encoder": {"name": "unet", "widths": [4, 8]},
        "objective": {"name": "masked_reconstruction", "ratio": 0.5, "block": [8, 8, 8]}, "train": TRAIN,
    }), tmp_path / "start")
    run = finetune(FinetuneConfig.model_validate({
        "data": data(four, tmp_path / "four.parquet", size=[16, 16, 16], foreground=0.5), "init": start,
        "decoder": True, "task": {"name": "segment", "overlap": 0.5}, "train": TRAIN}), tmp_path / "run")
    assert "channels 1 to 4" in (run / "init.txt").read_text()
    table = predict_run(run, tmp_path / "four.parquet", tmp_path / "masks")
    assert table["name"].unique().sort().to_list() == ["ET", "WT"]
    masks = sorted((tmp_path / "masks").iterdir())
    assert len(masks) == 4
    assert {nibabel.load(path).shape for path in masks} == {(22, 18, 20)}
