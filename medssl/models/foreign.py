"""Foreign checkpoints: a local file, opened without running anything that is in it, and read by its layout."""

from __future__ import annotations

import argparse
import json
import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from medssl.archives import read_arrays, require_no_bomb
from medssl.errors import RunError
from medssl.models.adapt import listed
from medssl.models.layouts import LAYOUTS, Reading
from medssl.models.weights import DESCRIPTION, OURS

FOLDER_FILES = ("model.safetensors", "pytorch_model.bin")
ENDINGS = (".safetensors", ".npz", ".pth", ".pt", ".bin", ".ckpt", ".tar")
WRAPPERS = ("state_dict", "model", "teacher")
"""Under which a checkpoint keeps its weights, beside its optimiser and the like."""
PREFIX = r"(?:module\.|_orig_mod\.|model\.|backbone\.|vit\.|dinov2\.|deit\.)+"
"""What wrappers put before every name, or before the encoder's."""


def weights_file(path: Path) -> Path:
    """The foreign weights at `path`, a file or a folder as Hugging Face has it; RunError where there are none."""
    if not path.is_dir():
        if not path.is_file():
            raise _nothing(f"No file or folder {path}")
        return path
    found = [path / name for name in FOLDER_FILES if (path / name).is_file()]
    if found and (path / "config.json").is_file():
        return found[0]
    if found:
        raise _nothing(f"The folder {path} has {found[0].name}, but no config.json",
                       f"put the config.json of the model beside it, or name the file: {found[0]}")
    if any(path.glob("*.index.json")):
        raise _nothing(f"The weights in {path} lie in several files",
                       "join them: load them with their own program and save one file, of which Hugging Face's "
                       "save_pretrained takes the size as max_shard_size")
    files = sorted(file.name for file in path.iterdir() if file.suffix in ENDINGS)
    raise _nothing(f"The folder {path} is no run and has no weights as Hugging Face names them",
                   f"name one of its files, such as {path / files[0]}" if files else "check the path")


def _nothing(what: str, remedy: str = "check the path") -> RunError:
    return RunError(what, expected=f"the folder of a run, a file of weights ({', '.join(ENDINGS)}), or a folder with "
                    f"config.json and {' or '.join(FOLDER_FILES)}", remedy=remedy)


def read_foreign(file: Path) -> tuple[str, Reading, list[str]]:
    """The name of the layout, what it holds, and the file's names for what has no place in an encoder.

    Raises RunError where the file cannot be read without running code, or its layout is unknown.
    """
    tensors = _tensors(file)
    reading = Reading(dict(tensors), f"The weights {file} hold tensors by name")
    _strip(reading)
    layout = next((layout for layout in LAYOUTS if layout.knows(reading.waiting)), None)
    if layout is None:
        raise _unknown(list(tensors), f"The layout of the weights {file} is unknown")
    seeming = reading.what = f"The weights {file} look like a {layout.name}"
    layout.read(reading, _config(file))
    strange = [reading.named[name] for name in reading.waiting if not re.fullmatch(layout.unused, name)]
    if strange:
        raise _unknown(strange, f"{seeming}, but have tensors that it does not")
    left_over = sorted(reading.named[name] for name in reading.waiting)
    _require_finite({name: tensor for name, tensor in tensors.items() if name not in left_over}, seeming)
    return layout.name, reading, left_over


def _strip(reading: Reading) -> None:
    """Takes off what wrappers put before the names, known or not, and notes it."""
    while len(reading.waiting) > 1 and len({name.partition(".")[0] for name in reading.waiting} - {""}) == 1:
        reading.rename(r"[^.]+\.(.+)", r"\1")
    reading.rename(f"{PREFIX}(.+)", r"\1")
    prefixes = sorted({old.removesuffix(new) for new, old in reading.named.items()} - {""})
    if prefixes:
        reading.notes.append(f"taken off the file's names: {', '.join(prefixes)}")


def _config(file: Path) -> dict[str, Any]:
    """The config.json beside a file of a Hugging Face folder; {} where there is none."""
    path = file.parent / "config.json"
    if file.name not in FOLDER_FILES or not path.is_file():
        return {}
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        config = None
    if not isinstance(config, dict):
        raise RunError(f"{path} is not a model's config.json", expected="JSON, an object with the model's settings",
                       remedy="fetch it again from where the weights came from")
    return config


def _require_finite(used: Mapping[str, Tensor], seeming: str) -> None:
    broken = sorted(name for name, tensor in used.items() if not tensor.isfinite().all())
    if broken:
        raise RunError(f"{seeming}, but {len(broken)} of their tensors hold NaN or infinity, {broken[0]} first",
                       expected="finite numbers",
                       remedy="take a checkpoint from before its training diverged, or fetch the file again")


def _tensors(file: Path) -> dict[str, Tensor]:
    try:
        if file.suffix == ".safetensors":
            _require_foreign(file)
            return _as_float(safetensors.torch.load_file(file))
        if file.suffix == ".npz":
            return _as_float({name: torch.from_numpy(array) for name, array in read_arrays(file).items()})
        if zipfile.is_zipfile(file):
            require_no_bomb(file)
        # A Namespace, which research code puts beside its weights, is a bag of values and runs nothing.
        with torch.serialization.safe_globals([argparse.Namespace]), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a pickle's protocol; what cannot be read is refused below
            loaded = torch.load(file, weights_only=True, map_location="cpu")
    except (RunError, PermissionError, MemoryError):
        raise
    except Exception as error:  # where the damage lies decides what a reader stumbles over
        raise _unreadable(file, _reason(str(error))) from None
    tensors = _unwrapped(loaded, file)
    for name, tensor in tensors.items():
        if isinstance(tensor, Tensor) and tensor.layout != torch.strided:
            raise _unreadable(file, f"its {name} is not stored as a whole ({tensor.layout})")
        if isinstance(tensor, Tensor) and tensor.nbytes > tensor.untyped_storage().nbytes():
            raise _unreadable(file, f"its {name} claims to be larger than what is stored of it")
    return _as_float(tensors)


def _require_foreign(file: Path) -> None:
    with safetensors.safe_open(file, framework="pt") as opened:
        ours = OURS.items() <= (opened.metadata() or {}).items()
    if ours:
        raise RunError(f"{file} holds the weights of a medssl run without the {DESCRIPTION} that says whom they saw",
                       expected="the whole run folder", remedy="name the folder of the run")


def _unwrapped(loaded: Any, file: Path) -> Mapping[str, Any]:
    while isinstance(loaded, Mapping):
        inner = next((loaded[name] for name in WRAPPERS if isinstance(loaded.get(name), Mapping)), None)
        if inner is None:
            return loaded
        loaded = inner
    raise _unreadable(file, f"it holds a {type(loaded).__name__}, not tensors by name")


def _as_float(tensors: Mapping[str, Any]) -> dict[str, Tensor]:
    """Half precision becomes float32, in which our modules are built."""
    return {str(name): tensor.float() if tensor.is_floating_point() else tensor
            for name, tensor in tensors.items() if isinstance(tensor, Tensor)}


def _reason(told: str) -> str:
    """In a sentence of our own: torch's advises to switch the protection off."""
    code = re.search(r"(?:GLOBAL|global|class) ([\w.]+\.\w+)", told)
    if "TorchScript" in told:
        return "it is a TorchScript program"
    if code or "pickle" in told.lower():
        return f"it holds more than tensors{f', namely {code[1]}' if code else ''}, or is damaged"
    return "it is damaged, cut short, or of another kind than its name says"


def _unreadable(file: Path, reason: str) -> RunError:
    return RunError(
        f"The weights {file} cannot be read: {reason}",
        expected="tensors alone, in one of " + ", ".join(ENDINGS) + "; nothing in a file is ever run",
        remedy="fetch it again, or, where you trust the file, load it with its own program and save its state_dict as "
        ".safetensors",
    )


def _unknown(names: list[str], what: str) -> RunError:
    return RunError(f"{what}; of its {len(names)} names:\n{listed(sorted(names)) or '  - none'}",
                    expected=f"one of {', '.join(layout.name for layout in LAYOUTS)}",
                    remedy="rename its tensors to one of these layouts' names, or pretrain anew")
