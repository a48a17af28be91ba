"""Jigsaw: the set of orders, and that the answer is the order in which the tiles were shown."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import nn

from medssl.errors import ConfigError
from medssl.objectives.jigsaw import Jigsaw, distant_orders, every_order, normalised
from medssl.types import Features, Views


class Corners(nn.Module):
    """An encoder whose features are a tile's first voxels."""

    def __init__(self, dims):
        super().__init__()
        self.dims, self.width, self.channels, self.smallest = dims, 4, 1, (1,) * dims

    def forward(self, x):
        return Features([], x.flatten(1)[:, :4])


def objective_and_views(size, batch, **config):
    torch.manual_seed(0)
    objective = Jigsaw(Corners(len(size)), Jigsaw.Config(**{"width": 6, "permutations": 20, **config}))
    draws = [objective.view_spec.draw(np.random.default_rng(seed), (1, *size)) for seed in range(batch)]
    drawn = {key: torch.from_numpy(np.stack([draw[key] for draw in draws])) for key in draws[0]}
    return objective, Views((torch.randn(batch, 1, *size),), drawn)


def tiles_of_cells(objective, views, sample):
    """The tiles of a sample in the order of their cells, each normalised, cut out by hand."""
    image, tiles = views.images[0][sample, 0].double().numpy(), []
    for first in views.drawn["firsts"][sample].tolist():
        box = tuple(slice(f, f + side) for f, side in zip(first, objective.tiles.size(image.shape), strict=True))
        tiles.append((image[box] - image[box].mean()) / np.sqrt(image[box].var() + 1e-6))
    return np.stack(tiles)


@pytest.mark.parametrize(("size", "grid"), [((40, 48), 3), ((40, 30), (2, 3)), ((24, 26, 28), 2), ((24, 26, 28), 3)])
def test_tiles_put_back_in_order_are_those_of_the_picture(size, grid):
    objective, views = objective_and_views(size, 12, grid=grid)
    shown = objective.puzzle(views)[:, :, 0].double().numpy()
    answers = views.drawn["order"].tolist()
    assert len(set(answers)) > 5
    for sample, answer in enumerate(answers):
        ordered = np.empty_like(shown[sample])
        ordered[objective.orders[answer].numpy()] = shown[sample]
        np.testing.assert_allclose(ordered, tiles_of_cells(objective, views, sample), atol=1e-5)


def test_loss_and_gradient_against_the_formula():
    objective, views = objective_and_views((40, 48), 5)
    loss, health = objective(views)
    loss.backward()
    w0, b0, w1, b1, w2, b2 = (p.detach().double().numpy() for p in objective.parameters())
    total, right, gradient = 0.0, 0, np.zeros_like(w0)
    for sample, answer in enumerate(views.drawn["order"].tolist()):
        tiles = tiles_of_cells(objective, views, sample)[objective.orders[answer].numpy()]
        inputs = [tile.ravel()[:4] for tile in tiles]
        before = [w0 @ features + b0 for features in inputs]
        hidden = w1 @ np.concatenate([np.maximum(one, 0) for one in before]) + b1
        logits = w2 @ np.maximum(hidden, 0) + b2
        softmax = np.exp(logits) / np.exp(logits).sum()
        total -= np.log(softmax[answer]) / 5
        right += logits.argmax() == answer
        back = np.split(w1.T @ ((w2.T @ (softmax - np.eye(20)[answer])) * (hidden > 0)) / 5, 9)
        gradient += sum(np.outer(part * (one > 0), features)
                        for part, one, features in zip(back, before, inputs, strict=True))
    assert loss.item() == pytest.approx(total, rel=1e-5)
    assert health["accuracy"].item() == pytest.approx(right / 5)
    assert health["chance"].item() == pytest.approx(1 / 20)
    np.testing.assert_allclose(objective.projector[0].weight.grad.numpy(), gradient, atol=1e-6)


def test_a_tiles_brightness_and_contrast_tell_nothing():
    tiles = torch.randn(2, 9, 1, 8, 8)
    scale, shift = torch.rand(2, 9, 1, 1, 1) + 0.5, torch.randn(2, 9, 1, 1, 1)
    torch.testing.assert_close(normalised(tiles * scale + shift), normalised(tiles), atol=1e-4, rtol=0)
    assert not normalised(torch.full((1, 9, 1, 8, 8), 3.0)).any(), "air is 0, not NaN"


def test_every_order_is_there_once():
    assert {tuple(order) for order in every_order(5).T} == set(permutations(range(5)))
    assert every_order(5).shape == (5, 120)


@pytest.mark.parametrize(("tiles", "count"), [(9, 100), (8, 60), (27, 50), (4, 24)])
def test_orders_are_far_from_each_other(tiles, count):
    orders = distant_orders(tiles, count)
    assert all(sorted(order) == list(range(tiles)) for order in orders.tolist())
    between = (orders[:, None] != orders[None]).sum(2)[~np.eye(count, dtype=bool)]
    at_random = tiles - 1  # the mean distance of two random orders: one place in common
    assert between.min() >= 2, "no order twice"
    assert between.mean() > at_random


def test_the_first_nine_of_nine_tiles_share_no_place():
    """What the greedy algorithm must find: a Latin square, at the largest distance that there is."""
    orders = distant_orders(9, 9)
    assert all(len(set(place)) == 9 for place in orders.T.tolist())


def test_each_order_is_the_most_distant_one_left():
    """The algorithm, step by step, in plain loops."""
    orders, everything = distant_orders(5, 12).tolist(), list(permutations(range(5)))
    for n in range(1, 12):
        def distances(order, chosen=orders[:n]):
            apart = [sum(a != b for a, b in zip(order, other, strict=True)) for other in chosen]
            return sum(apart), min(apart)
        assert distances(orders[n]) == max(distances(order) for order in everything if list(order) not in orders[:n])


def test_orders_are_the_same_every_time():
    first = distant_orders(6, 10)
    distant_orders.cache_clear()
    np.testing.assert_array_equal(first, distant_orders(6, 10))


def test_what_does_not_fit_is_refused_in_words():
    with pytest.raises(ConfigError, match="at most 24"):
        objective_and_views((40, 40), 1, grid=2, permutations=25)
    with pytest.raises(ValidationError, match="less than or equal to 1000"):
        Jigsaw.Config(permutations=1001)
    with pytest.raises(ConfigError, match="has 3 axes"):
        objective_and_views((40, 40), 1, grid=(2, 2, 2))
