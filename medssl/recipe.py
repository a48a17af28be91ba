"""Recipes: YAML files that compose the steps' own Configs. This module holds no setting of its own.

`step:` names the step (pretrain, finetune, curve). `extends: other.yaml` starts from another recipe, and changes what
is written here. An arm's `pretrain: other.yaml` stands for that whole recipe, `pretrain: {extends: other.yaml, ...}`
for that recipe changed. All these paths begin at the recipe that holds them, those of overrides where the command is
given. Overrides come last: `pretrain.key=value` is for every arm that pretrains, `arms.name=null` leaves an arm out.
"""

from __future__ import annotations

import difflib
from importlib import resources
from pathlib import Path
from typing import Any

from medssl.config import Config, merge_overrides, read_yaml, validate
from medssl.errors import ConfigError
from medssl.evaluate.curve import ORIGINS, CurveConfig
from medssl.train.finetune import FinetuneConfig
from medssl.train.pretrain import PretrainConfig

STEPS: dict[str, type[Config]] = {
    "pretrain": PretrainConfig,
    "finetune": FinetuneConfig,
    "curve": CurveConfig,
}


def load_recipe(path: str | Path, step: str, overrides: list[str] | None = None) -> Any:
    """The validated recipe; ConfigError for another step's recipe, and one that lists every mistake in this one."""
    found = find(path)
    inner = [override for override in overrides or [] if "pretrain" in override.partition("=")[0].split(".")[:-1]]
    data = merge_overrides(_read(found), [override for override in overrides or [] if override not in inner])
    if data.get("step") != step:
        raise ConfigError(f"{path} has step {data.get('step')!r}", expected=f"step: {step}",
                          remedy=f"use medssl {data['step']}" if data.get("step") in STEPS else f"add step: {step}")
    if step == "curve":
        _require_known_arms(found, overrides or [])
        data = _with_pretrains(_without_null_arms(data))
        inner = [meant for override in inner for meant in _for_every_arm(override, data)]
    return validate(STEPS[step], merge_overrides(data, inner), str(path))


def find(path: str | Path, folder: str = "pipelines") -> Path:
    """A recipe or card by its path, or, where there is no such file, the one of that name that comes with medssl.

    ConfigError names the nearest of those where there is neither.
    """
    path = Path(path)
    if path.is_file() or folder not in path.parts:
        return path
    inside = Path(*path.parts[path.parts.index(folder) + 1 :])
    shipped = shipped_folder(folder)
    if (shipped / inside).is_file():
        return shipped / inside
    known = sorted(str(other.relative_to(shipped)) for other in shipped.rglob("*.yaml"))
    near = difflib.get_close_matches(str(inside), known, n=3, cutoff=0.4) or known
    raise ConfigError(f"No file {path}, and none of that name comes with medssl", expected="a YAML file",
                      remedy=f"use one of {', '.join(f'{folder}/{name}' for name in near)}")


def shipped_folder(name: str) -> Path:
    """`pipelines` or `data_manifests`, from the source tree or from the installed wheel."""
    beside = Path(__file__).parent.parent / name
    return beside if beside.is_dir() else Path(str(resources.files("medssl"))) / "_shipped" / name


def _read(path: Path, seen: tuple[Path, ...] = ()) -> dict[str, Any]:
    data = read_yaml(path)
    for arm in _arms(data).values():
        if named := _named(arm):  # lies beside the recipe that names it, whoever extends that one
            arm["pretrain"] = named | {"extends": str((path.parent / str(named["extends"])).absolute())}
    parent = data.pop("extends", None)
    if parent is None:
        return data
    base = path.parent / str(parent)
    if base.resolve() in (*seen, path.resolve()):
        raise ConfigError(f"{path} extends itself through {parent}", expected="a chain that ends",
                          remedy="remove `extends` from one of them")
    return _merged(_read(base, (*seen, path.resolve())), data)


def _merged(base: dict[str, Any], change: dict[str, Any]) -> dict[str, Any]:
    """Mappings are merged; all else is replaced, as is a mapping whose `name` changes, or that extends a recipe."""
    merged = dict(base)
    for key, value in change.items():
        old = merged.get(key)
        both = isinstance(old, dict) and isinstance(value, dict)
        same_kind = both and value.get("name", old.get("name")) == old.get("name") and "extends" not in value
        merged[key] = _merged(old, value) if same_kind else value
    return merged


def _arms(data: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The arms that are mappings; what else stands there is left to the validation."""
    arms = data.get("arms")
    return {name: arm for name, arm in arms.items() if isinstance(arm, dict)} if isinstance(arms, dict) else {}


def _named(arm: dict[str, Any]) -> dict[str, Any] | None:
    """The recipe that an arm's `pretrain` names, under `extends`, and what it changes; None where it names none."""
    given = arm.get("pretrain")
    if isinstance(given, str):
        return {"extends": given}
    return given if isinstance(given, dict) and "extends" in given else None


def _require_known_arms(recipe: Path, overrides: list[str]) -> None:
    """ConfigError where overrides speak of an arm that the recipe does not have and they do not make."""
    known = list(_arms(_read(recipe)))
    keys = [override.partition("=")[0].split(".") for override in overrides if override.startswith("arms.")]
    made = {key[1] for key in keys if len(key) == 2 or key[2] in (*ORIGINS, "how")}
    for name in (key[1] for key in keys if key[1] not in made and key[1] not in known):
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
        raise ConfigError(f"This curve has no arm {name!r}", expected=f"one of {', '.join(known)}",
                          remedy=f"did you mean {near[0]!r}?" if near else "name one of these")


def _without_null_arms(data: dict[str, Any]) -> dict[str, Any]:
    if not isinstance(data.get("arms"), dict):
        return data
    return data | {"arms": {name: arm for name, arm in data["arms"].items() if arm is not None}}


def _for_every_arm(override: str, data: dict[str, Any]) -> list[str]:
    """`pretrain.key=value` means `arms.name.pretrain.key=value` of each arm that pretrains; all else means itself."""
    if not override.startswith("pretrain."):
        return [override]
    meant = [f"arms.{name}.{override}" for name, arm in _arms(data).items() if isinstance(arm.get("pretrain"), dict)]
    if not meant:
        raise ConfigError(f"Override {override!r}, but no arm of this curve pretrains",
                          expected="an arm with `pretrain: recipe.yaml`",
                          remedy="give it to medssl pretrain, with the recipe of that pretraining")
    return meant


def _with_pretrains(data: dict[str, Any]) -> dict[str, Any]:
    """Puts the whole recipe where an arm names one by its path, so that `arms.x.pretrain.key=value` finds its place."""
    for arm in _arms(data).values():
        if named := _named(arm):
            recipe = _merged(_read(find(str(named["extends"]))), {k: v for k, v in named.items() if k != "extends"})
            arm["pretrain"] = {**recipe, "data": {**recipe.get("data", {}), **_shared(data)}}
    return data


def _shared(curve: dict[str, Any]) -> dict[str, Any]:
    """A curve's manifest, cache and cases are those of its pretraining too, as `Data.read_as` has it."""
    data = curve.get("data") or {}
    return {"where": data.get("where") or {}} | {key: data[key] for key in ("manifest", "cache") if key in data}


def load_any(path: str | Path, overrides: list[str] | None = None) -> Any:
    """A recipe of whatever step it says."""
    step = _read(find(path)).get("step")
    if step not in STEPS:
        raise ConfigError(f"{path} has step {step!r}", expected=f"one of {', '.join(STEPS)}",
                          remedy="add step: pretrain, finetune or curve")
    return load_recipe(path, step, overrides)
