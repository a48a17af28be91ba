"""A few judged cases kept as arrays, so that a report can show what a segmentation arm drew."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import polars as pl

from medssl.augment.policy import PolicyConfig
from medssl.data.source import Data
from medssl.evaluate.predict import outputs
from medssl.tasks import LabelledModel
from medssl.train.launch import Precision

CASES = 4


def save_examples(
    folder: Path, arm: str, model: LabelledModel, data: Data, judged: pl.DataFrame, augment: PolicyConfig,
    precision: Precision,
) -> None:
    """Writes <arm>.npz: image (n, J, I), truth and prediction (n, J, I) with 0 outside and r + 1 in the r-th region.

    The slice with the most labelled voxels of the first cases by case id, the same for every arm; regions are painted in
    the card's order, so that nested ones stay visible.
    """
    images, truths, predictions = [], [], []
    for case, logits, mask in outputs(model, data, judged.sort("case_id").head(CASES), augment, precision):
        truth = np.stack([np.isin(mask, values) for values in model.task.regions.values()])
        place = int((mask > 0).sum(axis=(1, 2)).argmax())
        truths.append(_paint(truth[:, place]))
        predictions.append(_paint(logits[:, place] > 0))
        images.append(data.cache.array(case["case_id"])[0, place].astype(np.float32))
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / f".{arm}.npz"
    with open(temporary, "wb") as file:
        np.savez_compressed(file, image=np.stack(images), truth=np.stack(truths), prediction=np.stack(predictions),
                            regions=np.array(list(model.task.regions)))
    os.replace(temporary, folder / f"{arm}.npz")


def _paint(regions: np.ndarray) -> np.ndarray:
    painted = np.zeros(regions.shape[1:], dtype=np.uint8)
    for value, region in enumerate(regions, start=1):
        painted[region] = value
    return painted
