"""What one must know to feed a network that was handed over, as plain data: no patient, no path."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from medssl import __version__
from medssl.data.decode import PrepareConfig
from medssl.data.loader import BoxConfig
from medssl.tasks import Segment, Task

FORMAT = 1
NOTICE = "Research software and no medical device."
AXES = {"image": ["row"], "volume": ["slice", "row"], "cine": ["frame", "row"]}
INTENSITY = {
    "percentile": "the 0.5th to 99.5th percentile of all values of a case to 0 to 1, cut off beyond",
    "range": "divided by 255 in a file of 8 bits, else by the largest value of as many bits as its own largest needs",
    "window": "the window {window} to 0 to 1, cut off beyond",
    "zscore": "each channel to mean 0 and standard deviation 1, cut off beyond -10 and 10",
    "zscore_nonzero": "each channel's values but 0 to mean 0 and standard deviation 1, cut off beyond 10; 0 stays",
}


def described_input(description: Mapping[str, Any], channels: int, size: tuple[int, ...],
                    is_dense: bool) -> dict[str, Any]:
    """Of a network that is given (B, channels, *size): `description` is the run's model.json.

    is_dense: whether it is slid over a case, and not shown some boxes of it.
    """
    kind, files = description.get("kind"), description.get("channels", [])
    prepare = PrepareConfig.model_validate(description["preprocessing"])
    box = BoxConfig.model_validate(description.get("box", {}))
    seen = [] if is_dense else _boxes_in_words(box, kind) + _views_in_words(description, size)
    axes = [*AXES.get(kind, ["slice", "row"]), "column"][-len(size):]
    return {
        "name": "image",
        "axes": ["batch", "channel", *axes],
        "type": "float32",
        "files_a_case": max(1, len(files)),
        "channels": _names(files, channels),
        "size": list(size),
        "kind": kind,
        "modalities": description.get("modalities", []),
        "spacing_mm": list(prepare.spacing) if prepare.spacing else None,
        "preparation": prepare.model_dump(mode="json"),
        "preparation_in_words": in_words(prepare, kind) + seen,
        "box": box.model_dump(mode="json"),
    }


def described_output(task: Task | None, width: int) -> dict[str, Any]:
    """Of a finetuned run's task, or without one of an encoder whose features are so wide."""
    if task is None:
        return {"name": "features", "axes": ["batch", "feature"], "size": width, "names": [],
                "meaning": "the encoder's pooled features"}
    if isinstance(task, Segment):
        return {"name": "logits", "axes": ["batch", "region", "as the image"], "names": list(task.names),
                "threshold": task.config.threshold, "overlap": task.config.overlap,
                "meaning": "a voxel belongs to a region where sigmoid(logit) is above the threshold; of a case larger "
                           f"than the size, average the logits of windows that overlap by {task.config.overlap:g}"}
    if task.config.name == "regress":
        return {"name": "value", "axes": ["batch", "name"], "names": list(task.names), "unit": task.config.unit,
                "meaning": "the label in its own unit"}
    together = "exclude each other, and sum to 1" if task.config.kind == "single_label" else "may occur together"
    return {"name": "probability", "axes": ["batch", "name"], "names": list(task.names),
            "meaning": f"the probability of each finding; findings {together}"}


def described(task: Task | None, given: Mapping[str, Any], output: Mapping[str, Any]) -> dict[str, Any]:
    """The whole description."""
    return {"format": FORMAT, "made_by": f"medssl {__version__}", "task": task.config.name if task else "encode",
            "input": dict(given), "output": dict(output), "notice": NOTICE}


def in_words(prepare: PrepareConfig, kind: str | None) -> list[str]:
    """What is done to a scan before the network sees it, step by step."""
    steps = ["values as the file means them (HU for CT; DICOM's modality LUT applied)"]
    if kind in ("volume", None):
        steps.append("of a volume, axes turned to the patient's: slices from feet to head, rows from back to front, "
                     "columns from left to right (an array (K, J, I) that grows along S, A and R of RAS+)")
    if kind != "volume":
        steps.append("colours kept as three channels" if prepare.colour else "colours become their mean, one channel")
    if prepare.margin is not None:
        steps.append(f"cropped to the voxels that are not 0, with a margin of {prepare.margin}")
    steps.append(INTENSITY[prepare.intensity].format(window=list(prepare.window or ())))
    if prepare.spacing:
        steps.append(f"resampled to {list(prepare.spacing)} mm in array order, linearly, anti-aliased in the plane")
    if prepare.size:
        steps.append(f"resized to {list(prepare.size)} voxels in array order, linearly, anti-aliased in the plane")
    return steps


def _boxes_in_words(box: BoxConfig, kind: str | None) -> list[str]:
    count = "at every place" if box.judged == "all" else f"at {box.judged} places spread evenly"
    steps = [f"every {box.period}th frame"] if box.period > 1 else []
    if box.planar:
        steps.append(f"slices are looked at one by one, {count}, and their outputs averaged")
    if box.size:
        steps.append(f"of a case larger than {list(box.size)} voxels, boxes of that size, {count}, whose outputs are "
                     "averaged")
    return steps


def _views_in_words(description: Mapping[str, Any], size: tuple[int, ...]) -> list[str]:
    if not description.get("views", {}).get("size"):
        return []
    return [f"the largest part in its middle of the shape {list(size)}, resized to that, linearly"]


def _names(known: list[str], channels: int) -> list[str]:
    """A file of several channels has but one name."""
    return list(known) if len(known) == channels else [f"channel {number}" for number in range(1, channels + 1)]
