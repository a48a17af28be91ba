"""Context restoration's swaps and loss against loops."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from double import assert_same, float64, gradients

from medssl.augment.transform import stack
from medssl.errors import ConfigError
from medssl.models import ENCODERS
from medssl.objectives.context_restoration import ContextRestoration, poisson_disc
from medssl.rng import stream
from medssl.types import Views

KINDS = {"image": ((16, 24), (4, 3), 1, 4), "volume of 2 channels": ((8, 16, 8), (4, 4, 2), 2, 4)}  # last: swaps


def make(kind, **settings):
    size, patch, channels, _ = KINDS[kind]
    torch.manual_seed(0)
    encoder = ENCODERS["unet"](ENCODERS["unet"].Config(dims=len(size), channels=channels, widths=(4, 6, 8)))
    return ContextRestoration(encoder, ContextRestoration.Config(**{"patch": patch, **settings}))


def views_for(kind, objective, batch=3):
    size, _, channels, _ = KINDS[kind]
    image = torch.randn(batch, channels, *size, generator=torch.Generator().manual_seed(1)) + 0.5
    return Views((image,), stack([objective.view_spec.draw(stream("test", b), image.shape[1:]) for b in range(batch)]))


def swapped_by_hand(views, patch):
    """The first view with one pair after the other exchanged, and which voxels that moved, both (B, C, *S)."""
    swapped, moved = views.images[0].clone(), torch.zeros_like(views.images[0], dtype=torch.bool)
    for case, pairs in enumerate(views.drawn["start"].tolist()):
        for pair in pairs:
            boxes = [[slice(at, at + side) for at, side in zip(start, patch, strict=True)] for start in pair]
            one, other = ((case, slice(None), *box) for box in boxes)
            kept = swapped[one].clone()
            swapped[one] = swapped[other]
            swapped[other] = kept
            moved[one] = moved[other] = True
    return swapped, moved


@pytest.mark.parametrize("kind", KINDS)
def test_loss_and_gradients_against_loops(kind):
    with float64():
        objective = make(kind)
        views = views_for(kind, objective)
        image, (swapped, moved) = views.images[0], swapped_by_hand(views, KINDS[kind][1])
        loss, health = objective(views)
        ours = gradients(loss, objective)
        painted = objective.head(objective.decoder(objective.encoder(swapped).maps, image.shape[2:]))
        reference = ((painted - image) ** 2).mean()
        assert loss.item() == pytest.approx(reference.item(), rel=1e-9)
        assert_same(ours, gradients(reference, objective))
        error = ((painted - image)[moved] ** 2).mean().item()
        assert health["masked_error"].item() == pytest.approx(error, rel=1e-9)
        explained = 1 - error / image[moved].var(correction=0).item()
        assert health["explained_variance"].item() == pytest.approx(explained, rel=1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_the_network_is_shown_the_same_voxels_in_other_places(kind):
    objective = make(kind)
    views = views_for(kind, objective)
    shown, painted = objective.reconstruct(views)
    image, (swapped, moved) = views.images[0], swapped_by_hand(views, KINDS[kind][1])
    assert torch.equal(shown, swapped)
    assert torch.equal(shown.flatten(2).sort(2)[0], image.flatten(2).sort(2)[0])
    assert torch.equal(shown != image, moved), "a moved voxel differs, another does not"
    assert torch.equal(objective.reconstruct(Views((shown,), views.drawn))[0], image), "two swaps undo each other"
    assert painted.shape == image.shape


@pytest.mark.parametrize("kind", KINDS)
def test_a_quarter_of_the_picture_moves(kind):
    objective = make(kind)
    size, patch, channels, swaps = KINDS[kind]
    draw = objective.view_spec.draw(stream("a"), (channels, *size))
    assert draw["start"].shape == (swaps, 2, len(size))
    moved = swapped_by_hand(views_for(kind, objective), patch)[1]
    assert moved.float().mean().item() == pytest.approx(0.25)


@pytest.mark.parametrize(("size", "patch"), [((16, 24), (4, 3)), ((32, 32), (8, 8)), ((12, 16, 12), (4, 4, 3))])
def test_no_patch_lies_over_another_or_outside(size, patch):
    for seed in range(20):
        count = np.zeros(size, dtype=int)
        found = poisson_disc(stream("test", seed), size, patch, wanted=6)
        for start in found.tolist():
            box = tuple(slice(at, at + side) for at, side in zip(start, patch, strict=True))
            assert count[box].shape == patch
            count[box] += 1
        assert count.max() == 1
        assert len(found) == 6


def test_patches_lie_anywhere_not_on_a_grid():
    starts = np.concatenate([poisson_disc(stream("test", seed), (8, 9), (3, 2), wanted=3) for seed in range(300)])
    assert len(np.unique(starts, axis=0)) == (8 - 3 + 1) * (9 - 2 + 1)


def test_where_few_patches_fit_the_draw_keeps_its_shape_and_its_meaning():
    objective = make("image", patch=(11, 11), share=0.5)
    image = torch.arange(22.0 * 24).reshape(1, 1, 22, 24)
    drawn = [objective.view_spec.draw(stream("test", seed), (1, 22, 24)) for seed in range(60)]
    views = Views((image.expand(60, -1, -1, -1),), stack(drawn))
    assert views.drawn["start"].shape == (60, 1, 2, 2)
    moved = (objective.reconstruct(views)[0] != image).flatten(1).sum(1)
    assert set(moved.tolist()) == {0, 2 * 11 * 11}, "two patches change places, or one alone stays where it is"
    still = Views((torch.randn(2, 1, 22, 24),), {"start": views.drawn["start"][moved == 0][:2]})
    assert all(figure.isfinite() for figure in objective(still)[1].values())


def test_pairs_that_do_not_fit_repeat_the_first():
    objective = make("image", patch=(8, 8), share=0.5)
    starts = np.stack([objective.view_spec.draw(stream("test", seed), (1, 17, 24))["start"] for seed in range(40)])
    assert starts.shape == (40, 2, 2, 2)
    repeated = (starts[:, 0] == starts[:, 1]).all((1, 2))
    assert repeated.any()
    assert not repeated.all()


def test_patches_that_do_not_suit_are_refused():
    with pytest.raises(ConfigError, match=r"objective\.patch \(4, 4, 4\) has 3 axes"):
        make("image", patch=(4, 4, 4))
    with pytest.raises(ConfigError, match=r"objective.patch=\[8, 12\] or smaller"):
        make("image", patch=20).view_spec.draw(stream("a"), (1, 16, 24))


def test_a_patch_that_could_change_places_with_itself_alone_is_refused():
    with pytest.raises(ConfigError, match=r"No two patches of \(16, 13\) voxels lie side by side"):
        make("image", patch=(16, 13)).view_spec.draw(stream("a"), (1, 16, 24))
    starts = make("image", patch=(16, 12)).view_spec.draw(stream("a"), (1, 16, 24))["start"]
    assert starts.shape == (1, 2, 2)
