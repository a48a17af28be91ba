"""The strict base that every component's own Config derives from, and how recipes are read.

A recipe or card is YAML. `key.sub=value` overrides are YAML scalars, merged before validation. An unknown key is an
error that names the nearest right one; all mistakes of a file are reported at once.
"""

from __future__ import annotations

import copy
import difflib
import hashlib
import json
import types
import typing
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from medssl.errors import ConfigError


class Config(BaseModel):
    """Keyword-only, immutable, and closed: a key that is not a field is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, use_attribute_docstrings=True)

    def digest(self) -> str:
        """12 hex digits that change when any field changes."""
        canonical = json.dumps(self._digested(), sort_keys=True)
        return hashlib.sha256(canonical.encode()).hexdigest()[:12]

    def _digested(self) -> dict[str, Any]:
        """What the digest is made of."""
        return self.model_dump(mode="json")


C = TypeVar("C", bound=Config)


class _Loader(yaml.SafeLoader):
    """YAML's plain values, save that 2024-01-01 stays the text it is."""

    yaml_implicit_resolvers = {first: [rule for rule in rules if rule[0] != "tag:yaml.org,2002:timestamp"]
                               for first, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()}


def parse_yaml(text: str) -> Any:
    """Plain data from YAML text; nothing but mappings, lists, texts, numbers, booleans and null."""
    return yaml.load(text, Loader=_Loader)


def read_yaml(path: str | Path) -> dict[str, Any]:
    """Reads a YAML mapping; ConfigError when the file is missing, is no YAML, or is no mapping."""
    path = Path(path)
    if not path.is_file():
        near = sorted(str(p) for p in path.parent.glob("*.yaml")) if path.parent.is_dir() else []
        remedy = f"use one of {', '.join(near[:8])}" if near else "check the path"
        raise ConfigError(f"No file {path}", expected="a YAML file", remedy=remedy)
    try:
        data = parse_yaml(path.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"{path} is not YAML: {reason}", expected="plain YAML", remedy="mend that line") from None
    if not isinstance(data, dict):
        raise ConfigError(f"{path} holds a {type(data).__name__}", expected="`key: value` lines at the top level")
    return data


def merge_overrides(data: dict[str, Any], overrides: list[str]) -> dict[str, Any]:
    """Returns `data` with each `key.sub=value` put in its place; values are YAML."""
    merged = copy.deepcopy(data)
    for override in overrides:
        key, equals, value = override.partition("=")
        if not equals or not key:
            raise ConfigError(f"Override {override!r}", expected="key.sub=value", remedy="write train.steps=100")
        *parents, last = key.split(".")
        place = merged
        for parent in parents:
            if not isinstance(place.get(parent), dict):
                place[parent] = {}
            place = place[parent]
        try:
            place[last] = parse_yaml(value)
        except yaml.YAMLError:
            raise ConfigError(f"Override {override!r} has a value that is not YAML", expected="a YAML scalar") from None
    return merged


def validate(kind: type[C], data: dict[str, Any], source: str) -> C:
    """Builds `kind` from plain data, or raises one ConfigError that lists every mistake with its place."""
    try:
        return kind.model_validate(data)
    except ValidationError as error:
        mistakes = [_explain(kind, mistake) for mistake in error.errors()]
        listing = "\n".join(f"  - {line}" for line in mistakes)
        count = "1 mistake" if len(mistakes) == 1 else f"{len(mistakes)} mistakes"
        raise ConfigError(f"{source} has {count}:\n{listing}", remedy="mend these keys and run again") from None


def _explain(kind: type[Config], mistake: dict[str, Any]) -> str:
    path = [part for part in mistake["loc"] if isinstance(part, str)]
    place = ".".join(str(part) for part in mistake["loc"])
    if mistake["type"] == "extra_forbidden":
        known = sorted(_keys_at(kind, path[:-1]))
        near = difflib.get_close_matches(path[-1], known, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}?" if near else f"known keys here: {', '.join(known)}"
        return f"{place}: unknown key; {hint}"
    if mistake["type"] == "missing":
        return f"{place}: required, but not given"
    message = mistake["msg"].removeprefix("Value error, ").replace("a valid tuple", "a list, [..., ...]")
    if not place:  # a rule about several keys together: its input is the whole file
        return message
    shown = repr(mistake.get("input"))
    return f"{place}: {message} (got {shown if len(shown) < 80 else shown[:77] + '...'})"


def _keys_at(kind: type[Config], path: list[str]) -> set[str]:
    """Every key that is known under `path`; tags of unions, which pydantic puts into the path, are walked over."""
    kinds = {kind}
    for part in path:
        inner = {k for config in kinds if part in config.model_fields
                 for k in _configs_in(config.model_fields[part].annotation)}
        kinds = inner or kinds
    return {name for config in kinds for name in config.model_fields}


def _configs_in(annotation: Any) -> set[type[Config]]:
    if isinstance(annotation, type) and issubclass(annotation, Config):
        return {annotation}
    if isinstance(annotation, types.GenericAlias) or typing.get_args(annotation):
        return {k for inner in typing.get_args(annotation) for k in _configs_in(inner)}
    return set()
