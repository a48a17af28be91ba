"""Does a curve: what its points start from, then the points, then what they say together."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path

from medssl.data.pool import cores
from medssl.data.source import Data, open_data
from medssl.evaluate.conclude import conclude
from medssl.evaluate.curve import HOW, Curve, CurveConfig, Point
from medssl.evaluate.finetuned import run_finetuned
from medssl.evaluate.frozen import run_frozen
from medssl.evaluate.growth import keep_former_arms, may_change
from medssl.evaluate.shares import Share
from medssl.evaluate.starts import check_arms, pretrain_starts, require_starts, starts_of
from medssl.train.run import begin_run, finish_run, held, one_at_a_time, open_run, read_provenance, timed

log = logging.getLogger(__name__)

PAUSE = 5.0
"""Seconds between looks at a pretraining that another share does."""


def run_curve(
    config: CurveConfig, out: Path, workers: int | None, bar: Callable[..., object], data: Data | None = None
) -> list[str]:
    """Pretrains where an arm asks for it, does every point that is not done, and returns the verdict. The folder
    may be of a recipe that differs in what `growth.may_change` alone.

    Args:
        workers: processes for the finetuned points, one thread each; by default one a core.
        bar: makes a progress display, `with bar(name, total) as progress: progress(done, total)`.
        data: the opened `config.data`, where the caller has it already.
    """
    began = time.monotonic()
    data = data or opened(config, out, bar)
    with held(out):
        curve = Curve(config, out, data)
        _open(curve)
        with timed(out, began):
            pretrain_starts(curve, [start for start in starts_of(curve) if curve.config.arms[start[0]].pretrain], bar)
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
    data = data or opened(config, out, bar)
    with held(out, beside_others=True), held(out / "shares" / f"{share.number}-of-{share.count}"):
        curve = Curve(config, out, data)
        with one_at_a_time(out):
            _open(curve)
        points = share.of(curve.points(*HOW))
        needed = {point.start for point in points if not curve.is_done(point)}
        starts = [start for start in share.turned(starts_of(curve)) if start in needed]
        with timed(out, began):
            others = pretrain_starts(curve, starts, bar, beside_others=True)
            _do(curve, [point for point in points if point.start not in others], workers or cores(), bar)
            while others := pretrain_starts(curve, others, bar, beside_others=True):
                time.sleep(PAUSE)
            _do(curve, points, workers or cores(), bar)
        return len(points)


def opened(config: CurveConfig, out: Path, bar: Callable[..., object]) -> Data:
    """The prepared `config.data`, once the weights that its arms begin with are known to be there."""
    require_starts(config, out)
    with bar("prepare") as progress:
        return open_data(config.data, progress)


def _open(curve: Curve) -> None:
    """Makes the curve's folder, or finds it; refuses what cannot be done."""
    config, out = curve.config, curve.out
    if left_out := sorted(set(config.fractions) - set(curve.fractions)):
        log.warning(f"left out: the fractions {', '.join(map(str, left_out))}, which of so few labelled patients "
                    "come to fewer than two, or to as many as a smaller one")
    keep_former_arms(out, config)
    open_run(out, config, may_change, seed=list(range(config.seeds)), manifest=curve.data.manifest.digest,
             train_patients=[len(fold.train) for fold in curve.folds],
             judged_patients=[curve.judged_cases(fold.index)["patient_id"].n_unique() for fold in curve.folds],
             skipped_cases=len(curve.data.skipped))
    begin_run(out, starts=read_provenance(out).get("starts", {}) | check_arms(curve),
              shown_fraction=curve.shown_fraction)


def _do(curve: Curve, points: list[Point], workers: int, bar) -> None:
    """Those that are not done."""
    todo = [point for point in points if not curve.is_done(point)]
    run_frozen(curve, [point for point in todo if curve.config.arms[point.arm].how != "finetune"], bar)
    run_finetuned(curve, [point for point in todo if curve.config.arms[point.arm].how == "finetune"], workers, bar)
