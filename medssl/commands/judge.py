"""The commands that judge what was trained, use it, and report it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from medssl.accounts import print_groups, print_scores, print_skipped
from medssl.commands.arguments import FinetunedModel, Overrides, Recipe
from medssl.errors import ConfigError
from medssl.files import write_table

if TYPE_CHECKING:
    import polars as pl


def probe(recipe: Recipe, overrides: Overrides = None,
          split: Annotated[str, typer.Option(help="Split to judge on.")] = "validation") -> None:
    """What a frozen encoder knows: a linear model on its features, judged on a split.

    Example: medssl probe pipelines/chexpert/finetune.yaml init=runs/chexpert/mae fraction=0.1
    """
    from medssl.evaluate.single import probe_run
    from medssl.recipe import load_recipe

    print_scores(probe_run(load_recipe(recipe, "finetune", overrides), split))


def evaluate(
    run: FinetunedModel,
    overrides: Overrides = None,
    split: Annotated[str, typer.Option(help="Split to judge on, or all.")] = "test",
    manifest: Annotated[Path | None, typer.Option(help="Another set to judge on, without training; its predictions go "
                                                       "into transfer/<its file's name>/ of the run.")] = None,
    label: Annotated[list[str] | None, typer.Option(help="What another set calls a label or region of the run, as "
                                                         "'Pleural Effusion=Effusion'; give it once a name.")] = None,
    by: Annotated[str | None, typer.Option(help="An attribute, such as sex or view, to judge each group by.")] = None,
) -> None:
    """Judges a finetuned model on a split, with intervals over its patients, and leaves predictions.parquet in the run;
    of a classification, reliability.png before and after temperature scaling on the validation split, too.

    Example: medssl evaluate runs/chexpert/finetune --split validation
    """
    from medssl.evaluate.by_group import scores_by_group
    from medssl.evaluate.single import evaluate_elsewhere, evaluate_run
    from medssl.evaluate.transfer import read_names
    from medssl.report.reliability import draw_reliability

    if label and not manifest:
        raise ConfigError("--label without --manifest", expected="another set, whose labels have other names",
                          remedy="add --manifest, or leave --label out")
    if manifest:
        judged = evaluate_elsewhere(run, manifest, split, read_names(label or ()), overrides or [], by)
    else:
        judged = evaluate_run(run, split, overrides or [], by)
    print_scores(judged.scores)
    print(judged.folder / "predictions.parquet")
    if picture := draw_reliability(judged.folder):
        print(picture)
    if by:
        groups = scores_by_group(judged.task, judged.predictions, by)
        write_table(judged.folder / f"by_{by}.parquet", groups)
        print_groups(groups, by)


def robustness(
    run: FinetunedModel, overrides: Overrides = None,
    split: Annotated[str, typer.Option(help="Split to judge on.")] = "test",
) -> None:
    """Judges a finetuned model on scans made worse in nine ways, each at five severities, and leaves robustness.parquet
    and robustness.png in the run.

    Example: medssl robustness runs/chexpert/finetune --split validation
    """
    from medssl.evaluate.robustness import robustness_run
    from medssl.evaluate.single import judged_folder
    from medssl.report.robustness import draw_robustness, robustness_lines
    from medssl.train.bar import Bar

    with Bar("robustness") as progress:
        found = robustness_run(run, split, overrides or [], progress)
    print(*robustness_lines(found), draw_robustness(judged_folder(run)), sep="\n")


def ood(
    run: Annotated[Path, typer.Argument(help="A finetuned classification's run folder, or its one file.")],
    manifest: Annotated[Path, typer.Argument(help="Cases that the model should find strange.")],
    overrides: Overrides = None,
    split: Annotated[str, typer.Option(help="Split of the run's own set, as what is known.")] = "test",
) -> None:
    """How well a classification's doubts tell another set's cases from its own: AUROC, AUPRC and FPR95, with intervals.

    Example: medssl ood runs/chexpert/finetune mammograms.parquet
    """
    from medssl.evaluate.ood import strangers

    table, rows = strangers(run, manifest, split, overrides or [])
    print_scores(rows)
    print(table)


def predict(
    run: FinetunedModel,
    scans: Annotated[Path, typer.Argument(help="A manifest, or a folder of new scans as they are.")],
    out: Annotated[Path, typer.Option(help="The table to write, .parquet or .csv.")] = Path("predictions.csv"),
    masks: Annotated[Path | None, typer.Option(help="A folder to write a segmentation's masks into, on the voxels of "
                                                    "each input: patient data.")] = None,
    card: Annotated[Path, typer.Option(help="Of a folder: the card that says which files make a case.")] =
        Path("data_manifests/any_folder.yaml"),
    key: Annotated[Path | None, typer.Option(help="Of a folder: file with the pseudonym key, as medssl manifest "
                                                  "takes it.")] = None,
) -> None:
    """A finetuned model's output for every case of a manifest that the run's data.where takes, labelled or not, or for
    every scan of a folder; then a second table, <out>.files.csv, which only you can read, says which case is which
    file.

    Example: medssl predict chexpert.medssl /data/new --out predictions.csv
    """
    if out.suffix not in (".csv", ".parquet"):
        raise ConfigError(f"--out {out} is no table", expected="a name in .csv or .parquet", remedy="change the ending")
    if not scans.is_dir() and scans.suffix not in (".csv", ".parquet"):
        raise ConfigError(f"{scans} is no manifest" if scans.exists() else f"There is no {scans}",
                          expected="a manifest, or a folder of scans",
                          remedy="give the folder that the scans lie in" if scans.exists() else "check the path")
    if masks:
        from medssl.evaluate.masks import require_drawing
        from medssl.tasks.saved import SavedModel

        told = SavedModel.open(run).description
        require_drawing(told["task"]["name"], told.get("kind"))
    out.parent.mkdir(parents=True, exist_ok=True)
    if scans.is_dir():
        table = _predicted_folder(run, scans, out, masks, card, key)
    else:
        from medssl.evaluate.folder import predict_manifest

        table = predict_manifest(run, scans, out, masks)
    write_table(out, table)
    print(f"{len(table)} rows for {table['case_id'].n_unique()} cases in {out}")
    if masks:
        print(f"Their masks lie in {masks}, named by case id. They are patient data: a DICOM segmentation names the "
              "patient as its source does, and a head's outline may tell whose it is.")


def _predicted_folder(run: Path, scans: Path, out: Path, masks: Path | None, card: Path,
                      key: Path | None) -> pl.DataFrame:
    from medssl.data.card import Card
    from medssl.data.pseudonym import load_key
    from medssl.evaluate.folder import predict_folder, read_folder
    from medssl.recipe import find
    from medssl.train.bar import Bar

    read = Card.read(find(card, "data_manifests"), ())
    with Bar("read") as progress:
        found = read_folder(run, scans, read, load_key(key), progress)
    print_skipped(found.skipped, None)
    table, places = predict_folder(run, found, out, masks)
    private = out.with_name(f"{out.stem}.files.csv")
    write_table(private, places, mode=0o600)
    print(f"Which case is which file: {private}")
    return table


def report(
    runs: Annotated[list[Path], typer.Argument(help="Folders of curves, finetuned and pretraining runs; models of one "
                                                 "file that were judged.")],
    out: Annotated[Path, typer.Option(help="The page to write.")] = Path("report.html"),
    title: Annotated[str, typer.Option(help="The page's title.")] = "",
) -> None:
    """Run folders -> one self-contained HTML page that opens without a network.

    Example: medssl report runs/chexpert/curve --out chexpert.html
    """
    from medssl.report.pages import report_runs

    print(report_runs(runs, out, title))
