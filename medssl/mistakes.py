"""What pydantic finds wrong with a recipe or card, in the words and the keys of who wrote it."""

from __future__ import annotations

import difflib
import re
import types
import typing
from typing import Any

from pydantic import BaseModel, ValidationError

Place = tuple[str | int, ...]
"""The keys and the numbers in lists that lead to a value."""

WORDS = {
    "tuple_type": "should be a list, in brackets",
    "list_type": "should be a list, in brackets",
    "dict_type": "should be a mapping, {key: value}",
    "model_type": "should be a mapping, {key: value}",
    "model_attributes_type": "should be a mapping, {key: value}",
}
"""Pydantic's own words for these name Python's types."""


def told(kind: type[BaseModel], data: Any, error: ValidationError) -> list[str]:
    """A line for each mistake that kept `data` from being a `kind`."""
    groups: dict[Place, list[tuple[Place, dict[str, Any]]]] = {}
    for mistake in error.errors():
        if mistake["type"] == "too_short" and len(mistake["input"]) >= mistake["ctx"]["min_length"]:
            continue  # pydantic counts no item that has a mistake of its own
        place, union = _place(data, mistake)
        groups.setdefault(place if union is None else union, []).append((place, mistake))
    lines = []
    for group in groups.values():
        for place in dict.fromkeys(place for place, _ in group):
            if len(place) == max(len(other) for other, _ in group):  # of several types, those that fitted furthest
                lines.append(_line(kind, data, place, [mistake for other, mistake in group if other == place]))
    return lines


def _place(data: Any, mistake: dict[str, Any]) -> tuple[Place, Place | None]:
    """Where a mistake is, and where the value is for which pydantic tried several types, if it did.

    Pydantic's own path has the names of those types, and the `name` of a Config that is told apart by it, in between.
    """
    here, place, union = data, [], None
    for number, part in enumerate(mistake["loc"], start=1):
        if isinstance(here, dict) and part not in here and here.get("name") == part:
            continue
        inside = part in here if isinstance(here, dict) else isinstance(here, list | tuple) and part in range(len(here))
        if inside:
            here = here[part]
        elif number < len(mistake["loc"]) or mistake["type"] != "missing":
            union = tuple(place)
            continue
        place.append(part)
    return tuple(place), union


def _line(kind: type[BaseModel], data: Any, place: Place, mistakes: list[dict[str, Any]]) -> str:
    """The mistakes of one value, of each type that it may have."""
    where, given, first = ".".join(map(str, place)), mistakes[0].get("input"), mistakes[0]["type"]
    if first == "extra_forbidden":
        known = {name for config in _kinds_at(kind, data, place[:-1]) for name in config.model_fields}
        return f"{where}: unknown key; {_nearest(place[-1], sorted(known), 'known keys here')}"
    if first == "missing":
        return f"{where}: required, but not given"
    if first.startswith("union_tag") or (first == "model_attributes_type" and isinstance(given, str)):
        return _unchosen(where, given, _kinds_at(kind, data, place))
    message = "; or ".join(dict.fromkeys(_worded(mistake) for mistake in mistakes))
    if not place:  # a rule about several keys together: its input is the whole file
        return message
    shown = repr(given)
    return f"{where}: {message} (got {shown if len(shown) < 80 else shown[:77] + '...'})"


def _unchosen(where: str, given: Any, kinds: set[type[BaseModel]]) -> str:
    """Of several kinds, each with settings of its own and told apart by their `name`, `given` says none."""
    names = sorted(config.model_fields["name"].default for config in kinds)
    if isinstance(given, str):
        (name,) = difflib.get_close_matches(given, names, n=1, cutoff=0)
        return f"{where}: {given!r} stands where a name and its settings belong; write {{name: {name}}}"
    if "name" not in given:
        return f"{where}.name: required, but not given; known names: {', '.join(names)}"
    return f"{where}.name: unknown name {given['name']!r}; {_nearest(given['name'], names, 'known names')}"


def _worded(mistake: dict[str, Any]) -> str:
    own = WORDS.get(mistake["type"])
    return own or re.sub("^(Value error,|Tuple|List|Dictionary) | after validation", "", mistake["msg"])


def _nearest(given: Any, known: list[str], heading: str) -> str:
    near = difflib.get_close_matches(str(given), known, n=1, cutoff=0.5)
    return f"did you mean {near[0]!r}?" if near else f"{heading}: {', '.join(known)}"


def _kinds_at(kind: type[BaseModel], data: Any, place: Place) -> set[type[BaseModel]]:
    """Every Config that may stand at `place`, or the one that is named there; what is no field, as the names of arms,
    is walked over."""
    kinds, here = {kind}, data
    for part in place:
        inner = {k for config in kinds if part in config.model_fields
                 for k in _configs_in(config.model_fields[part].annotation)}
        here, kinds = here[part], inner or kinds
        name = here.get("name") if isinstance(here, dict) else None
        kinds = {k for k in kinds if "name" in k.model_fields and k.model_fields["name"].default == name} or kinds
    return kinds


def _configs_in(annotation: Any) -> set[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return {annotation}
    if isinstance(annotation, types.GenericAlias) or typing.get_args(annotation):
        return {k for inner in typing.get_args(annotation) for k in _configs_in(inner)}
    return set()
