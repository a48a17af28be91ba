"""A network as ONNX: written only after onnxruntime has given what PyTorch gives.

By torch's tracing exporter: the one by torch.export gave the same numbers and took thirty times as long.
"""

from __future__ import annotations

import io
import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import numpy as np
import torch

from medssl.errors import ConfigError, RunError
from medssl.export.handed import Handed
from medssl.files import write_whole

TOLERANCE = 1e-4
"""Largest difference, as a share of the largest output, or of 1 where that is less."""
BATCHES = (1, 3)
"""Sizes of the batches that are compared: the network is traced with another one."""
OPSET = 18
KEY = "medssl"
"""Of the description among the file's metadata."""


def write_onnx(handed: Handed, path: str | Path) -> float:
    """Writes the network with its description; returns its largest difference from PyTorch, as TOLERANCE has it.

    Raises:
        ConfigError: onnx or onnxruntime is not installed.
        RunError: the network cannot be traced, or the two differ; nothing is written.
    """
    onnx, runtime = _required("onnx"), _required("onnxruntime")
    content = _described(onnx, _traced(handed), handed)
    worst = _difference(runtime, content, handed)
    if not worst <= TOLERANCE:
        raise RunError(f"onnxruntime's output differs from PyTorch's by {worst:.3g} of the largest, so nothing was "
                       "written", expected=f"at most {TOLERANCE:g}",
                       remedy="use medssl export --file, which keeps the network as it is, and report this network")
    write_whole(path, content)
    return worst


def _traced(handed: Handed) -> bytes:
    written = io.BytesIO()
    batch = {0: "batch"}
    try:
        with torch.no_grad(), _quiet():
            torch.onnx.export(handed.network, (handed.example(2),), written, dynamo=False, opset_version=OPSET,
                              input_names=["image"], output_names=[handed.output],
                              dynamic_axes={"image": batch, handed.output: batch})
    except (RuntimeError, torch.onnx.errors.OnnxExporterError) as error:
        raise RunError(f"The network cannot be written as ONNX: {str(error).splitlines()[0]}",
                       expected="operations that ONNX has", remedy="use medssl export --file") from None
    return written.getvalue()


def _described(onnx: ModuleType, content: bytes, handed: Handed) -> bytes:
    """The file with its description, and without the names of source files that the exporter leaves in it."""
    model = onnx.load_model_from_string(content)
    model.doc_string = f"{handed.description['task']}: {handed.description['output']['meaning']}"
    for node in model.graph.node:
        node.ClearField("doc_string")
    onnx.helper.set_model_props(model, {KEY: json.dumps(handed.description)})
    onnx.checker.check_model(model)
    return model.SerializeToString()


def _difference(runtime: ModuleType, content: bytes, handed: Handed) -> float:
    session = runtime.InferenceSession(content, providers=["CPUExecutionProvider"])
    worst = 0.0
    for image in map(handed.example, BATCHES):
        ours = handed.answer(image).numpy()
        (theirs,) = session.run(None, {"image": image.numpy()})
        if theirs.shape != ours.shape:
            return float("inf")
        worst = max(worst, float(np.abs(theirs - ours).max() / max(1.0, np.abs(ours).max())))
    return worst


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's remarks on its own future and on shapes that are meant to be fixed."""
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
