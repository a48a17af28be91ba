"""Rotation: what the network was shown, and that the answer to it is right."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from medssl.errors import ConfigError
from medssl.objectives.rotation import Rotation, quarter_turns, rotated
from medssl.types import Features, Views


class Recorder(nn.Module):
    """An encoder that keeps what it was shown, and whose features are the first voxels."""

    def __init__(self, dims, width=5):
        super().__init__()
        self.dims, self.width, self.channels = dims, width, 1

    def forward(self, x):
        self.shown = x
        return Features([], x.flatten(1)[:, : self.width])


def rotation(dims, **config):
    torch.manual_seed(0)
    return Rotation(Recorder(dims), Rotation.Config(**config))


def drawn(objective, shape, batch):
    draws = [objective.view_spec.draw(np.random.default_rng(seed), shape) for seed in range(batch)]
    return {key: torch.tensor([draw[key] for draw in draws]) for key in draws[0]}


def turned_by_hand(picture, turns):
    """Counter-clockwise as displayed: row j of the result is column J - 1 - j of the picture, `turns` times over."""
    for _ in range(turns):
        picture = np.stack([picture[:, -1 - j] for j in range(picture.shape[1])])
    return picture


def test_all_four_rotations_are_shown_of_every_image():
    objective, image = rotation(2), torch.randn(3, 1, 6, 6)
    assert drawn(objective, (1, 6, 6), 3) == {}
    objective(Views((image,)))
    shown = objective.encoder.shown.numpy().reshape(4, 3, 6, 6)
    for turns in range(4):
        for sample in range(3):
            np.testing.assert_array_equal(shown[turns, sample], turned_by_hand(image[sample, 0].numpy(), turns))


@pytest.mark.parametrize(("dims", "planar", "classes"), [(2, False, 4), (3, False, 10), (3, True, 4)])
def test_undoing_the_answers_rotation_gives_the_picture(dims, planar, classes):
    objective = rotation(dims, shown="one", planar=planar)
    image = torch.randn(60, 1, *[5] * dims)
    views = Views((image,), drawn(objective, (1, *[5] * dims), 60))
    objective(views)
    answers = views.drawn["rotation"].tolist()
    assert set(answers) == set(range(classes))
    for picture, shown, answer in zip(image[:, 0], objective.encoder.shown[:, 0], answers, strict=True):
        turns, (first, second) = objective.turns[answer]
        assert turns == (0 if answer == 0 else (answer - 1) % 3 + 1)
        torch.testing.assert_close(torch.rot90(shown, -turns, (first - 2, second - 2)), picture)


def test_a_volumes_ten_rotations_are_ten_different_pictures():
    volume, turns = torch.randn(1, 1, 4, 4, 4), quarter_turns(3, planar=False)
    shown = rotated(volume.expand(10, -1, -1, -1, -1), torch.arange(10), turns)
    assert len(turns) == 10
    assert len({tuple(picture.flatten().tolist()) for picture in shown}) == 10
    torch.testing.assert_close(shown[0], volume[0])


def test_a_clip_is_rotated_alike_at_all_times():
    clip = torch.randn(1, 1, 3, 6, 6)
    (shown,) = rotated(clip, torch.tensor([1]), quarter_turns(3, planar=True))
    for time in range(3):
        np.testing.assert_array_equal(shown[0, time], turned_by_hand(clip[0, 0, time].numpy(), 1))


def test_loss_and_gradient_against_the_formula():
    """Mean over images and rotations of -log softmax; its gradient in the weights is Σ (softmax - one-hot) xᵀ / 4B."""
    objective, image = rotation(2).double(), torch.randn(3, 1, 6, 6, dtype=torch.float64)
    loss, health = objective(Views((image,)))
    loss.backward()
    weight, bias = (p.detach().numpy() for p in objective.classifier.parameters())
    total, right, gradient = 0.0, 0, np.zeros_like(weight)
    for picture in image[:, 0].numpy():
        for answer in range(4):
            features = turned_by_hand(picture, answer).ravel()[:5]
            logits = weight @ features + bias
            softmax = np.exp(logits) / np.exp(logits).sum()
            total -= np.log(softmax[answer]) / 12
            gradient += np.outer(softmax - np.eye(4)[answer], features) / 12
            right += logits.argmax() == answer
    assert loss.item() == pytest.approx(total, rel=1e-5)
    np.testing.assert_allclose(objective.classifier.weight.grad.numpy(), gradient, atol=1e-6)
    assert health["accuracy"].item() == pytest.approx(right / 12)
    assert health["chance"].item() == pytest.approx(1 / 4)


def test_the_papers_are_the_defaults():
    assert rotation(2).all_shown
    assert not rotation(3).all_shown
    assert rotation(3, planar=True).all_shown
    assert rotation(3, shown="all").all_shown


def test_sides_that_a_turn_would_exchange_must_be_equal():
    rng = np.random.default_rng(0)
    with pytest.raises(ConfigError, match=r"sides \(6, 8\).*augment.size=\[6, 6\]") as error:
        rotation(2).view_spec.draw(rng, (1, 6, 8))
    assert "planar" not in str(error.value)
    with pytest.raises(ConfigError, match="objective.planar=true"):
        rotation(3).view_spec.draw(rng, (1, 4, 8, 8))
    with pytest.raises(ConfigError, match=r"data.box.size=\[4, 4, 4\]"):
        rotation(3).view_spec.draw(rng, (1, 4, 8, 6))
    rotation(3, planar=True).view_spec.draw(rng, (1, 4, 8, 8))
