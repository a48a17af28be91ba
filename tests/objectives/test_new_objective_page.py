"""The example of docs/new_objective.md is an objective that trains."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path

import pytest
import torch
from pydantic import TypeAdapter
from small import ENCODERS, shrunk, views_for

from medssl.models import EncoderConfig, build_encoder
from medssl.objectives import Objective

PAGE = Path(__file__).parents[2] / "docs/new_objective.md"


@pytest.fixture
def kind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> type[Objective]:
    (code,) = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), flags=re.M | re.S)
    path = tmp_path / "example.py"
    path.write_text(code)
    spec = importlib.util.spec_from_file_location("example", path)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "example", module)  # where pydantic looks for the names in annotations
    spec.loader.exec_module(module)
    return module.BarlowTwins


@pytest.mark.parametrize("encoder", ENCODERS)
def test_the_pages_example_trains(kind: type[Objective], encoder: str):
    torch.manual_seed(0)
    built = build_encoder(TypeAdapter(EncoderConfig).validate_python(ENCODERS[encoder][0]))
    objective = kind(built, shrunk(kind.Config()))
    views = views_for(objective, encoder)
    optimiser = torch.optim.AdamW(objective.parameters(), lr=0.002)
    losses = []
    for _ in range(12):
        optimiser.zero_grad()
        loss, _ = objective(views)
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert sum(losses[-3:]) / 3 < losses[0]


def test_the_formula_of_the_page(kind: type[Objective]):
    torch.manual_seed(0)
    built = build_encoder(TypeAdapter(EncoderConfig).validate_python(ENCODERS["vit-2d"][0]))
    objective = kind(built, shrunk(kind.Config()))
    views = views_for(objective, "vit-2d", batch=6)
    first, second = (objective.projector(built(image).pooled).detach() for image in views.images)
    table = torch.corrcoef(torch.cat([first, second], 1).T)[: first.shape[1], first.shape[1] :]
    expected = sum((1 - table[i, j]) ** 2 if i == j else 0.005 * table[i, j] ** 2
                   for i in range(len(table)) for j in range(len(table)))
    torch.testing.assert_close(objective(views)[0].detach(), expected, rtol=1e-3, atol=1e-4)
