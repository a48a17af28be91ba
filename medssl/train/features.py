"""What a network says of whole cases: the mean over their boxes, the same as in training, nothing random."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import polars as pl
import torch
from torch import Tensor, nn

from medssl.augment.policy import PolicyConfig, ViewPolicy
from medssl.data.loader import BoxConfig, stacked
from medssl.data.source import Data
from medssl.models import Encoder
from medssl.train.precision import Precision, autocast, best_device
from medssl.types import Batch, ViewSpec

DEFAULT = BoxConfig().judged


def pooled_features(
    encoder: Encoder, data: Data, cases: pl.DataFrame, augment: PolicyConfig, precision: Precision = "auto",
    batch_size: int = 64,
) -> np.ndarray:
    """(cases, D): an encoder's pooled features, averaged over a case's boxes."""
    def pooled(images: torch.Tensor) -> torch.Tensor:
        return encoder(images).pooled

    return mean_over_boxes(encoder, pooled, data, cases, augment, precision, batch_size)


def standardisation(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and scale (D,) that bring (n, D) features to mean 0 and spread 1; one that does not vary keeps its scale."""
    spread = features.std(axis=0)
    return features.mean(axis=0), np.where(spread > 1e-6, spread, 1.0)


def pixels(data: Data, cases: pl.DataFrame, size: int) -> np.ndarray:
    """(cases, D): the pixels of the central box of each case, shrunk to `size` along both axes of the plane."""
    pool = torch.nn.functional.adaptive_avg_pool2d
    boxes = (torch.from_numpy(_box(data, case_id, 0.5).astype(np.float32)) for case_id in cases["case_id"])
    return stacked([pool(box, size).numpy() for box in boxes]).flatten(1).numpy()


@torch.no_grad()
def mean_over_boxes(
    module: nn.Module, score: Callable[[Tensor], Tensor], data: Data, cases: pl.DataFrame, augment: PolicyConfig,
    precision: Precision, batch_size: int = 64,
) -> np.ndarray:
    """(cases, n): the mean over a case's boxes of score(images (B, C, *S)) -> (B, n), `module` being what scores."""
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
    box = data.config.box
    room = box.room(data.cache.shape(case_id)[1:])
    if not any(room):
        return [0.5]
    if box.judged == "all" and room[0]:
        return np.linspace(0, 1, room[0] + 1).tolist()
    judged = DEFAULT if box.judged == "all" else box.judged
    if not box.planar:
        return np.linspace(0, 1, judged).tolist() if judged > 1 else [0.5]
    slices = min(judged, room[0] + 1)  # the outermost slices show little of the body
    return ((np.arange(slices) + 1) / (slices + 1)).tolist()


def _box(data: Data, case_id: str, share: float) -> np.ndarray:
    """The box at that share of the way through the case; all slices, and the clips of every frame, are looked at in the
    middle of their plane."""
    array, box = data.cache.array(case_id), data.config.box
    along_first = box.planar or box.judged == "all" and box.room(array.shape[1:])[0]
    shares = (share, *[0.5 if along_first else share] * (array.ndim - 2))
    return box.read(array, tuple(round(s * r) for s, r in zip(shares, box.room(array.shape[1:]), strict=True)))
