"""Judged cases kept as pictures, so that a report can show the best, the median and the worst of them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import polars as pl

from medssl.data.source import Data
from medssl.evaluate.failures import without_few
from medssl.evaluate.scoring import TaskKind, case_scores
from medssl.files import whole
from medssl.tasks import LabelledModel

MOST = 60
"""Segmented cases that are kept of a model, evenly over their ids, the same of every arm of a curve."""
EXAMPLES = "examples.npz"
"""Of what one model judged, beside its predictions."""


class Drawn:
    """What a segmentation drew, a slice a case: the one with the most labelled voxels, the same for every arm."""

    def __init__(self, model: LabelledModel, data: Data, judged: pl.DataFrame) -> None:
        ids = judged["case_id"].sort().to_list()
        self._kept = {ids[place] for place in np.linspace(0, len(ids) - 1, min(MOST, len(ids))).round().astype(int)}
        self._task, self._data = model.task, data
        self._slices: dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]] = {}

    def keep(self, case: Mapping, output: np.ndarray, mask: np.ndarray) -> None:
        """One judged case; output: (R, *S) logits, mask: (*S)."""
        case_id = case["case_id"]
        if case_id not in self._kept:
            return
        place = _fullest(mask)
        truth = np.stack([np.isin(mask, values) for values in self._task.regions.values()])
        image = self._data.cache.array(case_id)[0][place]
        self._slices[case_id] = (image, _paint(truth[:, *place]), _paint(self._task.drawn(output)[:, *place]))

    def save(self, path: Path, predictions: pl.DataFrame) -> None:
        """Writes image (n, J, I), truth and prediction (n, J, I) with 0 outside and r + 1 in the r-th region, and the
        mean Dice `score` (n,), by case id; regions are painted in the card's order, so that nested ones stay visible.
        Smaller slices are padded with zeros at their end."""
        ids = sorted(self._slices)
        scores = dict(case_scores("segment", predictions).iter_rows())
        images, truths, drawn = (_stacked([self._slices[case_id][part] for case_id in ids]) for part in range(3))
        _save(path, image=images.astype(np.float16), truth=truths, prediction=drawn,
              score=np.array([scores[case_id] for case_id in ids]), regions=np.array(list(self._task.regions)))


class Ranked:
    """Of a classification or regression, the cases that were judged best, at the median and worst."""

    def __init__(self, data: Data, task: TaskKind) -> None:
        self._data, self._task = data, task

    def keep(self, case: Mapping, output: np.ndarray, mask: np.ndarray | None) -> None:
        """Nothing of a case: which ones are shown is known once all are judged."""

    def save(self, path: Path, predictions: pl.DataFrame) -> None:
        """Writes image (3, J, I), the middle slice or frame of each, and what is `told` (3,) of it: the truth and what
        was predicted, as `failures.without_few`. Of a study one image is shown. Nothing where nothing may be told."""
        told_of = without_few(self._task, predictions)
        cases = self._data.cases.sort("case_id", descending=True)
        image_of = dict(zip(cases["study_id"], cases["case_id"], strict=True))
        image_of |= {each: each for each in cases["case_id"]}
        ranked = case_scores(self._task, told_of).filter(pl.col("case_id").is_in(list(image_of)))
        ranked = ranked.sort("score", "case_id", descending=[True, False])["case_id"].to_list()
        if not ranked:
            return
        chosen = [ranked[place] for place in (0, (len(ranked) - 1) // 2, -1)]
        told = [_told(self._task, told_of.filter(pl.col("case_id") == case_id)) for case_id in chosen]
        images = _stacked([_middle(self._data.cache.array(image_of[case_id])[0]) for case_id in chosen])
        _save(path, image=images.astype(np.float16), told=np.array(told))


def examples_of(model: LabelledModel, data: Data, judged: pl.DataFrame) -> Drawn | Ranked:
    """What keeps pictures of the judged cases of a model."""
    task = model.task.config.name
    return Drawn(model, data, judged) if task == "segment" else Ranked(data, task)


def _told(task: str, rows: pl.DataFrame) -> str:
    """'Edema: 0.91, truth 1', a line a name."""
    digits = 2 if task == "classify" else 1
    return "\n".join(f"{row['name']}: {row['prediction']:.{digits}f}, truth {row['target']:g}"
                     for row in rows.sort("name").iter_rows(named=True))


def _save(path: Path, **arrays: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole(path) as draft, draft.open("wb") as file:
        np.savez_compressed(file, **arrays)


def _fullest(mask: np.ndarray) -> tuple[int, ...]:
    """The index of the slice or frame with the most labelled voxels; () where the mask is an image's."""
    return () if mask.ndim == 2 else (int((mask > 0).sum(axis=(1, 2)).argmax()),)


def _middle(image: np.ndarray) -> np.ndarray:
    """(*S) -> (J, I)."""
    return image if image.ndim == 2 else image[len(image) // 2]


def _stacked(planes: list[np.ndarray]) -> np.ndarray:
    """(n, J, I) of the largest."""
    size = np.max([plane.shape for plane in planes], axis=0)
    return np.stack([np.pad(plane, [(0, n - m) for n, m in zip(size, plane.shape, strict=True)]) for plane in planes])


def _paint(regions: np.ndarray) -> np.ndarray:
    painted = np.zeros(regions.shape[1:], dtype=np.uint8)
    for value, region in enumerate(regions, start=1):
        painted[region] = value
    return painted
