"""The strict base that every component's own Config derives from, and how recipes are read.

A recipe or card is YAML. `key.sub=value` overrides are YAML scalars, merged before validation. An unknown key is an
error that names the nearest right one; all mistakes of a file are reported at once.
"""

from __future__ import annotations

import copy
import hashlib
import json
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from medssl.errors import ConfigError
from medssl.mistakes import told


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


MOST_NODES = 100_000
"""Keys and values of a file, its aliases written out; the largest recipe that comes with medssl has some hundreds."""


def parse_yaml(text: str) -> Any:
    """Plain data from YAML text; nothing but mappings, lists, texts, numbers, booleans and null.

    yaml.YAMLError where it is something else, asks for an object of a program, or grows past MOST_NODES by aliases.
    """
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        if _size(node, {}) > MOST_NODES:
            raise yaml.YAMLError(f"more than {MOST_NODES} values, with its aliases written out")
        return loader.construct_document(node)
    except RecursionError:
        raise yaml.YAMLError("nested too deep") from None
    except (ValueError, LookupError) as error:  # of a value that its tag, or its length, does not fit
        raise yaml.YAMLError(f"a value is not what it claims to be ({error})") from None
    finally:
        loader.dispose()


def why_no_yaml(error: Exception) -> str:
    """The reason and its line, without a word of the file: it may be none of ours."""
    mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
    return f"{problem}, in line {mark.line + 1}" if mark and problem else " ".join(str(error).split())


def _size(node: yaml.Node, known: dict[int, int]) -> int:
    """How many nodes it is with every alias written out; without limit where an alias holds itself."""
    if isinstance(node, yaml.ScalarNode):
        return 1
    if id(node) not in known:
        known[id(node)] = MOST_NODES + 1
        children = chain(*node.value) if isinstance(node, yaml.MappingNode) else node.value
        known[id(node)] = 1 + sum(_size(child, known) for child in children)
    return known[id(node)]


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
        raise ConfigError(f"{path} is not YAML: {why_no_yaml(error)}", remedy="mend that line",
                          expected="plain YAML, without objects of a program") from None
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


def path_override(key: str, path: Path) -> str:
    """An override, whatever letters the path has."""
    return f"{key}={json.dumps(str(path), ensure_ascii=False)}"


def validate(kind: type[C], data: dict[str, Any], source: str) -> C:
    """Builds `kind` from plain data, or raises one ConfigError that lists every mistake with its place."""
    try:
        return kind.model_validate(data)
    except ValidationError as error:
        mistakes = told(kind, data, error)
        listing = "\n".join(f"  - {line}" for line in mistakes)
        count = "1 mistake" if len(mistakes) == 1 else f"{len(mistakes)} mistakes"
        raise ConfigError(f"{source} has {count}:\n{listing}", remedy="mend these keys and run again") from None
