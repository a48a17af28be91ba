"""A trained model judged case by case: the same boxes and sizes as in training, nothing random."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict

import numpy as np
import polars as pl
import torch
from monai.inferers import sliding_window_inference

from medssl.augment.policy import PolicyConfig, ViewPolicy
from medssl.data.loader import stacked
from medssl.data.source import Data
from medssl.models import Encoder
from medssl.tasks import LabelledModel
from medssl.train.build import view_size
from medssl.train.precision import Precision, autocast, best_device
from medssl.types import Batch, ViewSpec

CLIPS = 4
"""Boxes per case that are averaged where a case is larger than the box, evenly spread over it."""

Judged = tuple[dict, np.ndarray, np.ndarray | None]
"""A manifest row, the task's output for it, and its mask where the task needs one; the row of a dense task says the
prepared grid's `spacing`, too."""


def predict(
    model: LabelledModel, data: Data, cases: pl.DataFrame, augment: PolicyConfig, precision: Precision = "auto",
    batch_size: int = 64,
) -> pl.DataFrame:
    """One row a case and name: case_id, patient_id, name, target, prediction, and the case's attributes."""
    rows = [asdict(row) for case, output, mask in outputs(model, data, cases, augment, precision, batch_size)
            for row in model.task.judge(case, output, mask)]
    schema = {"case_id": pl.String, "patient_id": pl.String, "name": pl.String, "target": pl.Float64,
              "prediction": pl.Float64}
    attributes = cases.select("case_id", *[c for c in cases.columns if c.startswith("attr.")])
    return pl.DataFrame(rows, schema=schema).join(attributes, on="case_id", how="left")


def outputs(
    model: LabelledModel, data: Data, cases: pl.DataFrame, augment: PolicyConfig, precision: Precision = "auto",
    batch_size: int = 64,
) -> Iterator[Judged]:
    """The task's output for each case: (L,), or (R, *S) logits on the prepared grid for dense tasks."""
    if model.task.needs_mask:
        yield from _dense(model, data, cases, augment, precision, batch_size)
        return

    def score(images: torch.Tensor) -> torch.Tensor:
        return model.task.outputs(model.encoder(images), tuple(images.shape[2:]))

    values = _per_case(model, score, data, cases, augment, precision, batch_size) if len(cases) else ()
    yield from ((case, value, None) for case, value in zip(cases.to_dicts(), values, strict=True))


def pooled_features(
    encoder: Encoder, data: Data, cases: pl.DataFrame, augment: PolicyConfig, precision: Precision = "auto",
    batch_size: int = 64,
) -> np.ndarray:
    """(cases, D): an encoder's pooled features, averaged over a case's boxes."""
    def pooled(images: torch.Tensor) -> torch.Tensor:
        return encoder(images).pooled

    return _per_case(encoder, pooled, data, cases, augment, precision, batch_size)


def pixels(data: Data, cases: pl.DataFrame, size: int) -> np.ndarray:
    """(cases, D): the pixels of the central box of each case, shrunk to `size` along both axes of the plane."""
    pool = torch.nn.functional.adaptive_avg_pool2d
    boxes = (torch.from_numpy(_box(data, case_id, 0.5).astype(np.float32)) for case_id in cases["case_id"])
    return stacked([pool(box, size).numpy() for box in boxes]).flatten(1).numpy()


@torch.no_grad()
def _per_case(module, score, data: Data, cases: pl.DataFrame, augment: PolicyConfig, precision: Precision,
              batch_size: int) -> np.ndarray:
    """Mean over a case's boxes of score(images (B, C, *S)) -> (B, n)."""
    device = best_device()
    module.eval().to(device)
    policy = ViewPolicy(augment.still(), ViewSpec(), seed=0)
    sums: dict[str, list[np.ndarray]] = {}
    queue = [(case_id, share) for case_id in cases["case_id"] for share in _places(data, case_id)]
    for start in range(0, len(queue), batch_size):
        part = queue[start : start + batch_size]
        images = stacked([_box(data, case_id, share) for case_id, share in part]).float()
        batch = Batch([case_id for case_id, _ in part], images.to(device))
        with autocast(precision, module, device):
            values = score(policy(batch).images[0]).float().cpu().numpy()
        for (case_id, _), value in zip(part, values, strict=True):
            sums.setdefault(case_id, []).append(value)
    return np.stack([np.mean(sums[case_id], axis=0) for case_id in cases["case_id"]])


def _places(data: Data, case_id: str) -> list[float]:
    """Where a case is looked at, as shares of the way along its diagonal."""
    room = data.config.box.room(data.cache.shape(case_id)[1:])
    if not any(room):
        return [0.5]
    if not data.config.box.planar:
        return np.linspace(0, 1, CLIPS).tolist()
    slices = min(CLIPS, room[0] + 1)  # the outermost slices show little of the body
    return ((np.arange(slices) + 1) / (slices + 1)).tolist()


def _box(data: Data, case_id: str, share: float) -> np.ndarray:
    """The box at that share of the way through the case; all slices are looked at in the middle of their plane."""
    array, box = data.cache.array(case_id), data.config.box
    shares = (share, *[0.5 if box.planar else share] * (array.ndim - 2))
    return box.read(array, tuple(round(s * r) for s, r in zip(shares, box.room(array.shape[1:]), strict=True)))


@torch.no_grad()
def _dense(model: LabelledModel, data: Data, cases: pl.DataFrame, augment: PolicyConfig, precision: Precision,
           batch_size: int) -> Iterator[Judged]:
    """Sliding windows of the training box over the whole case, weighted towards their middle; slice by slice for
    planar models."""
    device = best_device()
    model.eval().to(device)
    window = view_size(data, augment)

    def logits(images: torch.Tensor) -> torch.Tensor:
        return model.task.outputs(model.encoder(images), tuple(images.shape[2:]))

    for case in cases.to_dicts():
        sample = data.cache.read(case["case_id"])
        image = torch.from_numpy(sample.array).to(device)
        planar = data.config.box.planar
        batch = image.transpose(0, 1) if planar else image[None]  # (K, C, J, I) or (1, C, *S)
        with autocast(precision, model, device):
            found = sliding_window_inference(batch, window, batch_size, logits, model.task.config.overlap, "gaussian")
        found = found.transpose(0, 1) if planar else found[0]
        yield case | {"spacing": sample.spacing}, found.float().cpu().numpy(), sample.mask
