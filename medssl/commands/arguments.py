"""Arguments and options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

SET = "[KEY.SUB=VALUE]..."
Overrides = Annotated[list[str] | None, typer.Argument(help="Any field of the recipe, as key.sub=value.", metavar=SET)]
CardOverrides = Annotated[list[str] | None, typer.Argument(help="Any field of the card, as key.sub=value.",
                                                           metavar=SET)]
Recipe = Annotated[Path, typer.Argument(help="A YAML file; those under pipelines/ come with medssl.")]
ManifestPath = Annotated[Path, typer.Argument(help="Written by medssl manifest.")]
FinetunedModel = Annotated[Path, typer.Argument(help="A finetuning run folder, or the one file that it went into.")]
Out = Annotated[Path | None, typer.Option(help="Run folder; by default runs/<folder>/<name> of the recipe.")]


def run_folder(recipe: Path) -> Path:
    """Where a recipe's run goes by default."""
    return Path("runs") / recipe.parent.name / recipe.stem
