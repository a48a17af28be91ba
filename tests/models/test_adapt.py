"""Weights that must change to fit: what they then answer, and what is told of them."""

from __future__ import annotations

import pytest
import torch

from medssl.errors import RunError
from medssl.models import ViT
from medssl.models.adapt import adapt_channels, fill, fold
from medssl.models.cnn import ResNetEncoder


def vit(size=(16, 16), patch=(4, 4), **settings):
    small = {"width": 12, "depth": 2, "heads": 2, "positions": "learned", **settings}
    return ViT(ViT.Config(size=size, patch=patch, **small))


@pytest.mark.parametrize(("before", "after"), [(3, 1), (1, 4), (3, 4), (4, 3), (2, 6), (1, 3)])
def test_equal_channels_get_the_same_answer_whatever_their_number(before, after):
    torch.manual_seed(0)
    old, new = vit(channels=before).eval(), vit(channels=after).eval()
    account = fill(new, old.state_dict(), "encoder", channels=before)
    assert account.adapted == {"embedding.weight": f"channels {before} to {after}"}
    x = torch.randn(2, 1, 16, 16)
    torch.testing.assert_close(new(x.expand(-1, after, -1, -1)).pooled, old(x.expand(-1, before, -1, -1)).pooled)


def test_a_multiple_of_the_channels_keeps_them_apart():
    kernel = torch.randn(5, 2, 3, 3)
    assert torch.equal(adapt_channels(kernel, 4), torch.cat([kernel, kernel], 1) / 2)


def test_positions_of_another_grid_are_those_of_the_stretched_picture():
    old, new = vit((32, 32)), vit((64, 96))
    j, i = torch.meshgrid(torch.arange(8.0), torch.arange(8.0), indexing="ij")
    with torch.no_grad():
        old.position_table.copy_(torch.stack([j, i, *torch.ones(10, 8, 8)], -1))
    assert fill(new, old.state_dict(), "encoder", 1).adapted == {"position_table": "grid 8×8 resized to 16×24"}
    inner = new.position_table.detach()[4:-4, 6:-6]  # where the cubic does not reach over the edge
    torch.testing.assert_close(inner[..., 0], ((torch.arange(4, 12) + 0.5) / 2 - 0.5)[:, None].expand(8, 12),
                               rtol=0, atol=0.05)  # of a cell
    torch.testing.assert_close(inner[..., 1], ((torch.arange(6, 18) + 0.5) / 3 - 0.5).expand(8, 12),
                               rtol=0, atol=0.05)
    torch.testing.assert_close(new.position_table.detach()[..., 2:], torch.ones(16, 24, 10))


@pytest.mark.parametrize("name", ["vit", "resnet"])
def test_weights_of_images_answer_the_same_for_a_volume_that_does_not_change_along_its_slices(name):
    torch.manual_seed(0)
    if name == "vit":
        flat, deep = vit(), vit((8, 16, 16), (2, 4, 4))
        x = torch.randn(1, 1, 16, 16)
    else:
        settings = {"blocks": (1, 1, 1, 1), "widths": (4, 6, 8, 10), "zero_init_residual": False, "stem_pool": False}
        flat, deep = (ResNetEncoder(ResNetEncoder.Config(dims=dims, **settings)) for dims in (2, 3))
        x = torch.randn(1, 1, 32, 32)
    fill(deep, flat.state_dict(), "encoder", 1)
    flat.eval(), deep.eval()
    if name == "vit":
        embedded = deep.embed(x[:, :, None].expand(-1, -1, 8, -1, -1)).unflatten(1, (4, 16))
        torch.testing.assert_close(embedded[0], flat.embed(x).expand(4, -1, -1), rtol=1e-4, atol=1e-5)
    else:
        volume = x[:, :, None].expand(-1, -1, 160, -1, -1)
        middle = deep(volume).maps[-1][:, :, 40]  # far from the zeros beyond the first and last slice
        torch.testing.assert_close(middle, flat(x).maps[-1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("changes", [{"depth": 1}, {"depth": 3}, {"width": 24}, {"patch": (8, 8)},
                                     {"class_token": True}])
def test_another_architecture_is_refused_with_the_account_and_nothing_is_changed(changes):
    old, new = vit(), vit(**changes)
    before = {name: tensor.clone() for name, tensor in new.state_dict().items()}
    with pytest.raises(RunError, match=r"(?s)do not fit this encoder.*encoder: \d+ matched"):
        fill(new, old.state_dict(), "encoder", 1)
    assert all(torch.equal(tensor, before[name]) for name, tensor in new.state_dict().items())


def test_channels_are_adapted_where_the_picture_enters_and_nowhere_else():
    wide = ResNetEncoder(ResNetEncoder.Config(blocks=(1, 1, 1, 1), widths=(4, 6, 8, 10)))
    narrow = ResNetEncoder(ResNetEncoder.Config(blocks=(1, 1, 1, 1), widths=(3, 6, 8, 10)))
    with pytest.raises(RunError, match="net.layer1.0.conv1.weight is"):
        fill(narrow, wide.state_dict(), "encoder", 1)


def test_names_are_folded_over_their_numbers():
    names = [f"blocks.{n}.{part}.{kind}" for n in range(12) for part in ("mlp.0", "mlp.2", "norm1")
             for kind in ("weight", "bias")]
    assert fold(names) == ["blocks.0-11.mlp.0,2.bias", "blocks.0-11.mlp.0,2.weight", "blocks.0-11.norm1.bias",
                           "blocks.0-11.norm1.weight"]
    assert fold(["layer1.0.w", "layer1.1.w", "layer2.0.w"]) == ["layer1.0,1.w", "layer2.0.w"]
