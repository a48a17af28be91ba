"""Relative position: the two tiles are the centre's and the neighbour's, and the answer says which neighbour."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch
from torch import nn

from medssl.objectives.relative_position import RelativePosition
from medssl.types import Features, Views


class Mean(nn.Module):
    """An encoder whose features are the tile's mean: where a picture holds coordinates, the tile's place."""

    def __init__(self, dims):
        super().__init__()
        self.dims, self.width, self.channels, self.smallest = dims, dims, dims, (1,) * dims

    def forward(self, x):
        self.shown = x
        return Features([], x.flatten(2).mean(2))


def coordinates(batch, size):
    """(B, axes, *S): every voxel says where it lies."""
    grid = torch.meshgrid(*[torch.arange(float(side)) for side in size], indexing="ij")
    return torch.stack(grid).expand(batch, -1, *[-1] * len(size))


def objective_and_views(size, batch, seed=0):
    torch.manual_seed(seed)
    objective = RelativePosition(Mean(len(size)), RelativePosition.Config(width=7))
    draws = [objective.view_spec.draw(np.random.default_rng(s), (len(size), *size)) for s in range(batch)]
    drawn = {key: torch.from_numpy(np.stack([draw[key] for draw in draws])) for key in draws[0]}
    return objective, Views((coordinates(batch, size),), drawn)


@pytest.mark.parametrize("size", [(40, 48), (30, 36, 40)])
def test_the_answer_is_the_direction_from_the_centre_to_the_neighbour(size):
    objective, views = objective_and_views(size, 300)
    objective(views)
    directions = [way for way in product((-1, 0, 1), repeat=len(size)) if any(way)]
    places = objective.encoder.shown.flatten(2).mean(2).unflatten(0, (-1, 2))  # (B, 2, axes)
    step = (places[:, 1] - places[:, 0]).numpy() / np.array(size) * 3  # about one cell, whatever the jitter
    answers = views.drawn["neighbour"].tolist()
    assert set(answers) == set(range(len(directions)))
    assert [directions[answer] for answer in answers] == [tuple(way) for way in np.round(step).astype(int)]


def test_loss_and_gradient_against_the_formula():
    objective, views = objective_and_views((40, 48), 6)
    views = Views((torch.randn(6, 2, 40, 48).requires_grad_(),), views.drawn)
    loss, health = objective(views)
    loss.backward()
    image = views.images[0].detach().double().numpy()
    w1, b1, w2, b2 = (p.detach().double().numpy() for p in objective.classifier.parameters())
    tall, wide = objective.tiles.size((40, 48))
    total, right, gradient = 0.0, 0, np.zeros_like(image)
    for b in range(6):
        boxes = [(slice(None), slice(j, j + tall), slice(i, i + wide)) for j, i in views.drawn["firsts"][b].tolist()]
        hidden = w1 @ np.concatenate([image[b][box].mean(axis=(1, 2)) for box in boxes]) + b1
        logits = w2 @ np.maximum(hidden, 0) + b2
        softmax, answer = np.exp(logits) / np.exp(logits).sum(), int(views.drawn["neighbour"][b])
        total -= np.log(softmax[answer]) / 6
        right += logits.argmax() == answer
        back = w1.T @ ((w2.T @ (softmax - np.eye(8)[answer])) * (hidden > 0)) / 6 / (tall * wide)
        for box, part in zip(boxes, np.split(back, 2), strict=True):
            gradient[b][box] += part[:, None, None]
    assert loss.item() == pytest.approx(total, rel=1e-5)
    assert health["accuracy"].item() == pytest.approx(right / 6)
    assert health["chance"].item() == pytest.approx(1 / 8)
    np.testing.assert_allclose(views.images[0].grad.numpy(), gradient, atol=1e-6)
