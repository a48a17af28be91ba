"""Masked reconstruction's loss against loops, and what it may see."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from double import assert_same, float64, gradients

from medssl.augment.transform import stack
from medssl.errors import ConfigError
from medssl.models import ENCODERS, UNetDecoder
from medssl.models.weights import load_into, load_parts, save_model
from medssl.objectives.masked_reconstruction import MaskedReconstruction
from medssl.rng import stream
from medssl.types import Views

KINDS = {"image": ((16, 24), (4, 8), 1), "volume of 2 channels": ((8, 16, 8), (4, 4, 8), 2)}


def make(kind, **settings):
    size, block, channels = KINDS[kind]
    torch.manual_seed(0)
    encoder = ENCODERS["unet"](ENCODERS["unet"].Config(dims=len(size), channels=channels, widths=(4, 6, 8)))
    return MaskedReconstruction(encoder, MaskedReconstruction.Config(block=block, **{"ratio": 0.75, **settings}))


def views_for(kind, objective, batch=3):
    size, _, channels = KINDS[kind]
    image = torch.randn(batch, channels, *size, generator=torch.Generator().manual_seed(1)) + 0.5
    return Views((image,), stack([objective.view_spec.draw(stream("test", b), image.shape[1:]) for b in range(batch)]))


def is_hidden(kind, views, case, place):
    """Whether the voxel at `place` lies in a hidden block, from first principles."""
    size, block, _ = KINDS[kind]
    number = 0
    for s, b, p in zip(size, block, place, strict=True):
        number = number * (s // b) + p // b
    return bool(views.drawn["hidden"][case, number])


def hidden_voxels(kind, views):
    size, _, channels = KINDS[kind]
    mask = np.zeros((len(views.drawn["hidden"]), *size), dtype=bool)
    for case, *place in np.ndindex(mask.shape):
        mask[(case, *place)] = is_hidden(kind, views, case, place)
    return np.repeat(mask[:, None], channels, 1)


@pytest.mark.parametrize("kind", KINDS)
def test_loss_and_gradients_against_the_formula(kind):
    with float64():
        objective = make(kind)
        views = views_for(kind, objective)
        image, mask = views.images[0], torch.from_numpy(hidden_voxels(kind, views))
        loss, health = objective(views)
        ours = gradients(loss, objective)
        holed = image.clone()
        holed[mask] = 0
        restored = objective.head(objective.decoder(objective.encoder(holed).maps, image.shape[2:]))
        reference = torch.nn.functional.mse_loss(restored[mask], image[mask])
        assert loss.item() == pytest.approx(reference.item(), rel=1e-9)
        assert_same(ours, gradients(reference, objective))
        assert health["masked_error"].item() == pytest.approx(reference.item(), rel=1e-9)
        explained = 1 - reference.item() / image[mask].var(correction=0).item()
        assert health["explained_variance"].item() == pytest.approx(explained, rel=1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_the_network_never_sees_a_hidden_voxel(kind):
    objective = make(kind)
    views = views_for(kind, objective)
    mask = torch.from_numpy(hidden_voxels(kind, views))
    other = torch.where(mask, torch.randn_like(views.images[0]), views.images[0])
    first, second = objective.reconstruct(views)[1], objective.reconstruct(Views((other,), views.drawn))[1]
    assert torch.equal(first, second)
    assert torch.equal(first[~mask], views.images[0][~mask])
    assert not torch.isclose(first[mask], views.images[0][mask]).all()


def test_noise_fills_the_holes_and_nothing_else():
    objective = make("image", fill="noise")
    views = views_for("image", objective)
    seen = []
    objective.encoder.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    objective(views)
    mask = torch.from_numpy(hidden_voxels("image", views))
    assert torch.equal(seen[0][~mask], views.images[0][~mask])
    assert seen[0][mask].std().item() == pytest.approx(1, abs=0.1)
    assert seen[0][mask].mean().item() == pytest.approx(0, abs=0.15)
    turned = Views((views.images[0].flip(0),), {name: values.flip(0) for name, values in views.drawn.items()})
    objective(turned)
    assert torch.equal(seen[1].flip(0), seen[0]), "a case's noise must be its own"


def test_encoder_and_decoder_can_both_be_taken_on(tmp_path):
    objective = make("image")
    assert set(objective.parts()) == {"encoder", "decoder"}
    save_model(tmp_path, objective.parts(), {})
    tensors, _ = load_parts(tmp_path)
    decoder = UNetDecoder(objective.encoder.map_widths, 2, objective.encoder.stride)
    load_into(decoder, tensors, "decoder")
    maps = objective.encoder(torch.randn(1, 1, 16, 16)).maps
    assert torch.equal(decoder(maps, (16, 16)), objective.decoder(maps, (16, 16)))


def test_blocks_that_do_not_fit_are_refused():
    with pytest.raises(ConfigError, match=r"objective\.block \(4, 4, 4\) has 3 axes"):
        MaskedReconstruction(make("image").encoder, MaskedReconstruction.Config(block=(4, 4, 4)))
    objective = make("image")
    views = views_for("image", objective)
    with pytest.raises(ConfigError, match="blocks of"):
        objective(Views((torch.zeros(3, 1, 18, 24),), views.drawn))
