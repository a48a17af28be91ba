"""Transforms built, drawn and applied, for the tests of each."""

from __future__ import annotations

import sys
from types import ModuleType

import torch
from pages import ROOT, blocks

from medssl.augment.transform import Transform, apply_draws
from medssl.rng import stream, torch_seed


def example() -> type[Transform]:
    """The transform that docs/new_augmentation.md writes down has to do what the page teaches."""
    page = ROOT / "docs/new_augmentation.md"
    (code,) = [block.text for block in blocks(page) if block.language == "python"]
    module = sys.modules["heel"] = ModuleType("heel")  # where pydantic looks for the names in annotations
    exec(compile(code, page.name, "exec"), module.__dict__)
    return module.Heel


def images(shape: tuple[int, ...], seed: int = 0) -> torch.Tensor:
    """Random values from 0 to 1."""
    return torch.rand(shape, generator=torch.Generator().manual_seed(torch_seed("images", seed)))


def build(kind: type[Transform], strength: float, **more) -> Transform:
    """A transform with all its strengths alike. Strengths are the fields that a recipe must state."""
    strengths = {name: strength for name, field in kind.Config.model_fields.items() if field.is_required()}
    assert strengths, "a transform without a strength does nothing, or cannot be turned down"
    return kind(kind.Config(**strengths, **more))


def draws_for(transform: Transform, batch: torch.Tensor) -> list[dict]:
    """A draw for each sample."""
    return [transform.draw(stream("case", b), tuple(batch.shape[1:])) for b in range(len(batch))]


def run(transform: Transform, batch: torch.Tensor) -> torch.Tensor:
    """The batch with those draws applied."""
    return apply_draws(transform.apply, batch, draws_for(transform, batch))
