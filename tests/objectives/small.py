"""Every objective of the table, and the example of docs/new_objective.md, around small encoders that it takes."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter

from medssl.augment import PolicyConfig, ViewPolicy
from medssl.config import Config
from medssl.errors import ConfigError
from medssl.models import EncoderConfig, build_encoder
from medssl.objectives import OBJECTIVES, Objective
from medssl.rng import stream
from medssl.types import Batch, Views

RESNET = {"name": "resnet", "blocks": (1, 1, 1, 1), "widths": (8, 8, 8, 8), "zero_init_residual": False}
VIT = {"name": "vit", "width": 24, "depth": 2, "heads": 2}
ENCODERS = {  # settings, and the size of the views
    "resnet-2d": ({**RESNET, "dims": 2}, (48, 48)),
    "vit-2d": ({**VIT, "size": (48, 48), "patch": (8, 8)}, (48, 48)),
    "unet-3d": ({"name": "unet", "dims": 3, "widths": (4, 6, 8)}, (32, 32, 32)),
    "vit-3d": ({**VIT, "size": (32, 32, 32), "patch": (8, 8, 8)}, (32, 32, 32)),
}
PAGE = Path(__file__).parents[2] / "docs/new_objective.md"


def example() -> type[Objective]:
    """The objective that the page writes down has to do what it teaches."""
    (code,) = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), flags=re.M | re.S)
    module = sys.modules["example"] = ModuleType("example")  # where pydantic looks for the names in annotations
    exec(compile(code, PAGE.name, "exec"), module.__dict__)
    return module.BarlowTwins


KINDS = OBJECTIVES | {"example": example()}
SMALLER = {"width": 16, "depth": 1, "heads": 2}
"""Any field of these names, at any depth of a Config, is made so small."""


def build(name: str, encoder: str, seed: int = 0) -> Objective:
    """ConfigError where the objective does not take this encoder."""
    torch.manual_seed(seed)
    kind, settings = KINDS[name], ENCODERS[encoder][0]
    return kind(build_encoder(TypeAdapter(EncoderConfig).validate_python(settings)), shrunk(kind.Config()))


def shrunk(config: Config) -> Config:
    smaller: dict[str, Any] = {field: SMALLER[field] for field in type(config).model_fields if field in SMALLER}
    for field in type(config).model_fields:
        if isinstance(getattr(config, field), Config):
            smaller[field] = shrunk(getattr(config, field)).model_dump()
    return type(config).model_validate(config.model_dump() | smaller)


def without_default(name: str) -> list[str]:
    """Settings of an objective that a recipe would have to state."""
    return [field for field, info in KINDS[name].Config.model_fields.items() if info.is_required()]


def takes(name: str, encoder: str) -> bool:
    if without_default(name):
        return False
    try:
        build(name, encoder)
    except ConfigError:
        return False
    return True


FITTING = {name: [encoder for encoder in ENCODERS if takes(name, encoder)] for name in KINDS}
EVERY = pytest.mark.parametrize(("name", "encoder"), [(name, encoder) for name in FITTING for encoder in FITTING[name]])


def views_for(objective: Objective, encoder: str, batch: int = 4) -> Views:
    """What the view policy gives it of noisy pictures: as many views as it asks for, and what it draws."""
    size = ENCODERS[encoder][1]
    cases = [f"case{b}" for b in range(batch)]
    coarse = [stream(case).standard_normal((1, *[side // 8 for side in size])) for case in cases]
    smooth = torch.from_numpy(np.stack(coarse)).float()
    image = torch.nn.functional.interpolate(smooth, size, mode="bilinear" if len(size) == 2 else "trilinear")
    policy = PolicyConfig.model_validate({"intensity": [{"name": "noise", "std": 0.5}]})
    return ViewPolicy(policy, objective.view_spec, seed=1)(Batch(cases, image))


def chosen(views: Views, cases: list[int]) -> Views:
    """The same views of some of the cases."""
    drawn = {key: values[cases] for key, values in views.drawn.items()}
    return Views(tuple(image[cases] for image in views.images), drawn)
