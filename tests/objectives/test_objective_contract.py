"""What every objective in the table must do, whatever it is called. A new one needs no line here."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter, ValidationError
from small import ENCODERS, EVERY, FITTING, KINDS, build, chosen, views_for, without_default

from medssl.objectives import OBJECTIVES, ObjectiveConfig
from medssl.train.step import is_per_sample

ONCE = "the loss depends on weights and views alone: chance is drawn by ViewSpec(draw=...), never in forward"


@pytest.mark.parametrize("name", KINDS)
def test_every_setting_has_a_default(name):
    assert not without_default(name), "give these fields of its Config a default: a recipe may name the objective alone"


@pytest.mark.parametrize("name", FITTING)
def test_it_takes_images_and_volumes(name):
    assert {encoder[-2:] for encoder in FITTING[name]} == {"2d", "3d"}, f"of {[*ENCODERS]} it takes {FITTING[name]}"


@EVERY
@pytest.mark.parametrize("bf16", [False, True])
def test_it_trains(name, encoder, bf16):
    objective = build(name, encoder)
    views = views_for(objective, encoder)
    optimiser = torch.optim.AdamW(objective.parameters(), lr=0.002)
    losses = []
    for _ in range(12):
        optimiser.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            loss, health = objective(views)
        loss.backward()
        assert loss.shape == ()
        assert loss.dtype == torch.float32
        for figure_name, figure in health.items():
            assert figure.shape == (), figure_name
            assert figure.isfinite(), figure_name
            assert not figure.requires_grad, figure_name
        for parameter_name, parameter in objective.encoder.named_parameters():
            assert parameter.grad is not None, parameter_name
            assert parameter.grad.isfinite().all(), parameter_name
        losses.append(loss.item())
        optimiser.step()
    assert np.mean(losses[-3:]) < losses[0], "the same views, over and over, must become easier"
    assert all(p.isfinite().all() for p in objective.parameters())


@EVERY
def test_a_loss_per_sample_is_the_mean_of_the_samples_own(name, encoder):
    objective = build(name, encoder)
    if not is_per_sample(objective):
        pytest.skip("it compares samples, or normalises over them")
    views = views_for(objective, encoder)
    whole, *each = (objective(chosen(views, cases))[0].detach() for cases in (range(4), *([case] for case in range(4))))
    torch.testing.assert_close(torch.stack(each).mean(), whole, rtol=1e-5, atol=1e-6)


@EVERY
def test_it_hands_on_its_own_encoder(name, encoder):
    objective = build(name, encoder)
    parts = objective.parts()
    assert parts["encoder"] is objective.encoder
    names = {id(p): path for path, p in objective.named_parameters()}
    assert all(id(p) in names for part in parts.values() for p in part.parameters()), "parts are of this module"
    assert all(id(p) in names for p in objective.fixed_lr_parameters())


@EVERY
def test_it_draws_alike_for_every_batch_and_leaves_the_views_alone(name, encoder):
    objective = build(name, encoder)
    views = views_for(objective, encoder)
    few = views_for(objective, encoder, batch=2)
    assert all(torch.equal(few.drawn[key], views.drawn[key][:2]) for key in views.drawn)
    before = tuple(image.clone() for image in views.images)
    first, again = objective(views)[0], objective(views)[0]
    torch.testing.assert_close(first, again, msg=ONCE)
    assert all(map(torch.equal, before, views.images))


@EVERY
def test_cases_may_come_in_any_order(name, encoder):
    objective = build(name, encoder)
    views = views_for(objective, encoder)
    torch.testing.assert_close(objective(views)[0], objective(chosen(views, [2, 0, 3, 1]))[0], rtol=1e-4, atol=1e-5)


@EVERY
def test_what_it_paints_is_of_the_images_shape(name, encoder):
    objective = build(name, encoder).eval()
    views = views_for(objective, encoder)
    pair = objective.reconstruct(views)
    if pair is not None:
        shown, painted = pair
        assert shown.shape == painted.shape == views.images[0].shape
        assert painted.isfinite().all()


@pytest.mark.parametrize("name", OBJECTIVES)
def test_its_config_is_rebuilt_from_plain_data(name):
    config = OBJECTIVES[name].Config()
    assert config.name == name
    assert TypeAdapter(ObjectiveConfig).validate_python(config.model_dump(mode="json")) == config


def test_an_unknown_objective_lists_the_known_ones():
    with pytest.raises(ValidationError) as error:
        TypeAdapter(ObjectiveConfig).validate_python({"name": "simclr2"})
    assert all(f"'{name}'" in str(error.value) for name in OBJECTIVES)
