"""A model as a MONAI bundle, which runs without medssl: TorchScript of the preparation and of the network, and the
configuration by which MONAI reads a scan, hands it to both, and writes what comes out.

What MONAI's own transforms would do otherwise than medssl (resizing, percentiles) is in models/preparation.ts instead.
"""

from __future__ import annotations

import io
import json
import logging
import math
import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from medssl.augment.policy import PolicyConfig, ViewPolicy
from medssl.data.decode import PrepareConfig
from medssl.data.loader import BoxConfig
from medssl.errors import ConfigError, RunError
from medssl.evaluate.masks import label_values
from medssl.export.bundle_config import inference, metadata, readme
from medssl.export.handed import Handed
from medssl.export.onnx import BATCHES, TOLERANCE
from medssl.export.preparation import Drawing, MeanOverBoxes, Preparation
from medssl.files import write_whole
from medssl.models.packed import recipe_of
from medssl.tasks import Segment
from medssl.types import Batch, ViewSpec

log = logging.getLogger(__name__)

LICENCE = """Say here under which licence these weights are given away.

The data that they learnt from may decide it: see its terms. The program that wrote this bundle, medssl, is under the
Apache License 2.0, and so is models/preparation.ts.
"""


def write_bundle(run: str | Path, folder: Path) -> None:
    """Writes the bundle into a new or empty folder.

    Raises:
        ConfigError: a model of clips, one that was given scans which TorchScript does not prepare, or a folder in use.
        RunError: no such run, or TorchScript's numbers are others than PyTorch's.
    """
    if folder.is_dir() and any(folder.iterdir()):
        raise ConfigError(f"{folder} is not empty", expected="a new folder", remedy="name another, or empty it")
    handed = Handed.open(run)
    told = handed.description["input"]
    _require_possible(told, run)
    augment = PolicyConfig.model_validate(recipe_of(run).get("augment", {})).still()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of TorchScript, that its maker advises another
        scripts = {"preparation.ts": _script(torch.jit.script(_preparation(handed))),
                   "model.ts": _script(_network(handed, augment))}
    files = {
        "configs/metadata.json": json.dumps(metadata(handed.description), indent=1),
        "configs/inference.json": json.dumps(inference(handed.description), indent=1),
        "docs/README.md": readme(handed.description),
        "LICENSE": LICENCE,
        **{f"models/{name}": content for name, content in scripts.items()},
    }
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        write_whole(folder / name, content)


def _require_possible(told: dict[str, Any], run: str | Path) -> None:
    prepare = told["preparation"]
    if told["kind"] not in ("image", "volume"):
        raise ConfigError(f"{run} learnt from {'clips' if told['kind'] == 'cine' else 'scans of an unknown kind'}",
                          expected="images or volumes, which MONAI reads as medssl does",
                          remedy="use medssl export --file or --onnx")
    if prepare["align"] != "refuse" or prepare["straighten"]:
        log.warning("the bundle neither straightens scans nor puts channels on one grid, as medssl did for this model: "
                    "give it scans where neither is needed")


def _preparation(handed: Handed) -> Preparation:
    told = handed.description["input"]
    prepare = PrepareConfig.model_validate(told["preparation"])
    task = handed.task
    if not isinstance(task, Segment):
        return Preparation(prepare, told["kind"])
    labels, threshold = label_values(task.regions), task.config.threshold
    order = [task.names.index(name) for name in labels]
    return Drawing(prepare, told["kind"], math.log(threshold / (1 - threshold)), order, list(labels.values()))


def _network(handed: Handed, augment: PolicyConfig) -> torch.jit.ScriptModule:
    if isinstance(handed.task, Segment):
        return _same(torch.jit.trace(handed.network, handed.example(2), check_trace=False), handed.network,
                     [handed.example(batch) for batch in BATCHES])
    box = BoxConfig.model_validate(handed.description["input"]["box"])
    size = _box_size(handed, box, augment)
    look = _Look(handed.network, augment).eval()
    seen = torch.randn(1, handed.channels, *(size[1:] if box.planar else size),
                       generator=torch.Generator().manual_seed(1))
    traced = _same(torch.jit.trace(look, seen, check_trace=False), look, [-seen, seen.flip(-1)])
    return torch.jit.script(MeanOverBoxes(traced, box, size, is_whole=box.size is None))


class _Look(nn.Module):
    """A box, or a whole case (1, C, *S) -> the network's output for the view of it."""

    def __init__(self, network: nn.Module, augment: PolicyConfig) -> None:
        super().__init__()
        self.network, self.policy = network, ViewPolicy(augment, ViewSpec(), seed=0)

    def forward(self, box: Tensor) -> Tensor:
        return self.network(self.policy(Batch([""], box)).images[0])


def _box_size(handed: Handed, box: BoxConfig, augment: PolicyConfig) -> tuple[int, ...]:
    """Of a box along each axis of a case, as `BoxConfig.voxels`; ConfigError where it may be any."""
    plane = box.size or handed.description["input"]["preparation"]["size"] or (None if augment.size else handed.size)
    if plane is None:
        raise ConfigError("The network was given whole cases, each of its own size, shrunk to one size",
                          expected="data.prepare.size or data.box.size in its recipe",
                          remedy="use medssl export --file or --onnx, or train with one of them")
    if box.planar:
        return (1, *plane[-2:])
    return (*handed.size[: len(handed.size) - len(plane)], *plane)


def _same(traced: torch.jit.ScriptModule, network: nn.Module, images: list[Tensor]) -> torch.jit.ScriptModule:
    """The traced network; RunError where it gives other numbers."""
    with torch.no_grad():
        for image in images:
            ours, theirs = network(image), traced(image)
            if not (theirs - ours).abs().max() <= TOLERANCE * max(1.0, float(ours.abs().max())):
                raise RunError("TorchScript's output differs from PyTorch's, so nothing was written",
                               expected=f"at most {TOLERANCE:g} of the largest", remedy="use medssl export --file")
    return traced


def _script(module: torch.jit.ScriptModule) -> bytes:
    """The file, without the notes for debuggers, which name source files and with them the folders of this machine."""
    written, stripped = io.BytesIO(), io.BytesIO()
    torch.jit.save(module.eval(), written)
    with zipfile.ZipFile(written) as old, zipfile.ZipFile(stripped, "w", zipfile.ZIP_STORED) as new:
        for name in old.namelist():
            if not name.endswith(".debug_pkl"):
                new.writestr(name, old.read(name))
    return stripped.getvalue()
