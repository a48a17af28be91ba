"""What every objective in the table must do, whatever it is called. A new one needs a line in SMALL, and no test."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter, ValidationError

from medssl.augment.mask import block_grid, draw_hidden
from medssl.models import EncoderConfig, build_encoder
from medssl.objectives import OBJECTIVES, Objective, ObjectiveConfig, build_objective
from medssl.rng import stream
from medssl.types import Views

VIT = {"name": "vit", "width": 24, "depth": 2, "heads": 2}
RESNET = {"name": "resnet", "blocks": (1, 1, 1, 1), "widths": (4, 4, 8, 8), "zero_init_residual": False}
DECODER = {"width": 16, "depth": 1, "heads": 2}
SMALL = {  # objective settings, encoder settings, size of the views
    "simsiam": [
        ({"width": 8}, RESNET, (40, 40)),
        ({"width": 8}, {**VIT, "size": (8, 16, 16), "patch": (4, 8, 8)}, (8, 16, 16)),
    ],
    "mae": [
        ({"decoder": DECODER}, {**VIT, "size": (16, 16), "patch": (4, 4)}, (16, 16)),
        ({"decoder": DECODER, "tube": True}, {**VIT, "size": (4, 16, 16), "patch": (2, 4, 4)}, (4, 16, 16)),
    ],
    "masked_reconstruction": [
        ({"block": (4, 4)}, {**RESNET, "dims": 2}, (40, 40)),
        ({"block": (4, 4, 4)}, {"name": "unet", "dims": 3, "widths": (4, 6, 8)}, (12, 8, 16)),
    ],
}
CASES = [
    pytest.param({"name": name, **settings}, encoder, size, id=f"{name}-{encoder['name']}-{len(size)}d")
    for name in OBJECTIVES
    for settings, encoder, size in SMALL[name]
]


def build(settings, encoder_settings):
    torch.manual_seed(0)
    encoder = build_encoder(TypeAdapter(EncoderConfig).validate_python(encoder_settings))
    return build_objective(TypeAdapter(ObjectiveConfig).validate_python(settings), encoder)


def views_for(objective: Objective, size, batch=4):
    """What the view policy gives: as many views as asked for, and a mask where one is asked for."""
    images = tuple(
        torch.from_numpy(stream("image", view).standard_normal((batch, 1, *size))).float()
        for view in range(objective.view_spec.count)
    )
    spec = objective.view_spec.mask
    if spec is None:
        return Views(images)
    grid = block_grid(size, spec.block)
    return Views(images, torch.from_numpy(np.stack([draw_hidden(stream(b), grid, spec) for b in range(batch)])))


@pytest.mark.parametrize(("settings", "encoder", "size"), CASES)
@pytest.mark.parametrize("bf16", [False, True])
def test_it_trains(settings, encoder, size, bf16):
    objective = build(settings, encoder)
    views = views_for(objective, size)
    optimiser = torch.optim.SGD(objective.parameters(), lr=0.01, momentum=0.9)
    losses = []
    for _ in range(12):
        optimiser.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            loss, health = objective(views)
        loss.backward()
        assert loss.shape == ()
        assert loss.dtype == torch.float32
        for name, figure in health.items():
            assert figure.shape == (), name
            assert figure.isfinite(), name
            assert not figure.requires_grad, name
        for name, parameter in objective.encoder.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name
        losses.append(loss.item())
        optimiser.step()
    assert losses[-1] < losses[0], "the same views, over and over, must become easier"
    assert all(p.isfinite().all() for p in objective.parameters())


@pytest.mark.parametrize(("settings", "encoder", "size"), CASES)
def test_it_hands_on_its_own_encoder(settings, encoder, size):
    objective = build(settings, encoder)
    parts = objective.parts()
    assert parts["encoder"] is objective.encoder
    names = {id(p): name for name, p in objective.named_parameters()}
    assert all(id(p) in names for part in parts.values() for p in part.parameters()), "parts are of this module"
    assert all(id(p) in names for p in objective.fixed_lr_parameters())


@pytest.mark.parametrize(("settings", "encoder", "size"), CASES)
def test_cases_may_come_in_any_order(settings, encoder, size):
    objective = build(settings, encoder)
    views = views_for(objective, size)
    order = [2, 0, 3, 1]
    moved = Views(tuple(x[order] for x in views.images), None if views.hidden is None else views.hidden[order])
    torch.testing.assert_close(objective(views)[0], objective(moved)[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("settings", "encoder", "size"), CASES)
def test_its_config_is_rebuilt_from_plain_data(settings, encoder, size):
    config = build(settings, encoder).config
    assert TypeAdapter(ObjectiveConfig).validate_python(config.model_dump(mode="json")) == config


def test_an_unknown_objective_lists_the_known_ones():
    with pytest.raises(ValidationError, match=r"'simsiam'.*'mae'.*'masked_reconstruction'"):
        TypeAdapter(ObjectiveConfig).validate_python({"name": "simclr2"})
