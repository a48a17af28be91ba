"""The command line: one function a subcommand. Errors are one message, never a traceback."""

from __future__ import annotations

import logging
import signal
import sys
from pathlib import Path
from typing import Annotated, Literal, NoReturn

import typer

from medssl import __version__
from medssl.accounts import print_counts, print_kinds, print_scores, print_skipped
from medssl.errors import ConfigError, MedsslError, Stopped
from medssl.train.rank import has_the_word, refuse_several
from medssl.train.signals import STOPPING

app = typer.Typer(
    name="medssl", no_args_is_help=True, add_completion=False, rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    help="How many labels does pretraining save on my scans, and how sure are we? "
         "Start with [bold]medssl demo[/bold].",
)

SET = "[KEY.SUB=VALUE]..."
Overrides = Annotated[list[str] | None, typer.Argument(help="Any field of the recipe, as key.sub=value.", metavar=SET)]
CardOverrides = Annotated[list[str] | None, typer.Argument(help="Any field of the card, as key.sub=value.",
                                                           metavar=SET)]
Recipe = Annotated[Path, typer.Argument(help="A YAML file; those under pipelines/ come with medssl.")]
ManifestPath = Annotated[Path, typer.Argument(help="Written by medssl manifest.")]
Out = Annotated[Path | None, typer.Option(help="Run folder; by default runs/<folder>/<name> of the recipe.")]


class _Interrupted(BaseException):
    """Ctrl-C, which typer would keep to itself, or another request to stop."""


def _interrupt(signum: int, frame: object) -> None:
    raise _Interrupted(signum)


def main() -> None:
    """Runs the command line; exit status 1 for an error that has a message, 128 + n when stopped by signal n."""
    logging.basicConfig(format="medssl: %(message)s", level=logging.WARNING)
    for number in STOPPING:
        signal.signal(number, _interrupt)
    try:
        app()
    except Stopped as stopped:
        _end(stopped, 128 + stopped.signal)
    except MedsslError as error:
        _end(error, 1)
    except OSError as error:  # a full disk, a folder without permission, a folder where a file should be
        _end(f"{error.filename or 'a file'}: {error.strerror or error}. "
             "Remedy: see that the path is right, may be written to, and that its disk has room.", 1)
    except (_Interrupted, KeyboardInterrupt) as interrupted:
        _end("interrupted; the same command goes on from what is finished and the last checkpoint",
             128 + next(iter(interrupted.args), signal.SIGINT))


def _end(message: object, status: int) -> NoReturn:
    has_word = has_the_word(asked=status > 128)
    for number in (signal.SIGTERM, signal.SIGUSR1):  # of srun, when another task has ended
        signal.signal(number, signal.SIG_IGN)
    if has_word:
        print(f"medssl: {message}", file=sys.stderr)
    sys.exit(status)


@app.callback(invoke_without_command=True)
def _begin(context: typer.Context,
           version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        print(__version__)
        raise typer.Exit
    if context.invoked_subcommand not in ("pretrain", "finetune"):
        refuse_several(f"medssl {context.invoked_subcommand}")


@app.command()
def phantom(
    name: Annotated[str, typer.Argument(help="xray, brain or echo.")],
    out: Annotated[Path, typer.Argument(help="Folder to write to.")],
    patients: Annotated[int, typer.Option(min=4, help="How many synthetic patients.")] = 100,
    seed: Annotated[int, typer.Option(help="Another seed, other patients.")] = 0,
) -> None:
    """Writes a synthetic dataset in a real dataset's own layout.

    Example: medssl phantom xray /tmp/CheXpert --patients 200
    """
    from medssl.demo import write_phantom

    write_phantom(name, out, patients, seed)
    print(f"{patients} {name} patients in {out}")


@app.command()
def manifest(
    card: Annotated[Path, typer.Argument(help="A card; those under data_manifests/ come with medssl.")],
    folder: Annotated[Path, typer.Argument(help="The dataset's folder.")],
    out: Annotated[Path, typer.Option(help="The table to write, .parquet or .csv.")],
    overrides: CardOverrides = None,
    key: Annotated[Path | None, typer.Option(help="File with the pseudonym key; default $MEDSSL_KEY_FILE, "
                                                  "then ~/.medssl/pseudonym.key.")] = None,
    linked: Annotated[list[Path] | None, typer.Option(help="Storage outside the folder that its links may lead into; "
                                                           "give it once a place.")] = None,
    skipped: Annotated[Path | None, typer.Option(help="A table to write, .csv, of every file that was left out; it "
                                                      "holds paths, and only you can read it.")] = None,
) -> None:
    """Card + folder -> manifest: one row a case, pseudonyms for people, and every skipped file with its reason.

    Example: medssl manifest data_manifests/chexpert.yaml /data/CheXpert --out chexpert.parquet
    """
    from medssl.data.build import build
    from medssl.data.card import Card
    from medssl.data.pseudonym import load_key
    from medssl.recipe import find
    from medssl.train.bar import Bar

    read = Card.read(find(card, "data_manifests"), overrides or ())
    with Bar("manifest") as progress:
        built = build(read, folder, load_key(key), progress, linked or ())
    built.save(out)
    patients = built.cases["patient_id"].n_unique()
    print(f"{len(built.cases)} cases of {patients} patients in {out}")
    print_counts("split", built.cases["split"].to_list())
    print_kinds(built.cases)
    print_skipped(built.skipped, skipped)


@app.command()
def check(
    manifest: ManifestPath,
    deep: Annotated[bool, typer.Option(help="Open every file, too.")] = False,
    out: Annotated[Path | None, typer.Option(help="A page to write, .html, with pictures of patients; the cases of "
                                                  "each finding go into a .csv beside it.")] = None,
) -> None:
    """Says what is wrong with a manifest before a night is lost; exit status 1 when there are errors.

    Example: medssl check chexpert.parquet --deep --out check.html
    """
    from medssl.data.checks import check as find_faults
    from medssl.data.checks import gather
    from medssl.data.manifest import Manifest
    from medssl.report.findings import require_free_name, write_findings
    from medssl.train.bar import Bar

    if out:
        require_free_name(out, manifest)
    table, facts = Manifest.load(manifest), None
    if deep:
        with Bar("check") as progress:
            facts = gather(table, progress=progress)
    findings = find_faults(table, facts)
    for finding in findings:
        print(f"{finding.level}: {finding.what}")
        for name in ("expected", "remedy"):
            if getattr(finding, name):
                print(f"    {name}: {getattr(finding, name)}")
        for case_id in finding.cases[:5] if finding.level == "error" else []:  # paths go to the terminal alone
            print(f"    {case_id}: {', '.join(map(str, table.paths(case_id).values()))}")
    errors = sum(finding.level == "error" for finding in findings)
    print(f"{errors} errors, {len(findings) - errors} warnings and notes")
    if out:
        print(*write_findings(out, table, findings, facts), sep="\n")
    raise typer.Exit(1 if errors else 0)


@app.command()
def prepare(recipe: Recipe, overrides: Overrides = None) -> None:
    """Decodes the recipe's cases once, in parallel; run again, it does only what is new or changed.

    Example: medssl prepare pipelines/chexpert/simsiam.yaml data.manifest=chexpert.parquet
    """
    from medssl.data.source import open_data
    from medssl.recipe import load_any
    from medssl.train.bar import Bar

    config = load_any(recipe, overrides)
    with Bar("prepare") as progress:
        data = open_data(config.data, progress)
    print(f"{len(data.cases)} cases ready under {config.data.cache}")


@app.command()
def preview(
    recipe: Recipe, overrides: Overrides = None,
    out: Annotated[Path, typer.Option(help="The picture to write.")] = Path("preview.png"),
    strengths: Annotated[Literal["recipe", "all"] | None, typer.Option(
        help="Instead of views, one case under each transform alone, at a third, two thirds and the whole of its "
             "strength: the recipe's transforms, or all that there are.")] = None,
) -> None:
    """A picture of what the model will see: each case as prepared, then its views.

    Example: medssl preview pipelines/chexpert/simsiam.yaml data.manifest=chexpert.parquet --out views.png
    """
    from medssl.augment.suitable import require_suitable
    from medssl.data.source import open_data
    from medssl.recipe import load_any
    from medssl.report.preview import draw_strengths, draw_views
    from medssl.train.bar import Bar

    config = load_any(recipe, overrides)
    with Bar("prepare") as progress:
        data = open_data(config.data, progress)
    require_suitable(config.augment, data)
    if strengths:
        with Bar("preview") as progress:
            print(draw_strengths(config, out, data, every=strengths == "all", progress=progress))
    else:
        print(draw_views(config, out, data))


@app.command()
def pretrain(recipe: Recipe, overrides: Overrides = None, out: Out = None) -> None:
    """Trains an encoder without labels on the training patients.

    Example: medssl pretrain pipelines/chexpert/simsiam.yaml data.manifest=chexpert.parquet train.batch_size=256
    """
    from medssl.recipe import load_recipe
    from medssl.report.live import onlookers
    from medssl.report.preview import draw_pretraining
    from medssl.train.bar import Bar
    from medssl.train.launch import launch
    from medssl.train.pretrain import pretrain as run
    from medssl.train.together import open_together

    config, folder = load_recipe(recipe, "pretrain", overrides), out or _run_folder(recipe)
    with launch(config.train.devices, config.train.strategy) as world:
        with Bar("prepare", quiet=not world.is_first) as progress:
            data = open_together(world, config.data, progress)
        with Bar("pretrain", config.train.steps, quiet=not world.is_first) as progress:
            run(config, folder, data=data, progress=progress, world=world, onlookers=onlookers(config, data))
    if world.is_first:
        draw_pretraining(folder, config, data)
        print(folder)


@app.command()
def finetune(recipe: Recipe, overrides: Overrides = None, out: Out = None) -> None:
    """Trains a task on a fraction of the labelled training patients, from scratch or from a pretraining run.

    Example: medssl finetune pipelines/chexpert/finetune.yaml init=runs/chexpert/mae fraction=0.1
    """
    from medssl.recipe import load_recipe
    from medssl.train.bar import Bar
    from medssl.train.finetune import finetune as run
    from medssl.train.launch import launch

    config, folder = load_recipe(recipe, "finetune", overrides), out or _run_folder(recipe)
    with (launch(config.train.devices, config.train.strategy) as world,
          Bar("finetune", config.train.steps, quiet=not world.is_first) as progress):
        run(config, folder, progress, world)
    if world.is_first:
        print(folder)


@app.command()
def probe(recipe: Recipe, overrides: Overrides = None,
          split: Annotated[str, typer.Option(help="Split to judge on.")] = "validation") -> None:
    """What a frozen encoder knows: a linear model on its features, judged on a split.

    Example: medssl probe pipelines/chexpert/finetune.yaml init=runs/chexpert/mae fraction=0.1
    """
    from medssl.evaluate.single import probe_run
    from medssl.recipe import load_recipe

    print_scores(probe_run(load_recipe(recipe, "finetune", overrides), split))


@app.command()
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
    from medssl.demo import curve_with_report
    from medssl.evaluate.points import run_share
    from medssl.evaluate.shares import Share, write_sbatch
    from medssl.recipe import load_recipe
    from medssl.train.bar import Bar

    config, folder = load_recipe(recipe, "curve", overrides), out or _run_folder(recipe)
    if slurm:
        given = [] if workers is None else ["--workers", str(workers)]
        print(write_sbatch(folder, slurm, ["curve", str(recipe), *(overrides or []), "--out", str(folder), *given]))
        return
    if share:
        print(f"{run_share(config, folder, Share.read(share), workers, Bar)} points of {folder} are done by this share")
        return
    for sentence in curve_with_report(config, folder, workers):
        print(sentence)
    print(folder / "report.html")


@app.command()
def evaluate(
    run: Annotated[Path, typer.Argument(help="A finetuning run folder.")],
    overrides: Overrides = None,
    split: Annotated[str, typer.Option(help="Split to judge on.")] = "test",
) -> None:
    """Judges a finetuned model on a split, with intervals over its patients, and leaves predictions.parquet in the run;
    of a classification, reliability.png before and after temperature scaling on the validation split, too.

    Example: medssl evaluate runs/chexpert/finetune --split validation
    """
    from medssl.evaluate.single import evaluate_run
    from medssl.report.reliability import draw_reliability

    print_scores(evaluate_run(run, split, overrides or []))
    if picture := draw_reliability(run):
        print(picture)


@app.command()
def robustness(
    run: Annotated[Path, typer.Argument(help="A finetuning run folder.")], overrides: Overrides = None,
    split: Annotated[str, typer.Option(help="Split to judge on.")] = "test",
) -> None:
    """Judges a finetuned model on scans made worse in nine ways, each at five severities, and leaves robustness.parquet
    and robustness.png in the run.

    Example: medssl robustness runs/chexpert/finetune --split validation
    """
    from medssl.evaluate.robustness import robustness_run
    from medssl.report.robustness import draw_robustness, robustness_lines
    from medssl.train.bar import Bar

    with Bar("robustness") as progress:
        found = robustness_run(run, split, overrides or [], progress)
    print(*robustness_lines(found), draw_robustness(run), sep="\n")


@app.command()
def predict(
    run: Annotated[Path, typer.Argument(help="A finetuning run folder.")],
    manifest: ManifestPath,
    out: Annotated[Path, typer.Option(help="The table to write, .parquet or .csv.")] = Path("predictions.csv"),
    masks: Annotated[Path | None, typer.Option(help="A folder to write a segmentation's masks into, on the voxels of "
                                                    "each input: patient data.")] = None,
) -> None:
    """A finetuned model's output for every case of a manifest, labelled or not.

    Example: medssl predict runs/chexpert/finetune new.parquet --out predictions.csv
    """
    from medssl.evaluate.single import predict_run

    if out.suffix not in (".csv", ".parquet"):
        raise ConfigError(f"--out {out} is no table", expected="a name in .csv or .parquet", remedy="change the ending")
    out.parent.mkdir(parents=True, exist_ok=True)
    table = predict_run(run, manifest, masks)
    if out.suffix == ".csv":
        table.write_csv(out)
    else:
        table.write_parquet(out)
    print(f"{len(table)} rows for {table['case_id'].n_unique()} cases in {out}")
    if masks:
        print(f"Their masks lie in {masks}, named by case id. They are patient data: a DICOM segmentation names the "
              "patient as its source does, and a head's outline may tell whose it is.")


@app.command()
def report(
    runs: Annotated[list[Path], typer.Argument(help="Curve folders and pretraining run folders.")],
    out: Annotated[Path, typer.Option(help="The page to write.")] = Path("report.html"),
    title: Annotated[str, typer.Option(help="The page's title.")] = "Label-efficiency report",
) -> None:
    """Run folders -> one self-contained HTML page that opens without a network.

    Example: medssl report runs/chexpert/curve --out chexpert.html
    """
    from medssl.report.pages import report_runs

    print(report_runs(runs, out, title))


@app.command()
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


def _run_folder(recipe: Path) -> Path:
    return Path("runs") / recipe.parent.name / recipe.stem
