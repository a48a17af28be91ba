"""Models on disk: `model.safetensors` holds every part's tensors, `model.json` says what they are. No pickle.

Tensors are named "<part>.<name in the part's state>", e.g. "encoder.norm.weight". model.json holds
    format          1
    parts           the names of the parts
    sha256          of model.safetensors, so that a copy cut short or files of two runs are told apart
    encoder         the encoder's Config, where there is one
    kind, modalities, channels, preprocessing, box, views, size    what it learnt from: images, volumes or clips, of
                    which modalities and channels, how they were prepared, read and shown but for what is drawn, and S
                    of what the encoder was given
    init            what it started from, where it did: layout and sha256 of those weights, and whether it is known
                    whom they saw; patients_seen then holds theirs too
    objective, patients_seen (digests), ...   whatever else the run has to say
It is written last: a folder without it is a run that has not finished.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
from pydantic import TypeAdapter, ValidationError
from safetensors import SafetensorError
from torch import Tensor, nn

from medssl.errors import RunError
from medssl.files import whole, write_whole
from medssl.models import EncoderConfig, build_encoder
from medssl.models.adapt import listed
from medssl.models.encoder import Encoder
from medssl.models.packed import is_packed, load_packed

FORMAT = 1
OURS = {"medssl": "run"}
"""What the file says of itself: without the description beside it, nobody can tell whom its weights saw."""
TENSORS, DESCRIPTION = "model.safetensors", "model.json"
BEGUN = ("provenance.json", "recipe.yaml", TENSORS)
"""What an unfinished run may have."""

PartTensors = dict[str, dict[str, Tensor]]
"""{part: {name in the part's state: tensor}}"""


def save_model(folder: str | Path, modules: Mapping[str, nn.Module], description: Mapping[str, Any]) -> None:
    """Writes the parts and their description, each whole or not at all, the description last.

    Args:
        folder: created where missing.
        modules: {part: module}; the one named "encoder" has its Config written down with it.
        description: plain data for model.json, above all `preprocessing` and `patients_seen`.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {
        f"{part}.{name}": tensor.detach().cpu().contiguous()
        for part, module in modules.items()
        for name, tensor in module.state_dict().items()
    }
    with whole(folder / TENSORS) as draft:
        safetensors.torch.save_file(tensors, draft, metadata=OURS)
    encoder = modules.get("encoder")
    described = {
        "format": FORMAT,
        "parts": list(modules),
        "sha256": file_sha256(folder / TENSORS),
        **({"encoder": encoder.config.model_dump(mode="json")} if isinstance(encoder, Encoder) else {}),
        **description,
    }
    write_whole(folder / DESCRIPTION, json.dumps(described, indent=2) + "\n")


def load_parts(run: str | Path) -> tuple[PartTensors, dict[str, Any]]:
    """The tensors of each part and the description of a run folder, or of the one file that it was exported to.

    RunError where the run is missing, unfinished or damaged.
    """
    if is_packed(run):
        tensors, description, _ = load_packed(run)
        return by_part(tensors), _checked_format(description, run)
    folder = Path(run)
    description = read_description(folder)
    path = folder / TENSORS
    if not path.is_file():
        raise _damaged(folder, f"it has {DESCRIPTION} but no {TENSORS}")
    if file_sha256(path) != description.get("sha256"):
        raise _damaged(folder, f"{TENSORS} is not the file that {DESCRIPTION} describes: their SHA-256 differ")
    try:
        tensors = safetensors.torch.load_file(path)
    except SafetensorError as error:
        raise _damaged(folder, f"{TENSORS} cannot be read ({error})") from None
    return by_part(tensors), description


def by_part(tensors: Mapping[str, Tensor]) -> PartTensors:
    """{part.name: tensor} as files have them."""
    parts: PartTensors = {}
    for key, tensor in tensors.items():
        part, _, name = key.partition(".")
        parts.setdefault(part, {})[name] = tensor
    return parts


def load_encoder(run: str | Path) -> Encoder:
    """The encoder of a finished run, by its folder or its one file, in eval mode, with its `preprocessing` beside it.

    Raises RunError where the run is missing, unfinished or damaged, has no encoder, or one unknown to this version.
    """
    return encoder_of(*load_parts(run), run)


def encoder_of(tensors: PartTensors, description: Mapping[str, Any], source: str | Path) -> Encoder:
    """As `load_encoder`, of what `load_parts` gave."""
    encoder = build_encoder(known_encoder(description.get("encoder"), source))
    load_into(encoder, tensors, "encoder")
    encoder.preprocessing = description.get("preprocessing", {})
    return encoder.eval()


def known_encoder(described: Any, source: str | Path) -> EncoderConfig:
    """The Config of an encoder that a file describes; RunError where this version cannot build it."""
    try:
        return TypeAdapter(EncoderConfig).validate_python(described)
    except ValidationError as error:
        mistakes = [(mistake["loc"][1:], mistake["msg"].removeprefix("Value error, ")) for mistake in error.errors()]
        reasons = "; ".join(": ".join([*(".".join(map(str, place)),) * bool(place), why]) for place, why in mistakes)
        raise RunError(
            f"The encoder of {source} cannot be built: {reasons}",
            expected="one that this version of medssl knows",
            remedy="of a run, use the version of medssl that its provenance.json names; of another program's weights, "
            "give `encoder` beside `init` in a pretraining recipe",
        ) from None


def load_into(module: nn.Module, tensors: PartTensors, part: str) -> None:
    """Copies a part's tensors into `module`, every one of them as it is.

    Nothing is skipped in silence: a tensor that only the file or only the module has, or one of another shape, is a
    RunError that lists them, and `module` is left as it was.
    """
    if part not in tensors:
        raise RunError(
            f"The run has no part {part!r}", expected=f"one of {', '.join(tensors)}", remedy="choose a run that has it"
        )
    theirs, ours = tensors[part], module.state_dict()
    both = sorted(ours.keys() & theirs.keys())
    mistakes = [_explain_shapes(n, theirs[n], ours[n]) for n in both if theirs[n].shape != ours[n].shape]
    mistakes += [f"{name} is missing from the run" for name in sorted(ours.keys() - theirs.keys())]
    mistakes += [f"{name} has no place in this model" for name in sorted(theirs.keys() - ours.keys())]
    if mistakes:
        raise RunError(
            f"The run's {part} does not fit: {len(mistakes)} of {len(ours.keys() | theirs.keys())} tensors differ:"
            f"\n{listed(mistakes)}",
            expected="the same architecture and the same number of channels",
            remedy=f"use the {part} settings that the run's {DESCRIPTION} holds",
        )
    module.load_state_dict(theirs)


def _explain_shapes(name: str, theirs: Tensor, ours: Tensor) -> str:
    kernel = ours.ndim >= 4 and theirs.ndim == ours.ndim  # (out, in, *patch)
    if kernel and theirs.shape[0] == ours.shape[0] and theirs.shape[2:] == ours.shape[2:]:
        return f"{name} takes {theirs.shape[1]} channels in the run and {ours.shape[1]} in this model"
    return f"{name} is {tuple(theirs.shape)} in the run and {tuple(ours.shape)} in this model"


def read_description(folder: Path) -> dict[str, Any]:
    """A finished run's model.json; RunError where it is none, or damaged."""
    path = folder / DESCRIPTION
    if folder.is_file():
        raise RunError(f"{folder} is no model file, or was cut short", remedy="copy it again, or name the run's folder",
                       expected="a file that medssl export --file wrote")
    if not folder.is_dir():
        raise RunError(f"No run folder {folder}", remedy="check the path",
                       expected=f"a folder with {DESCRIPTION}, or a file that medssl export --file wrote")
    if not path.is_file() and not any((folder / name).is_file() for name in BEGUN):
        raise RunError(f"{folder} is no run folder: nothing of a run is in it", remedy="check the path",
                       expected=f"a folder with {DESCRIPTION}, or a file that medssl export --file wrote")
    if not path.is_file():
        raise RunError(
            f"The run in {folder} has not finished: it has no {DESCRIPTION}",
            expected=f"{DESCRIPTION}, which is written last",
            remedy="wait for the run, or start it again: it goes on from its last checkpoint",
        )
    try:
        description = json.loads(path.read_text())
    except ValueError:
        raise _damaged(folder, f"{DESCRIPTION} is not JSON") from None
    return _checked_format(description, path)


def _checked_format(description: Any, path: str | Path) -> dict[str, Any]:
    if not isinstance(description, dict) or description.get("format") != FORMAT:
        raise RunError(
            f"{path} is not of format {FORMAT}",
            expected=f'"format": {FORMAT}, which this version of medssl writes',
            remedy="use the version of medssl that wrote it",
        )
    return description


def _damaged(folder: Path, how: str) -> RunError:
    return RunError(f"The run in {folder} is damaged: {how}", remedy="copy the folder again, or repeat the run")


def file_sha256(path: Path) -> str:
    """64 hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
