"""Which folders go into a page: curves, the pretrainings inside them, and runs of their own."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Literal

from medssl.data.source import Data
from medssl.errors import MedsslError, RunError
from medssl.evaluate.curve import CurveConfig
from medssl.evaluate.points import opened, run_curve
from medssl.evaluate.single import JUDGED, judged_folder
from medssl.models.weights import read_description
from medssl.report.html import write_report
from medssl.report.judged import is_judged
from medssl.report.preview import draw_pretraining
from medssl.report.study import keep_study
from medssl.report.tables import read_head
from medssl.train.bar import Bar
from medssl.train.run import is_finished

log = logging.getLogger(__name__)


def curve_with_report(config: CurveConfig, out: Path, workers: int | None = None) -> list[str]:
    """A curve with the pictures of its pretrainings and its own report.html; returns the verdict."""
    data = opened(config, out, Bar)
    verdict = run_curve(config, out, workers, Bar, data)
    keep_study(data, out)
    draw_curve_pretrainings(config, out, data)
    report_runs([out], out / "report.html", config.title or out.name)
    return verdict


def report_runs(runs: list[Path], out: Path, title: str = "") -> Path:
    """One page of any number of run folders; RunError for a folder that is none, or is not finished.

    Of a model of one file, the folder beside it that its judgements are left in is a run's, too, and may be named by
    the file. title: by default after what the page is of.
    """
    if bare := [run for run in runs if run.is_file() and not is_judged(judged_folder(run))]:
        raise RunError(f"{bare[0]} was not judged yet", expected=f"{judged_folder(bare[0])}, as judgements leave it",
                       remedy=f"medssl evaluate {bare[0]} first, with data.manifest=… of its own set, or --manifest … "
                              "of another")
    runs = list(dict.fromkeys(judged_folder(run) if run.is_file() else run for run in runs))
    kinds = {run: _kind(run) for run in runs}
    if unknown := [run for run, kind in kinds.items() if kind is None]:
        raise RunError(f"{unknown[0]} is no folder of a finished run", expected="curve.json or model.json in it",
                       remedy="run medssl curve, pretrain or finetune to its end")
    curves, models, pretrains = ([run for run in runs if kinds[run] == kind]
                                 for kind in ("curve", "finetuned", "pretrained"))
    inside = [run for curve in curves for run in _inside(curve)]
    kind = "Label-efficiency" if curves else "Finetuning" if models else "Pretraining"
    return write_report(out, title or f"{kind} report", curves, [*inside, *pretrains], finetuned=models)


def _inside(curve: Path) -> list[Path]:
    """Its finished pretrainings, the first of each arm."""
    arms = read_head(curve).labels
    return [run for run in sorted((curve / "pretrain").glob("*-k0")) if is_finished(run) and _arm_of(run) in arms]


def _kind(run: Path) -> Literal["curve", "finetuned", "pretrained"] | None:
    if (run / "curve.json").is_file():
        return "curve"
    if is_finished(run):
        return "finetuned" if "task" in read_description(run) else "pretrained"
    return "finetuned" if run.resolve().name.endswith(JUDGED) and is_judged(run) else None


def _arm_of(pretraining: Path) -> str:
    """The recipe may have it no more."""
    return pretraining.name.removesuffix("-k0")


def draw_curve_pretrainings(config: CurveConfig, out: Path, data: Data) -> None:
    """Pictures for the first fold's pretraining of every arm."""
    for run in sorted((out / "pretrain").glob("*-k0")):
        arm = config.arms.get(_arm_of(run))
        if arm and arm.pretrain and is_finished(run):
            try:
                draw_pretraining(run, arm.pretrain, data.read_as(arm.pretrain.data))
            except (OSError, MedsslError) as error:  # the curve's verdict is worth more
                log.warning(f"no pictures of the pretraining {run.name}: {error}")
