"""Writes docs/reference.md: every command as its help has it, and every field of recipes and cards from its Config.

`make docs` runs it; tests/test_docs.py says when that was forgotten.
"""

from __future__ import annotations

import json
import types
import typing
from pathlib import Path
from typing import Any

from pydantic_core import PydanticUndefined
from typer.main import get_command

from medssl.cli import app
from medssl.config import Config
from medssl.data.card import Card
from medssl.recipe import STEPS

PAGE = Path(__file__).parent / "reference.md"
HEAD = "# Reference\n\nWritten by `make docs` from the code: change it there.\n"


def reference() -> str:
    """The whole page."""
    cards = ["## Cards\n", "See [own_data.md](own_data.md).\n", *_tables([Card])]
    return "\n".join([HEAD, *_commands(), *_recipes(), *cards])


def _commands() -> list[str]:
    parts = ["## Commands\n"]
    for name, command in get_command(app).commands.items():
        about, _, example = command.help.partition("Example: ")
        usage = " ".join(_usage(parameter) for parameter in command.params)
        parts.append(f"### medssl {name}\n\n{about.strip()}\n\n```\nmedssl {name} {usage}\n{example.strip()}\n```\n")
        parts += [f"- `{_usage(p)}`: {' '.join(p.help.split())}" for p in command.params if getattr(p, "help", None)]
        parts.append("")
    return parts


def _usage(parameter: Any) -> str:
    if parameter.param_type_name == "argument":
        return parameter.metavar or parameter.name.upper()
    return f"[{parameter.opts[0]}]"


def _recipes() -> list[str]:
    parts = ["## Recipes\n", "See [recipes.md](recipes.md). A field without a default must be given.\n"]
    return parts + _tables(list(STEPS.values()))


def _tables(roots: list[type[Config]]) -> list[str]:
    """A table for each Config that can be reached from `roots`, each once, in the order of reading."""
    waiting, seen, parts = list(roots), [], []
    while waiting:
        kind = waiting.pop(0)
        if kind in seen:
            continue
        seen.append(kind)
        parts += [f"### {_title(kind)}\n", *_about(kind), "| field | type | default | meaning |", "|---|---|---|---|"]
        for name, field in kind.model_fields.items():
            default = "" if field.default is PydanticUndefined else f"`{_shown(field.default)}`"
            parts.append(f"| `{name}` | {_cell(_type(field.annotation))} | {_cell(default)} "
                         f"| {_cell(field.description or '')} |")
            waiting += _configs(field.annotation)
        parts.append("")
    return parts


def _title(kind: type[Config]) -> str:
    return kind.__qualname__.removesuffix(".Config").removesuffix("Config") or kind.__qualname__


def _about(kind: type[Config]) -> list[str]:
    """A nested Config is told by the class that it configures."""
    owner, _, nested = kind.__qualname__.rpartition(".")
    text = kind.__doc__
    if nested == "Config" and owner:
        module = __import__(kind.__module__, fromlist=[owner])
        text = getattr(module, owner).__doc__
    return [text.strip().splitlines()[0] + "\n"] if text else []


def _type(annotation: Any) -> str:
    if isinstance(annotation, type) and issubclass(annotation, Config):
        return f"[{_title(annotation)}](#{_title(annotation).lower()})"
    origin, inner = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return _type(inner[0])
    if origin is typing.Literal:
        return ", ".join(f"`{value}`" for value in inner)
    if origin in (typing.Union, types.UnionType):
        return " or ".join("null" if part is type(None) else _type(part) for part in inner)
    if origin in (list, tuple):
        parts = [part for part in inner if part is not Ellipsis]
        return f"list of {_type(parts[0])}" if len(set(parts)) == 1 else f"list: {', '.join(map(_type, parts))}"
    if origin is dict:
        return f"mapping of {_type(inner[0])} to {_type(inner[1])}"
    return {"str": "text", "int": "integer", "float": "number", "bool": "true or false", "Path": "path"}.get(
        getattr(annotation, "__name__", ""), str(annotation))


def _configs(annotation: Any) -> list[type[Config]]:
    if isinstance(annotation, type) and issubclass(annotation, Config):
        return [annotation]
    return [kind for inner in typing.get_args(annotation) for kind in _configs(inner)]


def _shown(default: Any) -> str:
    if isinstance(default, Config):
        return "{}" if default == type(default)() else str(default.model_dump(exclude_defaults=True))
    return default if isinstance(default, str) and default else json.dumps(default, default=str)


def _cell(text: str) -> str:
    return " ".join(str(text).split()).replace("|", "\\|")


if __name__ == "__main__":
    PAGE.write_text(reference())
    print(PAGE)
