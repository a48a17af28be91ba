"""The command that hands a trained model over."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from medssl.errors import ConfigError


def export(
    run: Annotated[Path, typer.Argument(help="A finetuning or pretraining run folder, or the one file of one.")],
    file: Annotated[Path | None, typer.Option(help="One file to write, such as model.medssl, which medssl predict, "
                                                   "`init` and load_encoder take.")] = None,
    onnx: Annotated[Path | None, typer.Option(help="An ONNX file to write; needs medssl[export].")] = None,
    bundle: Annotated[Path | None, typer.Option(help="A new folder to write a MONAI bundle into, which runs without "
                                                     "medssl.")] = None,
    size: Annotated[str | None, typer.Option(help="Of --onnx: voxels of its input in array order, as 224,224; by "
                                                  "default as the run was trained.")] = None,
) -> None:
    """Writes a model for others to use: in one file, as ONNX or as a MONAI bundle, both checked against PyTorch.

    Example: medssl export runs/chexpert/finetune --file chexpert.medssl --onnx chexpert.onnx
    """
    if not (file or onnx or bundle):
        raise ConfigError("Nothing to write", expected="--file, --onnx or --bundle", remedy="add --file model.medssl")
    for path in filter(None, (file, onnx)):
        _require_free(path, run)
    for path in filter(None, (file, onnx, bundle)):
        path.parent.mkdir(parents=True, exist_ok=True)
    if file:
        from medssl.export.one_file import write_file

        write_file(run, file)
        print(file)
    if onnx:
        from medssl.export.handed import Handed
        from medssl.export.onnx import TOLERANCE, write_onnx

        worst = write_onnx(Handed.open(run, _sides(size)), onnx)
        print(f"{onnx}: onnxruntime and PyTorch differ by {worst:.2g} of the largest output at most; allowed are "
              f"{TOLERANCE:g}")
    if bundle:
        from medssl.export.bundle import write_bundle

        write_bundle(run, bundle)
        print(bundle)


def _require_free(path: Path, run: Path) -> None:
    """ConfigError where a file is to be written over a folder, or over a part of the run itself."""
    from medssl.models.packed import is_packed

    if path.is_dir():
        raise ConfigError(f"{path} is a folder", expected="the name of a file to write", remedy="name a file in it")
    exported = path.suffix == ".onnx" or is_packed(path)
    within = run.resolve() in path.resolve().parents
    if path.exists() and (path.samefile(run) or within and not exported):
        raise ConfigError(f"{path} is of the run itself, and would be lost", expected="a file of its own to write",
                          remedy="choose another name")


def _sides(size: str | None) -> tuple[int, ...] | None:
    if size is None:
        return None
    try:
        return tuple(int(side) for side in size.strip("[]()").split(","))
    except ValueError:
        raise ConfigError(f"--size {size}", expected="whole numbers with commas between",
                          remedy="write it as --size 224,224") from None
