"""The commands that come before any training: from scans to a manifest, prepared cases and views to look at."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from medssl.accounts import print_counts, print_kinds, print_skipped
from medssl.commands.arguments import CardOverrides, ManifestPath, Overrides, Recipe


def phantom(
    name: Annotated[str, typer.Argument(help="xray, brain or echo.")],
    out: Annotated[Path, typer.Argument(help="Folder to write to.")],
    patients: Annotated[int, typer.Option(min=4, help="How many synthetic patients.")] = 100,
    seed: Annotated[int, typer.Option(help="Another seed, other patients, under the same ids: "
                                           "give the second manifest a namespace=… of its own.")] = 0,
) -> None:
    """Writes a synthetic dataset in a real dataset's own layout.

    Example: medssl phantom xray /tmp/CheXpert --patients 200
    """
    from medssl.demo import write_phantom

    write_phantom(name, out, patients, seed)
    print(f"{patients} {name} patients in {out}")


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
