"""Inpainting's loss against loops, what is removed, and that the network never sees it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from double import assert_same, float64, gradients
from pydantic import ValidationError

from medssl.augment.transform import stack
from medssl.errors import ConfigError
from medssl.models import ENCODERS
from medssl.objectives.inpainting import Inpainting
from medssl.rng import stream
from medssl.types import Views

KINDS = {  # size, channels, settings, sides of a box
    "random boxes": ((16, 24), 1, {"regions": 3}, (4, 6)),
    "a central hole": ((16, 24), 1, {"place": "central", "regions": 1, "side": 0.5, "overlap": 2}, (8, 12)),
    "boxes of a volume of 2 channels": ((8, 16, 8), 2, {"regions": 2, "side": 0.3, "overlap": 1}, (2, 5, 2)),
}


def make(kind):
    size, channels, settings, _ = KINDS[kind]
    torch.manual_seed(0)
    encoder = ENCODERS["unet"](ENCODERS["unet"].Config(dims=len(size), channels=channels, widths=(4, 6, 8)))
    return Inpainting(encoder, Inpainting.Config.model_validate(settings))


def views_for(kind, objective, batch=3):
    size, channels, *_ = KINDS[kind]
    image = torch.randn(batch, channels, *size, generator=torch.Generator().manual_seed(1)) + 0.5
    return Views((image,), stack([objective.view_spec.draw(stream("test", b), image.shape[1:]) for b in range(batch)]))


def weights_of(kind, views):
    """Of every voxel's squared error, (B, *S): 1 where it is removed, 10 around that, 0 elsewhere."""
    size, _, settings, sides = KINDS[kind]
    margin = settings.get("overlap", 0)
    weights = np.zeros((len(views.images[0]), *size))
    for weight, grown in ((10, margin), (1, 0)):
        for case, boxes in enumerate(views.drawn["start"].tolist()):
            for start in boxes:
                box = [slice(max(0, at - grown), at + side + grown) for at, side in zip(start, sides, strict=True)]
                weights[(case, *box)] = weight
    return torch.from_numpy(weights)[:, None].expand_as(views.images[0])


@pytest.mark.parametrize("kind", KINDS)
def test_loss_and_gradients_against_loops(kind):
    with float64():
        objective = make(kind)
        views = views_for(kind, objective)
        image, weights = views.images[0], weights_of(kind, views)
        loss, health = objective(views)
        ours = gradients(loss, objective)
        holed = image * (weights != 1)
        painted = objective.head(objective.decoder(objective.encoder(holed).maps, image.shape[2:]))
        reference = ((painted - image) ** 2 * weights)[weights > 0].mean()
        assert loss.item() == pytest.approx(reference.item(), rel=1e-9)
        assert_same(ours, gradients(reference, objective))
        removed = image[weights == 1]
        error = ((painted[weights == 1] - removed) ** 2).mean().item()
        assert health["masked_error"].item() == pytest.approx(error, rel=1e-9)
        explained = 1 - error / removed.var(correction=0).item()
        assert health["explained_variance"].item() == pytest.approx(explained, rel=1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_the_network_never_sees_a_removed_voxel(kind):
    objective = make(kind)
    views = views_for(kind, objective)
    image, removed = views.images[0], weights_of(kind, views) == 1
    other = torch.where(removed, torch.randn_like(image), image)
    (shown, first), (_, second) = objective.reconstruct(views), objective.reconstruct(Views((other,), views.drawn))
    assert torch.equal(first, second)
    assert torch.equal(first[~removed], image[~removed])
    assert torch.equal(shown.isnan(), removed)
    assert not torch.isclose(first[removed], image[removed]).all()


def test_the_central_hole_is_the_papers():
    objective = make("a central hole")
    assert objective.view_spec.draw(stream("a"), (1, 128, 128))["start"].tolist() == [[32, 32]]
    assert objective.view_spec.draw(stream("b"), (1, 64, 128, 96))["start"].tolist() == [[16, 32, 24]]


def test_random_boxes_reach_every_voxel_and_stay_inside():
    objective = Inpainting(make("random boxes").encoder, Inpainting.Config())
    drawn = [objective.view_spec.draw(stream("test", n), (1, 16, 24))["start"] for n in range(300)]
    starts = np.concatenate(drawn)
    assert starts.min(0).tolist() == [0, 0]
    assert starts.max(0).tolist() == [16 - 4, 24 - 6]
    image = torch.zeros(300, 1, 16, 24)
    removed = objective.reconstruct(Views((image,), {"start": torch.from_numpy(np.stack(drawn))}))[0].isnan()
    share = removed.flatten(1).float().mean(1)
    assert share.max() == 0.25, "at most a quarter, and all of it where the boxes lie apart"
    assert share.min() < 0.25, "boxes may overlap"


def test_several_central_regions_are_refused():
    with pytest.raises(ValidationError, match="2 central regions would lie on each other: set regions to 1"):
        Inpainting.Config(place="central", regions=2)


def test_a_box_that_leaves_nothing_to_paint_from_is_refused():
    encoder = make("random boxes").encoder
    with pytest.raises(ConfigError, match=r"objective.side 0.99 removes the whole of views of \(16, 24\)"):
        Inpainting(encoder, Inpainting.Config(side=0.99)).view_spec.draw(stream("test"), (1, 16, 24))
