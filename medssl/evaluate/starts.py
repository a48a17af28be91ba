"""What the points of a curve start from: checked before anything is trained, pretrained where an arm asks for it."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from medssl.errors import InUse
from medssl.evaluate.curve import Curve, CurveConfig
from medssl.models.start import Start, open_start
from medssl.train.build import (
    fitted_encoder,
    labelled_model,
    refuse_seen,
    shared_decoder,
    start_from,
    start_model,
    tell_account,
)
from medssl.train.pretrain import fitted_objective, pretrain

PointStart = tuple[str, int, int]
"""Arm, fold and pretraining."""


def require_starts(config: CurveConfig, out: Path) -> None:
    """RunError where weights that an arm begins with are not there, before hours of preparing; of a curve that has
    begun `check_arms` asks later."""
    if (out / "points").is_dir():
        return
    for arm in config.arms.values():
        for init in (arm.init, arm.pretrain and arm.pretrain.init):
            if init:
                open_start(init)


def check_arms(curve: Curve) -> dict[str, dict[str, str]]:
    """Refuses what cannot be done before anything is trained, tells what becomes of weights made elsewhere, and
    returns their origins by arm; of arms that are done nothing is asked any more."""
    origins = {}
    todo = {point.arm for point in curve.points("finetune", "probe", "knn") if not curve.is_done(point)}
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
    if settings.how in ("probe", "knn"):
        encoder = fitted_encoder(architecture, curve.data, config.augment)
        return start_from(start, curve.data, encoder) if source.init else ""
    model = labelled_model(config.task, architecture, curve.data, config.augment)
    if source.init:
        return start_model(model, start, curve.data, settings.decoder)
    if settings.decoder:
        shared_decoder(model, parts)
    return ""


def starts_of(curve: Curve) -> list[PointStart]:
    """Everything that points start from."""
    return [(arm, fold.index, again) for arm in curve.config.arms for fold in curve.folds
            for again in range(curve.config.pretrainings_of(arm))]


def pretrain_starts(curve: Curve, starts: list[PointStart], bar, beside_others: bool = False) -> list[PointStart]:
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
    which = _which("fold", index, len(curve.folds)) + _which("time", again, curve.config.pretrainings_of(arm))
    with bar(f"pretrain {arm}{which}", recipe.train.steps) as progress:
        pretrain(recipe, run, fold.train, data, progress)
    refuse_seen(open_start(run), curve.data, fold.judged)


def _which(what: str, index: int, count: int) -> str:
    return f", {what} {index + 1} of {count}" if count > 1 else ""
