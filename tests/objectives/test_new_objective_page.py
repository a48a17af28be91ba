"""The example of docs/new_objective.md against its formula; the contract's tests run it as they do every objective."""

from __future__ import annotations

import sys

import torch
from small import build, views_for


def test_the_formula_of_the_page():
    objective = build("example", "vit-2d")
    views = views_for(objective, "vit-2d", batch=6)
    first, second = (objective.projector(objective.encoder(image).pooled).detach() for image in views.images)
    table = torch.corrcoef(torch.cat([first, second], 1).T)[: first.shape[1], first.shape[1] :]
    expected = sum((1 - table[i, j]) ** 2 if i == j else 0.005 * table[i, j] ** 2
                   for i in range(len(table)) for j in range(len(table)))
    torch.testing.assert_close(objective(views)[0].detach(), expected, rtol=1e-3, atol=1e-4)
    loss, agreement = sys.modules["example"].barlow_twins(first, first, 0)
    torch.testing.assert_close(loss, torch.tensor(0.0), atol=1e-4, rtol=0)
    torch.testing.assert_close(agreement, torch.tensor(1.0), atol=1e-3, rtol=0)
