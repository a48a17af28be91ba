"""The run folder: what ran, on what, with which result, readable without this program."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
import yaml
from pydantic import ValidationError

import medssl
from medssl.config import Config
from medssl.errors import RunError
from medssl.files import write_whole

BEGUN = ("last.ckpt", "metrics.jsonl", "model.json", "points/*/*.json")
"""What a run leaves once it has learnt something."""
PACKAGES = ("torch", "monai", "numpy", "polars", "scikit-learn", "nibabel", "pydicom", "lightning-fabric")


def open_run(folder: Path, config: Config, **known: Any) -> Path:
    """Makes a run folder with the resolved recipe and its provenance, or finds the one of the very same recipe.

    RunError where the folder belongs to another recipe, or to the same one on another manifest, and has learnt
    something: a recipe that was refused may be mended.
    """
    recipe = folder / "recipe.yaml"
    text = _written(config)
    if recipe.is_file() and _has_begun(folder):
        _require_same(folder, _with_defaults(recipe.read_text(), type(config)), text, known.get("manifest"))
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    for account in folder.rglob("init.txt"):
        account.unlink()
    write_whole(folder / "provenance.json", json.dumps(provenance(**known), indent=1))
    write_whole(recipe, text)
    return folder


def _has_begun(folder: Path) -> bool:
    return any(path.stat().st_size for pattern in BEGUN for path in folder.rglob(pattern))


def _with_defaults(text: str, kind: type[Config]) -> str:
    """A recipe as this version writes it: one of an earlier version lacks fields that are at their defaults."""
    try:
        return _written(kind.model_validate(yaml.safe_load(text)))
    except ValidationError:
        return text


def _written(config: Config) -> str:
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def _require_same(folder: Path, old: str, new: str, manifest: str | None) -> None:
    differing = ""
    if old != new:
        changed = _changed_keys(yaml.safe_load(old), yaml.safe_load(new))
        differing = f"of another recipe (differs in {', '.join(changed[:6])})"
    elif (earlier := json.loads((folder / "provenance.json").read_text()).get("manifest")) != manifest:
        differing = f"on another manifest (digest {earlier}, now {manifest})"
    if differing:
        raise RunError(f"{folder} holds a run {differing}", expected="the same recipe and cases, or an empty folder",
                       remedy="give another --out, or delete that folder")


def finish_run(folder: Path, **results: Any) -> None:
    """Adds the run's results (wall time, ...) to its provenance."""
    add_to_provenance(folder, finished=_now(), **results)


def add_to_provenance(folder: Path, **facts: Any) -> None:
    path = folder / "provenance.json"
    write_whole(path, json.dumps(json.loads(path.read_text()) | facts, indent=1))


def provenance(**known: Any) -> dict[str, Any]:
    """Versions, revision, device and command. Paths from outside are cut to their last part: they may name people."""
    return {
        "medssl": medssl.__version__,
        "revision": _revision(),
        "python": platform.python_version(),
        "packages": {name: version(name) for name in PACKAGES},
        "device": _device(),
        "command": " ".join(_without_folders(argument) for argument in sys.argv),
        "started": _now(),
    } | known


def patient_digest(patient_id: str) -> str:
    """16 hex digits: enough to refuse a patient again, and no way back to the pseudonym."""
    return hashlib.sha256(patient_id.encode()).hexdigest()[:16]


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _without_folders(argument: str) -> str:
    """Keeps the names of recipes and cards that come with medssl."""
    key, value = re.fullmatch(r"((?:--)?[\w.-]+=)?(.*)", argument, re.DOTALL).groups("")
    return argument if re.match("(pipelines|data_manifests)/", value) else key + value.rpartition("/")[2]


def _revision() -> str:
    try:
        found = subprocess.run(["git", "-C", str(Path(medssl.__file__).parent), "describe", "--always", "--dirty"],
                               capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return "not a git checkout"
    return found.stdout.strip()


def _device() -> str:
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return f"{cpu_model()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads"


def cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _changed_keys(old: Any, new: Any, prefix: str = "") -> list[str]:
    if not isinstance(old, dict) or not isinstance(new, dict):
        return [] if old == new else [prefix.rstrip(".")]
    return [key for name in sorted(old.keys() | new.keys())
            for key in _changed_keys(old.get(name), new.get(name), f"{prefix}{name}.")]
