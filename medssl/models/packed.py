"""A run in one file: a safetensors file whose header holds the run's model.json and the part of its recipe by which
new scans are prepared and predicted. Nothing in it is code, and nothing names a path.

The header's metadata are texts: `medssl` (what this is), `description` and `recipe` (JSON), and `sha256`, of these two
and all tensors, so that a file that was changed on its way is told from a whole one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from medssl.config import read_yaml
from medssl.errors import RunError
from medssl.files import whole

MARK = {"medssl": "model"}
"""By which such a file is known, whatever its name."""


class Packed(NamedTuple):
    """tensors: {part.name: tensor}; description: as model.json; recipe: as recipe.yaml, in part."""

    tensors: dict[str, Tensor]
    description: dict[str, Any]
    recipe: dict[str, Any]


def is_packed(path: str | Path) -> bool:
    """Whether it is a file that `save_packed` wrote, by its header."""
    return Path(path).is_file() and MARK.items() <= _header(Path(path)).items()


def save_packed(path: str | Path, packed: Packed) -> None:
    """Writes the file, whole or not at all."""
    texts = {"description": json.dumps(packed.description), "recipe": json.dumps(packed.recipe)}
    with whole(path) as draft:
        safetensors.torch.save_file(packed.tensors, draft,
                                    metadata={**MARK, **texts, "sha256": _digest(texts, packed.tensors)})


def load_packed(path: str | Path) -> Packed:
    """RunError where the file is damaged."""
    header = _header(Path(path))
    try:
        tensors = safetensors.torch.load_file(path)
        packed = Packed(tensors, json.loads(header["description"]), json.loads(header["recipe"]))
    except (SafetensorError, KeyError, ValueError) as error:
        raise _damaged(path, f"it cannot be read ({error})") from None
    if header.get("sha256") != _digest(header, tensors):
        raise _damaged(path, "its SHA-256 is not the one that it was written with")
    return packed


def recipe_of(run: str | Path) -> dict[str, Any]:
    """The recipe of a run folder, or the part of it that its one file holds; ConfigError where there is none."""
    if is_packed(run):
        return json.loads(_header(Path(run))["recipe"])
    return read_yaml(Path(run) / "recipe.yaml")


def _header(path: Path) -> dict[str, str]:
    try:
        with safe_open(path, "pt") as file:
            return file.metadata() or {}
    except (SafetensorError, OSError):
        return {}


def _digest(texts: Mapping[str, str], tensors: Mapping[str, Tensor]) -> str:
    told = [texts["description"], texts["recipe"]]
    sha = hashlib.sha256(json.dumps(told).encode())
    for name, tensor in sorted(tensors.items()):
        sha.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        sha.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return sha.hexdigest()


def _damaged(path: str | Path, how: str) -> RunError:
    return RunError(f"The model file {path} is damaged: {how}", expected="the file as medssl export wrote it",
                    remedy="copy it again, or export the run again")
