"""The finetuned points of a curve, in a pool of processes on a CPU and one after another on a GPU."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from concurrent.futures import as_completed
from functools import partial

import polars as pl
import torch

from medssl.data.pool import cores, worker_pool
from medssl.evaluate.choice import choose_lr
from medssl.evaluate.curve import Curve, Point
from medssl.evaluate.examples import examples_of
from medssl.evaluate.predict import measure_no_distances, predict
from medssl.models.start import open_start
from medssl.rng import torch_seed
from medssl.tasks import LabelledModel
from medssl.train.build import labelled_model, start_model
from medssl.train.finetune import fit_labelled

log = logging.getLogger(__name__)


def run_finetuned(curve: Curve, todo: list[Point], workers: int, bar) -> None:
    if not todo:
        return
    with bar("finetune", len(todo)) as progress:
        for done, point in enumerate(_finished(curve, _longest_first(todo), workers), start=1):
            progress(done, len(todo), note=point.stem)


def _finished(curve: Curve, todo: list[Point], workers: int) -> Iterator[Point]:
    if workers == 1 or torch.cuda.is_available():
        for point in todo:
            _finetune_point(curve, point)
            yield point
        return
    threads = max(1, cores() // workers)
    with worker_pool(min(workers, len(todo)), _open_in_worker, curve, threads) as pool:
        for job in as_completed([pool.submit(_point_in_worker, point) for point in todo]):
            yield job.result()


def _longest_first(points: list[Point]) -> list[Point]:
    return sorted(points, key=lambda point: (-point.fraction, point))


_curve: Curve | None = None
"""The worker process's own copy of the opened curve."""


def _open_in_worker(curve: Curve, threads: int) -> None:
    global _curve
    torch.set_num_threads(threads)
    _curve = curve


def _point_in_worker(point: Point) -> Point:
    _finetune_point(_curve, point)
    return point


def _finetune_point(curve: Curve, point: Point) -> None:
    began, config, settings = time.monotonic(), curve.config, curve.config.arms[point.arm]
    cases, judged = curve.labelled_cases(point), curve.judged_cases(point.fold)
    lr, chosen = settings.lr or config.train.optim.lr, {}
    if config.choice and settings.lr is None:
        choice = choose_lr(config.choice, config.task, cases, point.seed, partial(_attempt, curve, point))
        lr = choice.lr or lr
        chosen = {"lr": lr, "held_out_score": choice.scores.get(lr)}
        chosen |= {"diverged": choice.diverged} if choice.diverged else {}
        if choice.lr is None:
            log.warning(f"{point.stem}: no rate could be chosen, so it takes the budget's, {lr:g}")
    model = _finetuned(curve, point, cases, lr)
    predictions = _judged_and_shown(curve, point, model, judged)
    curve.save(point, predictions, time.monotonic() - began, **chosen)


def _attempt(curve: Curve, point: Point, inside: pl.DataFrame, outside: pl.DataFrame, lr: float) -> pl.DataFrame:
    """As `choice.Attempt`."""
    model = _finetuned(curve, point, inside, lr)
    measure_no_distances(model)
    return _judged(curve, model, outside)


def _finetuned(curve: Curve, point: Point, cases: pl.DataFrame, lr: float) -> LabelledModel:
    """The point's model, trained on these of its cases."""
    config, settings = curve.config, curve.config.arms[point.arm]
    torch.manual_seed(torch_seed(point.seed, point.fold, "weights"))
    model = labelled_model(config.task, curve.encoder_config(point.arm), curve.data, config.augment)
    if weights := curve.weights(*point.start):
        start_model(model, open_start(weights), curve.data, settings.decoder)
    train = config.train.model_copy(update={"optim": config.train.optim.model_copy(update={"lr": lr})})
    fit_labelled(model, curve.data, cases, config.augment, train, point.seed, settings.tuning)
    return model


def _judged(curve: Curve, model: LabelledModel, cases: pl.DataFrame, keep: Callable | None = None) -> pl.DataFrame:
    return predict(model, curve.data, cases, curve.config.augment, curve.config.train.precision, keep=keep)


def _judged_and_shown(curve: Curve, point: Point, model: LabelledModel, cases: pl.DataFrame) -> pl.DataFrame:
    """The predictions; of the one point of each arm whose cases the report shows, pictures are kept, too."""
    if (point.fraction, point.fold, point.seed, point.pretraining) != (curve.shown_fraction, 0, 0, 0):
        return _judged(curve, model, cases)
    examples = examples_of(model, curve.data, cases)
    predictions = _judged(curve, model, cases, examples.keep)
    examples.save(curve.out / "examples" / f"{point.arm}.npz", predictions)
    return predictions
