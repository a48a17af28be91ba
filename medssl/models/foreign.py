"""Foreign checkpoints: a local file, opened without running anything that is in it, and read by its layout."""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from torch import Tensor

from medssl.errors import RunError
from medssl.models.layouts import LAYOUTS, Reading

FOLDER_FILES = ("model.safetensors", "pytorch_model.bin")
ENDINGS = (".safetensors", ".npz", ".pth", ".pt", ".bin", ".ckpt", ".tar")
WRAPPERS = ("state_dict", "model", "teacher")
"""Under which a checkpoint keeps its weights, beside its optimiser and the like."""
PREFIX = r"(module\.|_orig_mod\.|model\.|backbone\.|vit\.|dinov2\.)+"
"""What wrappers put before every name."""


def weights_file(path: Path) -> Path | None:
    """The foreign weights at `path`, a file or a folder as Hugging Face has it; None where there are none."""
    if path.is_dir():
        found = [path / name for name in FOLDER_FILES if (path / name).is_file()]
        return found[0] if found and (path / "config.json").is_file() else None
    return path if path.is_file() else None


def read_foreign(file: Path) -> tuple[str, Reading, list[str]]:
    """The name of the layout, what it holds, and the names of the tensors that have no place in an encoder.

    Raises RunError where the file cannot be read without running code, or its layout is unknown.
    """
    tensors = {re.sub(f"^{PREFIX}", "", name): tensor for name, tensor in _tensors(file).items()}
    layout = next((layout for layout in LAYOUTS if layout.knows(tensors)), None)
    if layout is None:
        raise _unknown(tensors, "The layout of the weights is unknown")
    config = file.parent / "config.json"
    reading = Reading(dict(tensors))
    layout.read(reading, json.loads(config.read_text()) if config.is_file() and file.name in FOLDER_FILES else {})
    strange = [name for name in reading.waiting if not re.fullmatch(layout.unused, name)]
    if strange:
        raise _unknown(strange, f"The weights look like a {layout.name}, but have tensors that it does not")
    return layout.name, reading, sorted(reading.waiting)


def _tensors(file: Path) -> dict[str, Tensor]:
    try:
        if file.suffix == ".safetensors":
            return _as_float(safetensors.torch.load_file(file))
        if file.suffix == ".npz":
            with np.load(file, allow_pickle=False) as arrays:
                return _as_float({name: torch.from_numpy(arrays[name]) for name in arrays.files})
        # A Namespace, which research code puts beside its weights, is a bag of values and runs nothing.
        with torch.serialization.safe_globals([argparse.Namespace]):
            return _as_float(_unwrapped(torch.load(file, weights_only=True, map_location="cpu")))
    except Exception as error:  # where the damage lies decides what a reader stumbles over
        raise _unreadable(file, error) from None


def _unwrapped(loaded: Any) -> Mapping[str, Any]:
    while isinstance(loaded, Mapping):
        inner = next((loaded[name] for name in WRAPPERS if isinstance(loaded.get(name), Mapping)), None)
        if inner is None:
            return loaded
        loaded = inner
    raise TypeError(f"it holds a {type(loaded).__name__}, not tensors by name")


def _as_float(tensors: Mapping[str, Any]) -> dict[str, Tensor]:
    """Half precision becomes float32, in which our modules are built."""
    return {str(name): tensor.float() if tensor.is_floating_point() else tensor
            for name, tensor in tensors.items() if isinstance(tensor, Tensor)}


def _unreadable(file: Path, error: Exception) -> RunError:
    reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return RunError(
        f"The weights {file} cannot be read: {reason}",
        expected="tensors alone, in one of " + ", ".join(ENDINGS) + "; nothing in a file is ever run",
        remedy="where you trust the file, load it with its own program and save its state_dict as .safetensors",
    )


def _unknown(names: Any, what: str) -> RunError:
    first = [name for name, _ in zip(sorted(names), range(8), strict=False)]
    listing = "\n".join(f"  - {name}" for name in first) or "  - none"
    return RunError(f"{what}; the first of its {len(names)} names:\n{listing}",
                    expected=f"one of {', '.join(layout.name for layout in LAYOUTS)}",
                    remedy="rename its tensors to one of these layouts' names, or pretrain anew")
