"""The points of a curve whose encoder stays as it is: features are computed once, and every point judged on them."""

from __future__ import annotations

import time
from itertools import groupby

import numpy as np
import torch

from medssl.evaluate.curve import Curve, Point
from medssl.evaluate.probe import neighbours, probes
from medssl.models.start import open_start
from medssl.rng import torch_seed
from medssl.train.build import fitted_encoder, start_from
from medssl.train.features import pixels, pooled_features


def run_frozen(curve: Curve, todo: list[Point], bar) -> None:
    if not todo:
        return
    everything = curve.points("probe", "knn", "pixels")
    with bar("probes", len(todo)) as progress:
        done = 0
        for start, group in groupby(sorted(todo, key=lambda point: point.start), key=lambda point: point.start):
            began, missing = time.monotonic(), set(group)
            # all that start alike, since what is solved together agrees to the last bit only if it is always the same
            points = [point for point in everything if point.start == start]
            train_features, judged_features = _features(curve, *start)
            labelled, judged = curve.labelled(points[0].fold), curve.judged_cases(points[0].fold)
            subsets = [labelled["case_id"].is_in(curve.labelled_cases(point)["case_id"].to_list()).to_numpy()
                       for point in points]
            judge = neighbours if curve.config.arms[start[0]].how == "knn" else probes
            found = judge(curve.config.task, train_features, labelled, subsets, judged_features, judged)
            for point, predictions in zip(points, found, strict=True):
                if point in missing:
                    curve.save(point, predictions, (time.monotonic() - began) / len(points))
            done += len(missing)
            progress(done, len(todo))


def _features(curve: Curve, arm: str, fold: int, pretraining: int) -> tuple[np.ndarray, np.ndarray]:
    cases = curve.labelled(fold), curve.judged_cases(fold)
    settings, config = curve.config.arms[arm], curve.config
    if settings.how == "pixels":
        return tuple(pixels(curve.data, part, settings.size) for part in cases)
    torch.manual_seed(torch_seed(fold, "random encoder"))
    encoder = fitted_encoder(curve.encoder_config(arm), curve.data, config.augment)
    if weights := curve.weights(arm, fold, pretraining):
        start_from(open_start(weights), curve.data, encoder)
    return tuple(pooled_features(encoder, curve.data, part, config.augment, config.train.precision) for part in cases)
