"""The commands that train."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from medssl.commands.arguments import Out, Overrides, Recipe, run_folder

Tasks = Annotated[int | None, typer.Option(
    "--slurm", min=1, help="Leaves a batch script of so many tasks, one a GPU, in the run folder, and starts nothing.")]


def pretrain(recipe: Recipe, overrides: Overrides = None, out: Out = None, slurm: Tasks = None) -> None:
    """Trains an encoder without labels on the training patients.

    Example: medssl pretrain pipelines/chexpert/simsiam.yaml data.manifest=chexpert.parquet train.batch_size=256
    """
    from medssl.models.start import check_start
    from medssl.recipe import load_recipe
    from medssl.report.live import onlookers
    from medssl.report.preview import draw_pretraining
    from medssl.slurm import write_job
    from medssl.train.bar import Bar
    from medssl.train.launch import launch
    from medssl.train.pretrain import pretrain as run
    from medssl.train.together import open_together

    config, folder = load_recipe(recipe, "pretrain", overrides), out or run_folder(recipe)
    if slurm:
        print(write_job(folder, slurm, _words("pretrain", recipe, overrides, folder)))
        return
    check_start(config.init, folder)
    with launch(config.train.devices, config.train.strategy) as world:
        with Bar("prepare", quiet=not world.is_first) as progress:
            data = open_together(world, config.data, progress)
        with Bar("pretrain", config.train.steps, quiet=not world.is_first) as progress:
            run(config, folder, data=data, progress=progress, world=world, onlookers=onlookers(config, data))
    if world.is_first:
        draw_pretraining(folder, config, data)
        print(folder)


def finetune(recipe: Recipe, overrides: Overrides = None, out: Out = None, slurm: Tasks = None) -> None:
    """Trains a task on a fraction of the labelled training patients, from scratch or from a pretraining run.

    Example: medssl finetune pipelines/chexpert/finetune.yaml init=runs/chexpert/mae fraction=0.1
    """
    from medssl.models.start import check_start
    from medssl.recipe import load_recipe
    from medssl.slurm import write_job
    from medssl.train.bar import Bar
    from medssl.train.finetune import finetune as run
    from medssl.train.launch import launch
    from medssl.train.together import open_together

    config, folder = load_recipe(recipe, "finetune", overrides), out or run_folder(recipe)
    if slurm:
        print(write_job(folder, slurm, _words("finetune", recipe, overrides, folder)))
        return
    check_start(config.init, folder)
    with launch(config.train.devices, config.train.strategy) as world:
        with Bar("prepare", quiet=not world.is_first) as progress:
            data = open_together(world, config.data, progress)
        with Bar("finetune", config.train.steps, quiet=not world.is_first) as progress:
            run(config, folder, progress, world, data)
    if world.is_first:
        print(folder)


def curve(
    recipe: Recipe, overrides: Overrides = None, out: Out = None,
    workers: Annotated[int | None, typer.Option(help="Processes on a CPU; by default one a core.")] = None,
    share: Annotated[str | None, typer.Option(help="Does a share of the points, such as 3/16, beside other shares on "
                                              "any machine; the same command without it concludes.")] = None,
    slurm: Annotated[int | None, typer.Option(min=1, help="Writes curve.sbatch, an array of so many shares, and starts "
                                                          "nothing.")] = None,
) -> None:
    """Arms × label fractions × seeds, with 95 % intervals and a verdict. Stopped, it goes on where it was.

    Example: medssl curve pipelines/chexpert/curve.yaml data.manifest=chexpert.parquet arms.mae.init=runs/mae
    """
    from medssl.errors import ConfigError
    from medssl.evaluate.points import run_share
    from medssl.evaluate.shares import Share
    from medssl.recipe import load_recipe
    from medssl.report.pages import curve_with_report
    from medssl.slurm import write_array
    from medssl.train.bar import Bar

    config, folder = load_recipe(recipe, "curve", overrides), out or run_folder(recipe)
    if slurm and share:
        raise ConfigError("--slurm and --share were both given", remedy="leave --share out",
                          expected="--slurm alone, whose script deals out the shares")
    if slurm:
        given = [] if workers is None else ["--workers", str(workers)]
        print(write_array(folder, slurm, [*_words("curve", recipe, overrides, folder), *given]))
        return
    if share:
        print(f"{run_share(config, folder, Share.read(share), workers, Bar)} points of {folder} are done by this share")
        return
    for sentence in curve_with_report(config, folder, workers):
        print(sentence)
    print(folder / "report.html")


def demo(
    out: Annotated[Path, typer.Option(help="Folder for everything the demo makes.")] = Path("runs/demo"),
    patients: Annotated[float, typer.Option(min=0.01, help="Multiplies the demo's number of patients.")] = 1.0,
    only: Annotated[str | None, typer.Option(help="One of xray, brain, echo.")] = None,
    overrides: Overrides = None,
) -> None:
    """The whole way on synthetic patients: phantoms, manifest, pretraining, curves, report. Minutes on a laptop's CPU.

    Overrides go to all three curves; pretrain.key=value reaches their pretraining.

    Example: medssl demo --out runs/demo
    """
    from medssl.demo import run_demo

    print(f"\nThe report: {run_demo(out, patients, only, overrides or [])}")


def _words(command: str, recipe: Path, overrides: list[str] | None, folder: Path) -> list[str]:
    return [command, str(recipe), *(overrides or []), "--out", str(folder)]
