"""MAE against an independent reference and against loops, and what the loss and the encoder may and may not see."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from double import assert_same, float64, gradients
from reference_mae import mae_loss

from medssl.augment.transform import stack
from medssl.errors import ConfigError, TrainingError
from medssl.models import ENCODERS, TokenDecoder, ViT
from medssl.objectives.mae import MAE, split_tokens
from medssl.rng import stream
from medssl.types import Views

KINDS = {  # size, patch, channels, tube
    "image": ((16, 24), (4, 4), 1, False),
    "image of 3 channels": ((16, 16), (4, 4), 3, False),
    "volume of 2 channels": ((8, 8, 12), (4, 4, 4), 2, False),
    "clip": ((6, 8, 8), (2, 4, 4), 1, True),
    "clip of 2 channels": ((6, 8, 8), (2, 4, 4), 2, True),
}


def make(size, patch, channels, tube, **settings):
    torch.manual_seed(0)
    encoder = ViT(ViT.Config(size=size, patch=patch, channels=channels, width=24, depth=2, heads=2))
    decoder = TokenDecoder.Config(width=16, depth=1, heads=2)
    return MAE(encoder, MAE.Config(tube=tube, decoder=decoder, **{"ratio": 0.75, **settings}))


def views_for(mae, batch=3, seed=0):
    size, channels = mae.encoder.config.size, mae.encoder.channels
    image = torch.randn(batch, channels, *size, generator=torch.Generator().manual_seed(seed)) * 3 + 1
    return Views((image,), stack([mae.view_spec.draw(stream("test", seed, b), image.shape[1:]) for b in range(batch)]))


def naive_loss(mae, views):
    """One sample and one patch at a time: all patches embedded and the visible ones chosen, targets in numpy."""
    vit, image = mae.encoder, views.images[0]
    groups = vit.channels if mae.config.tube else 1
    errors = []
    for b in range(len(image)):
        patches = vit.patchify(image[b : b + 1])[0]
        shown = [n for n in range(len(patches)) if not views.drawn["hidden"][b, n]]
        asked = [n for n in range(len(patches)) if views.drawn["hidden"][b, n]]
        tokens = vit.encode(vit.embed(image[b : b + 1])[:, shown])
        predicted = mae.decoder(tokens, torch.tensor([shown]), torch.tensor([asked]), vit.grid)[0]
        for place, n in enumerate(asked):
            target = patches[n].double().numpy().reshape(groups, -1).copy()
            if mae.config.normalise_target:
                for group in target:
                    group -= group.mean()
                    group /= np.sqrt((group**2).sum() / (len(group) - 1) + 1e-6)
            errors.append(((predicted[place] - torch.from_numpy(target.ravel())) ** 2).mean())
    return sum(errors) / len(errors)


@pytest.mark.parametrize("kind", KINDS)
def test_the_whole_model_is_the_papers_to_the_last_digits(kind):
    with float64():
        mae = make(*KINDS[kind])
        for parameter in mae.parameters():  # biases too, which start at 0
            torch.nn.init.normal_(parameter, std=0.5)
        views = views_for(mae)
        loss = mae(views)[0]
        ours = gradients(loss, mae)
        weights = dict(mae.named_parameters())
        reference = mae_loss(weights, views.images[0], views.drawn["hidden"], heads=2, per_channel=mae.config.tube)
        assert loss.item() == pytest.approx(reference.item(), rel=1e-9)
        assert_same(ours, gradients(reference, mae))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("normalise", [True, False])
def test_loss_and_gradients_against_loops(kind, normalise):
    mae = make(*KINDS[kind], normalise_target=normalise)
    views = views_for(mae)
    loss, _ = mae(views)
    loss.backward()
    ours = {name: p.grad.clone() for name, p in mae.named_parameters()}
    mae.zero_grad()
    naive = naive_loss(mae, views)
    naive.backward()
    assert loss.item() == pytest.approx(naive.item(), rel=1e-5)
    for name, parameter in mae.named_parameters():
        torch.testing.assert_close(ours[name], parameter.grad, rtol=1e-3, atol=1e-5, msg=name)


@pytest.mark.parametrize("kind", KINDS)
def test_hidden_pixels_reach_the_target_alone_and_visible_ones_the_input_alone(kind):
    mae = make(*KINDS[kind], normalise_target=False)
    views = views_for(mae)
    image = views.images[0].requires_grad_()
    patches = mae.encoder.patchify(image)
    visible, hidden = split_tokens(views.drawn["hidden"], patches.shape[1])
    painted = mae._predict(views, patches, visible, hidden)
    (gradient,) = torch.autograd.grad((painted**3).sum(), image)
    reached = mae.encoder.patchify(gradient).abs().amax(2)
    assert torch.equal(reached > 0, ~views.drawn["hidden"]), "predictions must follow the visible patches alone"


def test_visible_targets_do_not_count():
    mae = make(*KINDS["image"])
    views = views_for(mae)
    patches = mae.encoder.patchify(views.images[0])
    expected, _ = mae(views)
    predicted = mae._predict(views, patches, *split_tokens(views.drawn["hidden"], patches.shape[1]))
    mae._predict = lambda *_: predicted  # from here on, only targets can change the loss

    def loss_with(changed):
        return mae(Views((mae.encoder.unpatchify(changed, mae.encoder.grid),), views.drawn))[0]

    is_hidden = views.drawn["hidden"][:, :, None]
    torch.testing.assert_close(loss_with(torch.where(is_hidden, patches, patches.flip(2))), expected)
    assert not torch.allclose(loss_with(torch.where(is_hidden, patches.flip(2), patches)), expected)


def test_normalised_targets_forget_brightness_and_contrast():
    mae = make(*KINDS["image"])
    patches = torch.randn(2, 5, 16)
    torch.testing.assert_close(mae._normalise(patches * 7 - 3), mae._normalise(patches), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(mae._restore(mae._normalise(patches), patches), patches)


def test_a_clips_channels_are_normalised_apart():
    mae = make(*KINDS["clip of 2 channels"])
    patches = torch.randn(1, 3, 2 * 32)
    scaled = torch.cat([patches[..., :32] * 5 + 2, patches[..., 32:]], 2)
    torch.testing.assert_close(mae._normalise(scaled), mae._normalise(patches), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_reconstruction_keeps_visible_patches_and_paints_the_others(kind):
    mae = make(*KINDS[kind])
    views = views_for(mae)
    shown, painted = mae.reconstruct(views)
    assert painted.shape == views.images[0].shape
    same = (mae.encoder.patchify(painted) == mae.encoder.patchify(views.images[0])).all(2)
    assert torch.equal(same, ~views.drawn["hidden"])
    unseen = mae.encoder.patchify(shown).isnan()
    assert torch.equal(unseen, views.drawn["hidden"][:, :, None].expand_as(unseen))
    assert torch.equal(shown.nan_to_num(nan=0) + painted.where(shown.isnan(), 0), painted)


def test_a_perfect_prediction_is_painted_as_the_picture_itself():
    mae = make(*KINDS["volume of 2 channels"])
    views = views_for(mae)

    def oracle(views, patches, visible, hidden):
        return mae._normalise(patches.gather(1, hidden[:, :, None].expand(-1, -1, patches.shape[2])))

    mae._predict = oracle
    torch.testing.assert_close(mae.reconstruct(views)[1], views.images[0])
    loss, health = mae(views)
    assert loss.item() == 0
    assert health["explained_variance"].item() == 1


def test_saying_the_mean_explains_nothing():
    mae = make(*KINDS["image"], normalise_target=False)
    views = views_for(mae)
    hidden_pixels = mae.encoder.patchify(views.images[0])[views.drawn["hidden"]]
    mae._predict = lambda views, patches, visible, hidden: hidden_pixels.mean()
    _, health = mae(views)
    assert health["explained_variance"].item() == pytest.approx(0, abs=1e-5)


def test_three_quarters_are_hidden_unless_told_otherwise():
    mae = MAE(ViT(ViT.Config(size=(32, 32), patch=(4, 4), width=8, heads=2, depth=1)), MAE.Config())
    assert views_for(mae).drawn["hidden"].sum(1).tolist() == [48, 48, 48]
    assert mae.config.normalise_target


def test_split_tokens_numbers_the_visible_and_the_hidden():
    visible, hidden = split_tokens(torch.tensor([[True, False, True], [False, True, True]]), 3)
    assert visible.tolist() == [[1], [0]]
    assert hidden.tolist() == [[0, 2], [1, 2]]


@pytest.mark.parametrize(
    ("hidden", "message"),
    [
        (None, "mask is None"),
        (torch.tensor([[True, False]]), r"mask is \(1, 2\)"),
        (torch.tensor([[True, False, False], [True, True, False]]), "hides 1 to 2 patches"),
        (torch.tensor([[True, True, True]]), "hides 3 to 3"),
        (torch.tensor([[False, False, False]]), "hides 0 to 0"),
    ],
)
def test_a_mask_that_cannot_be_used_is_refused(hidden, message):
    with pytest.raises(TrainingError, match=message):
        split_tokens(hidden, 3)


@pytest.mark.parametrize("kind", KINDS)
def test_a_compiled_step_is_one_graph(kind):
    mae = make(*KINDS[kind])
    torch._dynamo.reset()
    explained = torch._dynamo.explain(mae)(views_for(mae))
    assert explained.graph_break_count == 0, [reason.reason for reason in explained.break_reasons]
    assert explained.graph_count == 1


@pytest.mark.parametrize("kind", KINDS)
def test_the_ratio_tells_what_the_mask_would(kind):
    mae = make(*KINDS[kind])
    views = views_for(mae)
    patches = mae.encoder.patchify(views.images[0]).shape[1]
    known = mae.mask.count(mae.encoder.config.size)
    asked = split_tokens(views.drawn["hidden"], patches)
    assert all(map(torch.equal, asked, split_tokens(views.drawn["hidden"], patches, known)))


def test_only_the_first_mask_on_a_gpu_is_waited_for():
    mae = make(*KINDS["image"]).to("meta")  # a device without values: whoever asks for one fails
    views = views_for(mae)
    there = Views((views.images[0].to("meta"),), {"hidden": views.drawn["hidden"].to("meta")})
    with pytest.raises(RuntimeError, match="meta"):
        mae(there)
    assert mae(there)[0].shape == ()


def test_a_cnn_is_refused_with_the_way_out():
    encoder = ENCODERS["unet"](ENCODERS["unet"].Config(widths=(2, 3)))
    with pytest.raises(ConfigError, match=r"encoder\.name=vit, or objective\.name=masked_reconstruction"):
        MAE(encoder, MAE.Config())
