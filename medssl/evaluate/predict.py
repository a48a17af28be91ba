"""A trained model judged case by case: the same boxes and sizes as in training, nothing random."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict

import numpy as np
import polars as pl
import torch
from monai.inferers import sliding_window_inference

from medssl.augment.policy import PolicyConfig
from medssl.data.source import Data
from medssl.evaluate.studies import judged_units
from medssl.tasks import LabelledModel
from medssl.train.build import view_size
from medssl.train.features import mean_over_boxes
from medssl.train.precision import Precision, autocast, best_device

Judged = tuple[dict, np.ndarray, np.ndarray | None]
"""A manifest row, the task's output for it, and its mask where the task needs one; the row of a dense task says the
prepared grid's `spacing`, too."""


def predict(
    model: LabelledModel, data: Data, cases: pl.DataFrame, augment: PolicyConfig, precision: Precision = "auto",
    batch_size: int = 64, keep: Callable[..., None] | None = None,
) -> pl.DataFrame:
    """One row a case and name: case_id, patient_id, name, target, prediction, and the case's attributes; where the task
    is scored by study, a study is a case.

    keep: given each case with the task's output and its mask, as `outputs` has them.
    """
    rows, attributes = [], [name for name in cases.columns if name.startswith("attr.")]
    for case, output, mask in outputs(model, data, cases, augment, precision, batch_size):
        known = {name: case[name] for name in attributes}
        rows += [asdict(row) | known for row in model.task.judge(case, output, mask)]
        if keep:
            keep(case, output, mask)
    schema = {"case_id": pl.String, "patient_id": pl.String, "name": pl.String, "target": pl.Float64,
              "prediction": pl.Float64}
    return pl.DataFrame(rows, schema=schema | {name: cases.schema[name] for name in attributes})


def measure_no_distances(model: LabelledModel) -> None:
    """Of a segmentation, where the primary metric alone is asked for: they take longest."""
    if model.task.config.name == "segment":
        model.task.config = model.task.config.model_copy(update={"distances": False})


def outputs(
    model: LabelledModel, data: Data, cases: pl.DataFrame, augment: PolicyConfig, precision: Precision = "auto",
    batch_size: int = 64,
) -> Iterator[Judged]:
    """The task's output for each case: (L,), or (R, *S) logits on the prepared grid for dense tasks; for each study
    where the task is scored so."""
    if model.task.needs_mask:
        yield from _dense(model, data, cases, augment, precision, batch_size)
    elif len(cases):
        values = mean_over_boxes(model, model.outputs, data, cases, augment, precision, batch_size)
        units, values = judged_units(model.task.config, cases, values)
        yield from ((unit, value, None) for unit, value in zip(units.to_dicts(), values, strict=True))


@torch.no_grad()
def _dense(model: LabelledModel, data: Data, cases: pl.DataFrame, augment: PolicyConfig, precision: Precision,
           batch_size: int) -> Iterator[Judged]:
    """Sliding windows of the training box over the whole case, weighted towards their middle; slice by slice for
    planar models."""
    device = best_device()
    model.eval().to(device)
    window = view_size(data, augment)
    for case in cases.to_dicts():
        sample = data.cache.read(case["case_id"])
        image = torch.from_numpy(sample.array).to(device)
        planar = data.config.box.planar
        batch = image.transpose(0, 1) if planar else image[None]  # (K, C, J, I) or (1, C, *S)
        with autocast(precision, model, device):
            found = sliding_window_inference(batch, window, batch_size, model.outputs, model.task.config.overlap,
                                             "gaussian")
        found = found.transpose(0, 1) if planar else found[0]
        yield case | {"spacing": sample.spacing}, found.float().cpu().numpy(), sample.mask
