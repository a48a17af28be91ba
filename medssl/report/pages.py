"""Which folders go into a page: curves, the pretrainings inside them, and pretraining runs of their own."""

from __future__ import annotations

import json
from pathlib import Path

from medssl.data.source import Data
from medssl.errors import RunError
from medssl.evaluate.curve import CurveConfig
from medssl.report.html import write_report
from medssl.report.preview import draw_pretraining
from medssl.train.run import is_finished


def report_runs(runs: list[Path], out: Path, title: str) -> Path:
    """One page of any number of run folders; RunError for a folder that is neither a curve nor a pretraining run."""
    curves = [run for run in runs if (run / "curve.json").is_file()]
    pretrains = [run for run in runs if is_finished(run) and not (run / "curve.json").is_file()]
    unknown = [run for run in runs if run not in curves and run not in pretrains]
    if unknown:
        raise RunError(f"{unknown[0]} is neither a finished curve nor a finished run",
                       expected="curve.json or model.json in it",
                       remedy="run medssl curve or medssl pretrain to its end")
    if finetuned := [run for run in pretrains if "task" in json.loads((run / "model.json").read_text())]:
        raise RunError(f"{finetuned[0]} is a finetuning run, of which a report has no page",
                       expected="curve folders and pretraining runs",
                       remedy="medssl evaluate judges it; a medssl curve puts it beside others")
    inside = [run for curve in curves for run in sorted((curve / "pretrain").glob("*-k0"))
              if is_finished(run) and _arm_of(run) in json.loads((curve / "curve.json").read_text())["labels"]]
    return write_report(out, title, curves, [*inside, *pretrains])


def _arm_of(pretraining: Path) -> str:
    """The recipe may have it no more."""
    return pretraining.name.removesuffix("-k0")


def draw_curve_pretrainings(config: CurveConfig, out: Path, data: Data) -> None:
    """Pictures for the first fold's pretraining of every arm."""
    for run in sorted((out / "pretrain").glob("*-k0")):
        arm = config.arms.get(_arm_of(run))
        if arm and arm.pretrain and is_finished(run):
            draw_pretraining(run, arm.pretrain, data.read_as(arm.pretrain.data))
