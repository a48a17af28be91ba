"""A network as ONNX: written only after onnxruntime has given what PyTorch gives.

By torch's exporter that goes through torch.export. The older one, which traces, failed on 3-D convolutions laid out
channels-last, on class tokens, and on what UNETR draws from a ViT's tokens (torch 2.13).
"""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np
import torch

from medssl.errors import ConfigError, RunError
from medssl.export.handed import Handed
from medssl.files import write_whole

if TYPE_CHECKING:
    from onnx import ModelProto

TOLERANCE = 1e-4
"""Largest difference, as a share of the largest output, or of 1 where that is less."""
BATCHES = (1, 3)
"""Sizes of the batches that are compared: the network is exported with another one."""
OPSET = 18
KEY = "medssl"
"""Of the description among the file's metadata."""


def write_onnx(handed: Handed, path: str | Path) -> float:
    """Writes the network with its description; returns its largest difference from PyTorch, as TOLERANCE has it.

    Raises:
        ConfigError: a package of medssl[export] is not installed.
        RunError: the network cannot be written so, or the two differ; nothing is written.
    """
    runtime, *_ = [_required(name) for name in ("onnxruntime", "onnxscript", "onnx")]
    content = _with_description(_exported(handed), handed)
    worst = _difference(runtime, content, handed)
    if not worst <= TOLERANCE:
        raise RunError(f"onnxruntime's output differs from PyTorch's by {worst:.3g} of the largest, so nothing was "
                       "written", expected=f"at most {TOLERANCE:g}",
                       remedy="use medssl export --file, which keeps the network as it is, and report this network")
    write_whole(path, content)
    return worst


def _exported(handed: Handed) -> ModelProto:
    try:
        with torch.no_grad(), _quiet():
            program = torch.onnx.export(
                handed.network, (handed.example(2),), dynamo=True, opset_version=OPSET, verbose=False,
                input_names=["image"], output_names=[handed.output],
                dynamic_shapes={"image": {0: torch.export.Dim("batch")}})
    except (RuntimeError, torch.onnx.OnnxExporterError) as error:
        raise RunError(f"The network cannot be written as ONNX: {_innermost(error)}",
                       expected="operations that ONNX has", remedy="use medssl export --file") from None
    model = program.model_proto
    if not model.graph.input[0].type.tensor_type.shape.dim[0].dim_param:
        raise RunError("The network would take batches of one size alone as ONNX", expected="any size of batch",
                       remedy="use medssl export --file, and report this network")
    return model


def _innermost(error: BaseException) -> str:
    """The first line of what went wrong at first."""
    while error.__cause__:
        error = error.__cause__
    return (str(error) or repr(error)).splitlines()[0]


def _with_description(model: ModelProto, handed: Handed) -> bytes:
    """The file with its description, and without what the exporter tells of each step: it names our source files, and
    with them the folders of the machine."""
    graph = model.graph
    for told in (model, graph, *graph.node, *graph.value_info, *graph.input, *graph.output, *graph.initializer,
                 *model.functions, *(node for function in model.functions for node in function.node)):
        told.ClearField("metadata_props")
        told.ClearField("doc_string")
    entry = model.metadata_props.add()
    entry.key, entry.value = KEY, json.dumps(handed.description)
    return model.SerializeToString()


def _difference(runtime: ModuleType, content: bytes, handed: Handed) -> float:
    session = runtime.InferenceSession(content, providers=["CPUExecutionProvider"])
    shares = []
    for image in map(handed.example, BATCHES):
        ours = handed.answer(image).numpy()
        (theirs,) = session.run(None, {"image": image.numpy()})
        shares.append(np.abs(theirs - ours).max() / max(1.0, np.abs(ours).max()))
    return float(np.max(shares))


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's remarks on packages that it would use if they were there."""
    log = logging.getLogger("torch.onnx")
    before = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(before)


def _required(name: str) -> ModuleType:
    from importlib import import_module

    try:
        return import_module(name)
    except ImportError:
        raise ConfigError(f"{name} is not installed", expected="the packages of medssl[export]",
                          remedy="pip install 'medssl[export]'") from None
