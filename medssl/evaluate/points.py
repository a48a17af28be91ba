"""Does the points of a curve: pretraining where an arm asks for it, probes in this process, finetuning in a pool."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import as_completed
from itertools import groupby, product
from pathlib import Path

import numpy as np
import polars as pl
import torch

from medssl.data.pool import cores, worker_pool
from medssl.data.source import Data, open_data
from medssl.errors import InUse
from medssl.evaluate.choice import choose_lr
from medssl.evaluate.conclude import conclude
from medssl.evaluate.curve import Curve, CurveConfig, Point
from medssl.evaluate.examples import Drawn, save_ranked
from medssl.evaluate.predict import predict
from medssl.evaluate.probe import probes
from medssl.evaluate.shares import Share
from medssl.models.start import Start, open_start
from medssl.rng import torch_seed
from medssl.tasks import LabelledModel
from medssl.train.build import (
    fitted_encoder,
    labelled_model,
    refuse_seen,
    shared_decoder,
    start_from,
    start_model,
    tell_account,
)
from medssl.train.features import pixels, pooled_features
from medssl.train.finetune import fit_labelled
from medssl.train.pretrain import fitted_objective, pretrain
from medssl.train.run import begin_run, finish_run, held, one_at_a_time, open_run, read_provenance, timed

HOW = ("finetune", "probe", "pixels")
PAUSE = 5.0
"""Seconds between looks at a pretraining that another share does."""
PointStart = tuple[str, int, int]
"""Arm, fold and pretraining."""


def run_curve(
    config: CurveConfig, out: Path, workers: int | None, bar: Callable[..., object], data: Data | None = None
) -> list[str]:
    """Pretrains where an arm asks for it, does every point that is not done, and returns the verdict.

    Args:
        workers: processes for the finetuned points, one thread each; by default one a core.
        bar: makes a progress display, `with bar(name, total) as progress: progress(done, total)`.
        data: the opened `config.data`, where the caller has it already.
    """
    began = time.monotonic()
    data = data or _opened(config, bar)
    with held(out):
        curve = Curve(config, out, data)
        _open(curve)
        with timed(out, began):
            _pretrain(curve, [start for start in _starts(curve) if curve.config.arms[start[0]].pretrain], bar)
            _do(curve, curve.points(*HOW), workers or cores(), bar)
        finish_run(out)
        return conclude(curve)


def run_share(
    config: CurveConfig, out: Path, share: Share, workers: int | None, bar: Callable[..., object],
    data: Data | None = None,
) -> int:
    """Does a share of the points, and the pretrainings that they start from, beside others who do theirs; concludes
    nothing. Returns how many points the share has. Arguments as `run_curve`."""
    began = time.monotonic()
    data = data or _opened(config, bar)
    with held(out, beside_others=True), held(out / "shares" / f"{share.number}-of-{share.count}"):
        curve = Curve(config, out, data)
        with one_at_a_time(out):
            _open(curve)
        points = share.of(curve.points(*HOW))
        needed = {point.start for point in points if not curve.is_done(point)}
        starts = [start for start in share.turned(_starts(curve)) if start in needed]
        with timed(out, began):
            others = _pretrain(curve, starts, bar, beside_others=True)
            _do(curve, [point for point in points if point.start not in others], workers or cores(), bar)
            while others := _pretrain(curve, others, bar, beside_others=True):
                time.sleep(PAUSE)
            _do(curve, points, workers or cores(), bar)
        return len(points)


def _opened(config: CurveConfig, bar) -> Data:
    with bar("prepare") as progress:
        return open_data(config.data, progress)


def _open(curve: Curve) -> None:
    """Makes the curve's folder, or finds it; refuses what cannot be done."""
    config, out = curve.config, curve.out
    open_run(out, config, seed=list(range(config.seeds)), manifest=curve.data.manifest.digest,
             train_patients=[len(fold.train) for fold in curve.folds],
             judged_patients=[len(fold.judged) for fold in curve.folds], skipped_cases=len(curve.data.skipped))
    begin_run(out, starts=read_provenance(out).get("starts", {}) | _check_arms(curve))


def _do(curve: Curve, points: list[Point], workers: int, bar) -> None:
    """Those that are not done."""
    todo = [point for point in points if not curve.is_done(point)]
    _run_probes(curve, [point for point in todo if curve.config.arms[point.arm].how != "finetune"], bar)
    _run_finetunes(curve, [point for point in todo if curve.config.arms[point.arm].how == "finetune"], workers, bar)


def _starts(curve: Curve) -> list[PointStart]:
    """Everything that points start from."""
    return list(product(curve.config.arms, (fold.index for fold in curve.folds), range(curve.config.pretrainings)))


def _pretrain(curve: Curve, starts: list[PointStart], bar, beside_others: bool = False) -> list[PointStart]:
    """The pretrainings that these starts need, and those among them at which another share is at work."""
    busy = []
    for start in starts:
        try:
            _pretrain_one(curve, *start, bar)
        except InUse:
            if not beside_others:
                raise
            busy.append(start)
    return busy


def _pretrain_one(curve: Curve, arm: str, index: int, again: int, bar) -> None:
    arm = curve.config.arms[arm].weights_of or arm
    settings, fold, run = curve.config.arms[arm], curve.folds[index], curve.weights(arm, index, again)
    if settings.pretrain is None:
        return
    data = curve.data.read_as(settings.pretrain.data)
    recipe = settings.pretrain.model_copy(update={"seed": curve.pretrain_seed(arm, index, again), "data": data.config})
    which = _which("fold", index, len(curve.folds)) + _which("time", again, curve.config.pretrainings)
    with bar(f"pretrain {arm}{which}", recipe.train.steps) as progress:
        pretrain(recipe, run, fold.train, data, progress)
    refuse_seen(open_start(run), curve.data, fold.judged)


def _which(what: str, index: int, count: int) -> str:
    return f", {what} {index + 1} of {count}" if count > 1 else ""


def _check_arms(curve: Curve) -> dict[str, dict[str, str]]:
    """Refuses what cannot be done before anything is trained, tells what becomes of weights made elsewhere, and
    returns their origins by arm; of arms that are done nothing is asked any more."""
    origins = {}
    todo = {point.arm for point in curve.points("finetune", "probe") if not curve.is_done(point)}
    for arm, settings in curve.config.arms.items():
        if arm not in todo:
            continue
        elsewhere = curve.elsewhere(arm)
        start = open_start(elsewhere) if elsewhere else None
        if start:
            origins[arm] = start.origin
            for fold in curve.folds:
                refuse_seen(start, curve.data, fold.judged)
        account = _tried(curve, arm, start)
        if settings.init:
            tell_account(start, account, curve.out / "init" / arm)
    return origins


def _tried(curve: Curve, arm: str, start: Start | None) -> str:
    """The account of an arm's weights, had from its models, which are thrown away."""
    config, settings, architecture = curve.config, curve.config.arms[arm], curve.encoder_config(arm)
    source = config.arms[settings.weights_of] if settings.weights_of else settings
    parts: Collection[str] = ()
    if source.pretrain:
        objective, _ = fitted_objective(source.pretrain, curve.data.read_as(source.pretrain.data), start)
        parts = objective.parts()
    if settings.how == "probe":
        encoder = fitted_encoder(architecture, curve.data, config.augment)
        return start_from(start, curve.data, encoder) if source.init else ""
    model = labelled_model(config.task, architecture, curve.data, config.augment)
    if source.init:
        return start_model(model, start, curve.data, settings.decoder)
    if settings.decoder:
        shared_decoder(model, parts)
    return ""


def _run_probes(curve: Curve, todo: list[Point], bar) -> None:
    if not todo:
        return
    with bar("probes", len(todo)) as progress:
        done = 0
        for start, group in groupby(sorted(todo, key=lambda point: point.start), key=lambda point: point.start):
            began, missing = time.monotonic(), set(group)
            # all that start alike, since what is solved together agrees to the last bit only if it is always the same
            points = [point for point in curve.points("probe", "pixels") if point.start == start]
            train_features, judged_features = _features(curve, *start)
            labelled, judged = curve.labelled(points[0].fold), curve.judged_cases(points[0].fold)
            subsets = [labelled["case_id"].is_in(curve.labelled_cases(point)["case_id"].to_list()).to_numpy()
                       for point in points]
            found = probes(curve.config.task, train_features, labelled, subsets, judged_features, judged)
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


def _run_finetunes(curve: Curve, todo: list[Point], workers: int, bar) -> None:
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
        jobs = [pool.submit(_point_in_worker, point) for point in todo]
        try:
            for job in as_completed(jobs):
                yield job.result()
        finally:
            for job in jobs:
                job.cancel()


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
        choice = choose_lr(config.choice, config.task, cases, point.seed, lambda inside, outside, tried:
                           _judged(curve, _finetuned(curve, point, inside, tried), outside))
        lr = choice.lr or lr
        chosen = {"lr": lr, "held_out_score": choice.scores.get(lr)}
    model = _finetuned(curve, point, cases, lr)
    predictions = _judged_and_shown(curve, point, model, judged)
    curve.save(point, predictions, time.monotonic() - began, **chosen)


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
    path, task = curve.out / "examples" / f"{point.arm}.npz", curve.config.task.name
    if task == "segment":
        drawn = Drawn(model, curve.data, cases)
        predictions = _judged(curve, model, cases, drawn.keep)
        drawn.save(path, predictions)
    else:
        predictions = _judged(curve, model, cases)
        save_ranked(path, task, curve.data, predictions)
    return predictions
