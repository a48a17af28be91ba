"""A run as one file: all that predicting, or starting another training, needs of its folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from medssl.augment.policy import PolicyConfig
from medssl.models.packed import Packed, recipe_of, save_packed
from medssl.models.weights import load_parts

DATA = ("prepare", "box", "where")
"""Of a recipe's data: not where the manifest and the cache lay."""


def write_file(run: str | Path, path: str | Path) -> None:
    """Writes `path`; RunError where the run is missing, unfinished or damaged."""
    parts, description = load_parts(run)
    tensors = {f"{part}.{name}": tensor for part, named in parts.items() for name, tensor in named.items()}
    save_packed(path, Packed(tensors, description, _handed_over(recipe_of(run), description)))


def _handed_over(recipe: dict[str, Any], description: dict[str, Any]) -> dict[str, Any]:
    """What of a recipe says how scans are prepared and predicted."""
    still = PolicyConfig.model_validate(recipe.get("augment", {})).still()
    kept = {
        "step": recipe["step"],
        "data": {name: value for name, value in recipe["data"].items() if name in DATA},
        "encoder": description["encoder"],
        "augment": still.model_dump(mode="json"),
        "train": {name: value for name, value in recipe.get("train", {}).items() if name == "precision"},
    }
    return kept | ({"task": description["task"]} if "task" in description else {})
