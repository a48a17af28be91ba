"""A few judged cases kept as arrays, so that a report can show what a segmentation arm drew."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl

from medssl.augment.policy import PolicyConfig
from medssl.data.source import Data
from medssl.evaluate.predict import outputs
from medssl.files import whole
from medssl.tasks import LabelledModel
from medssl.train.precision import Precision

CASES = 4


def save_examples(
    folder: Path, arm: str, model: LabelledModel, data: Data, judged: pl.DataFrame, augment: PolicyConfig,
    precision: Precision,
) -> None:
    """Writes <arm>.npz: image (n, J, I), truth and prediction (n, J, I) with 0 outside and r + 1 in the r-th region.

    The slice with the most labelled voxels of the first cases by case id, the same for every arm; regions are painted
    in the card's order, so that nested ones stay visible. Smaller slices are padded with zeros at their end.
    """
    images, truths, predictions = [], [], []
    for case, logits, mask in outputs(model, data, judged.sort("case_id").head(CASES), augment, precision):
        image, place = data.cache.array(case["case_id"])[0], _fullest(mask)
        truth = np.stack([np.isin(mask, values) for values in model.task.regions.values()])
        truths.append(_paint(truth[:, *place]))
        predictions.append(_paint(model.task.drawn(logits)[:, *place]))
        images.append(image[place].astype(np.float32))
    size = np.max([image.shape for image in images], axis=0)
    images, truths, predictions = (_padded(each, size) for each in (images, truths, predictions))
    folder.mkdir(parents=True, exist_ok=True)
    with whole(folder / f"{arm}.npz") as draft, draft.open("wb") as file:
        np.savez_compressed(file, image=images, truth=truths, prediction=predictions,
                            regions=np.array(list(model.task.regions)))


def _fullest(mask: np.ndarray) -> tuple[int, ...]:
    """The index of the slice or frame with the most labelled voxels; () where the mask is an image's."""
    return () if mask.ndim == 2 else (int((mask > 0).sum(axis=(1, 2)).argmax()),)


def _padded(planes: list[np.ndarray], size: np.ndarray) -> np.ndarray:
    """(n, *size) of planes no larger than `size`."""
    return np.stack([np.pad(plane, [(0, n - m) for n, m in zip(size, plane.shape, strict=True)]) for plane in planes])


def _paint(regions: np.ndarray) -> np.ndarray:
    painted = np.zeros(regions.shape[1:], dtype=np.uint8)
    for value, region in enumerate(regions, start=1):
        painted[region] = value
    return painted
