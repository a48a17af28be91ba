"""The run folder: what ran, on what, with which result, readable without this program."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import platform
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from functools import reduce
from importlib.metadata import version
from operator import or_
from pathlib import Path
from typing import Any

import torch
import yaml
from pydantic import ValidationError

import medssl
from medssl.config import Config, read_yaml
from medssl.errors import InUse, RunError
from medssl.files import clear_drafts, write_whole
from medssl.train.how import HowConfig

RECIPE = "recipe.yaml"
LEARNT = ("last.ckpt", "metrics.jsonl", "model.json", "points/*/*.json")
"""What a run leaves once it has learnt something."""
TEACHER = "teacher"
"""Of the model that is trained first, where a task wants one: a folder in the run's, with checkpoints and metrics."""
PACKAGES = ("torch", "monai", "numpy", "polars", "scikit-learn", "nibabel", "pydicom", "lightning-fabric")


def open_run(folder: Path, config: Config, may_change: Callable[[str], bool] | None = None, **known: Any) -> Path:
    """Makes a run folder with the resolved recipe and its provenance, or finds the one of the very same recipe.

    RunError where the folder belongs to another recipe, or to the same one on another manifest, unless that run has not
    begun to learn: a recipe that was refused may be mended. How a run is done may change at any time, and so may what
    it runs on; the provenance says when that did.

    Args:
        may_change: whether another value of a recipe's key leaves what was learnt as it is; by default `is_how`.
    """
    recipe = folder / RECIPE
    if recipe.is_file():
        if not _is_ours_unbegun(folder):
            _go_on(folder, read_recipe(folder, type(config)), config, may_change or is_how, known)
            return folder
        for account in (folder / "init.txt", *folder.glob("init/*/init.txt")):
            account.unlink(missing_ok=True)
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(folder / "provenance.json", json.dumps(provenance(**known), indent=1))
    write_whole(recipe, _written(config))
    return folder


@contextmanager
def held(folder: Path, beside_others: bool = False) -> Iterator[None]:
    """InUse while another process works in the folder. Whichever way a process ends, the system lets go for it.

    A finished run on a disk that is read-only needs nobody to hold it.

    beside_others: those who say so, too, may work in it at the same time.
    """
    folder.mkdir(parents=True, exist_ok=True)
    try:
        lock = (folder / ".lock").open("a+")  # NFS shares a lock of those alone who may read
    except OSError as error:
        if error.errno not in (errno.EROFS, errno.EACCES) or not is_finished(folder):
            raise
        yield
        return
    with lock:
        try:
            fcntl.flock(lock, (fcntl.LOCK_SH if beside_others else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InUse(f"Another process works in {folder}", expected="one at a time",
                           remedy="wait for it or stop it, or give another --out") from None
        except OSError:  # a file system without locks
            pass
        if not beside_others:
            for place in (folder, folder / "checkpoints", folder / TEACHER, folder / TEACHER / "checkpoints"):
                clear_drafts(place)
        yield


@contextmanager
def one_at_a_time(folder: Path) -> Iterator[None]:
    """Waits while another of those who work beside each other is in here, too."""
    with (folder / ".turn").open("a") as lock:
        with suppress(OSError):  # a file system without locks
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextmanager
def timed(folder: Path, began: float) -> Iterator[None]:
    """Adds the seconds since `began`, of time.monotonic(), to what the run took before, also where it is stopped; those
    of processes beside each other sum up."""
    try:
        yield
    finally:
        with one_at_a_time(folder):
            before = read_provenance(folder).get("seconds", 0.0)
            _add_to_provenance(folder, seconds=round(before + time.monotonic() - began, 1))


def is_finished(folder: Path) -> bool:
    return (folder / "model.json").is_file()


def begin_run(folder: Path, **facts: Any) -> None:
    """Says in the provenance that everything was checked and the folder is this recipe's from now on."""
    _add_to_provenance(folder, begun=read_provenance(folder).get("begun", _now()), **facts)


def _is_ours_unbegun(folder: Path) -> bool:
    """A recipe that a person wrote has no provenance beside it."""
    known = read_provenance(folder)
    if not known or "begun" in known:
        return False
    return not any(path.stat().st_size for pattern in LEARNT for path in folder.rglob(pattern))


def read_provenance(folder: Path) -> dict[str, Any]:
    """Empty where there is none; RunError where it is damaged."""
    path = folder / "provenance.json"
    try:
        return json.loads(path.read_text()) if path.is_file() else {}
    except ValueError as error:
        raise RunError(f"{path} is not JSON: {error}", expected="what medssl wrote",
                       remedy="copy it again from where the run was made, or give another --out") from None


def read_recipe(folder: Path, kind: type[Config]) -> dict[str, Any]:
    """A run's recipe as this version writes it: one of an earlier version lacks fields that are at their defaults.
    Empty where there is none."""
    path = folder / RECIPE
    recipe = read_yaml(path) if path.is_file() else {}
    try:
        return kind.model_validate(recipe).model_dump(mode="json")
    except ValidationError:
        return recipe


def _written(config: Config) -> str:
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def _go_on(folder: Path, old: dict[str, Any], config: Config, may_change: Callable[[str], bool],
           known: Mapping[str, Any]) -> None:
    before, manifest = read_provenance(folder), known.get("manifest")
    changed = changed_keys(old, config.model_dump(mode="json"))
    learnt = [key for key in changed if not may_change(key)]
    differing = ""
    if learnt:
        differing = f"of another recipe (differs in {', '.join(learnt[:6])})"
    elif (earlier := before.get("manifest")) != manifest:
        differing = f"on another manifest (digest {earlier}, now {manifest})"
    if differing:
        raise RunError(f"{folder} holds a run {differing}", expected="the same recipe and cases, or an empty folder",
                       remedy="give another --out, or delete that folder")
    if is_finished(folder):
        return
    moves = before.get("went_on", [])
    last = reduce(or_, moves, before)
    moved = {name: fact for name, fact in _surroundings(known).items() if fact != last.get(name)}
    if changed or moved:
        _add_to_provenance(folder, went_on=[*moves, {"at": _now(), "with": changed, **moved}])
    if changed:
        write_whole(folder / RECIPE, _written(config))


def is_how(key: str) -> bool:
    """Whether a recipe's key says how training is done or looked at, and not what is learnt."""
    *_, step, name = ("", *key.split("."))
    return step == "online" or (step == "train" and name in HowConfig.model_fields)


def finish_run(folder: Path, **results: Any) -> None:
    """Adds the run's results (wall time, ...) to its provenance."""
    _add_to_provenance(folder, finished=_now(), **results)


def _add_to_provenance(folder: Path, **facts: Any) -> None:
    write_whole(folder / "provenance.json", json.dumps(read_provenance(folder) | facts, indent=1))


def provenance(**known: Any) -> dict[str, Any]:
    """Versions, revision, device and command. Paths from outside are cut to their last part: they may name people."""
    return _surroundings(known) | {
        "command": " ".join(_without_folders(argument) for argument in sys.argv),
        "started": _now(),
    } | known


def _surroundings(known: Mapping[str, Any]) -> dict[str, Any]:
    """What a run runs on, which may change on its way."""
    return {
        "medssl": medssl.__version__,
        "revision": _revision(),
        "python": platform.python_version(),
        "packages": {name: version(name) for name in PACKAGES},
        "device": _device(),
    } | {name: known[name] for name in ("processes",) if name in known}


def patient_digest(patient_id: str) -> str:
    """16 hex digits: enough to refuse a patient again, and no way back to the pseudonym."""
    return hashlib.sha256(patient_id.encode()).hexdigest()[:16]


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _without_folders(argument: str) -> str:
    """Keeps the names of recipes and cards as they come with medssl."""
    key, value = re.fullmatch(r"((?:--)?[\w.-]+=)?(.*)", argument, re.DOTALL).groups("")
    ours = re.fullmatch(r"(pipelines/[a-z0-9_]+|data_manifests)/[a-z0-9_]+\.yaml", value)
    return argument if ours else key + value.rpartition("/")[2]


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


def changed_keys(old: Any, new: Any, prefix: str = "") -> list[str]:
    """Where two recipes differ, as dotted keys."""
    if not isinstance(old, dict) or not isinstance(new, dict):
        return [] if old == new else [prefix.rstrip(".")]
    return [key for name in sorted(old.keys() | new.keys())
            for key in changed_keys(old.get(name), new.get(name), f"{prefix}{name}.")]
