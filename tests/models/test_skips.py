"""medssl.models.skips: a ViT's pyramid reaches every resolution, from the depths that UNETR takes."""

from __future__ import annotations

import pytest
import torch

from medssl.errors import ConfigError
from medssl.models import UNetDecoder, ViT
from medssl.models.skips import TokenPyramid


def vit(size, patch, depth=12, **more) -> ViT:
    torch.manual_seed(0)
    return ViT(ViT.Config(size=size, patch=patch, depth=depth, width=24, heads=2, **more))


@pytest.mark.parametrize(
    ("size", "patch", "skipped", "maps"),
    [
        ((32, 48), (16, 16), (9, 6, 3), [(2, 3), (4, 6), (8, 12), (16, 24), (32, 48)]),
        ((16, 16), (4, 4), (6,), [(4, 4), (8, 8), (16, 16)]),
        ((4, 16, 16), (2, 8, 4), (8, 4), [(2, 2, 4), (4, 4, 8), (4, 8, 16), (4, 16, 16)]),
        ((2, 8, 8), (1, 2, 2), (), [(2, 4, 4), (2, 8, 8)]),
        ((8, 8), (1, 1), (), [(8, 8), (8, 8)]),
    ],
)
def test_each_doubling_of_the_patches_grid_has_a_map_and_a_depth(size, patch, skipped, maps):
    encoder = vit(size, patch, channels=2, class_token=True)
    pyramid = TokenPyramid(encoder)
    built = pyramid(encoder(torch.randn(3, 2, *size)))
    assert encoder.skipped == skipped
    assert [each.shape[2:] for each in built] == maps
    assert [each.shape[:2] for each in built] == [(3, width) for width in pyramid.map_widths]
    decoder = UNetDecoder(pyramid.map_widths, encoder.dims)
    assert not decoder.doubling
    assert decoder(built, size).shape == (3, decoder.width, *size)


def test_skips_are_the_tokens_after_the_blocks_that_they_are_named_for():
    encoder, x = vit((16, 16), (4, 4), depth=4, registers=2).eval(), torch.randn(2, 1, 16, 16)
    shallow = vit((16, 16), (4, 4), depth=2, registers=2).eval()
    shallow.load_state_dict({name: tensor for name, tensor in encoder.state_dict().items()
                             if not name.startswith(("blocks.2.", "blocks.3."))})
    tokens, picture = encoder(x).skips
    normed = shallow.norm(tokens.movedim(1, -1)).movedim(-1, 1)
    torch.testing.assert_close(normed, shallow(x).maps[0])
    assert picture is x


def test_a_vit_with_fewer_blocks_than_doublings_gives_its_first_more_than_once():
    assert vit((16, 16), (16, 16), depth=2).skipped == (1, 1, 1)


def test_a_rise_is_local_and_keeps_places():
    encoder = vit((32, 32), (8, 8))
    pyramid, features = TokenPyramid(encoder).eval(), encoder(torch.randn(1, 1, 32, 32))
    skip = features.skips[0].detach().requires_grad_()
    rise = torch.nn.Sequential(*(part for part in pyramid.risen[0][:1]))  # without the norm, which sees everything
    rise(skip)[0, :, 5, 2].sum().backward()
    assert skip.grad.abs().sum((0, 1)).nonzero().tolist() == [[2, 1]]


def test_every_part_of_the_pyramid_learns():
    encoder = vit((16, 16), (8, 8), depth=3)
    pyramid = TokenPyramid(encoder)
    sum((each ** 3).mean() for each in pyramid(encoder(torch.randn(2, 1, 16, 16)))).backward()
    assert all(parameter.grad.abs().max() > 0 for parameter in pyramid.parameters())


def test_patches_that_doublings_do_not_reach_are_refused():
    with pytest.raises(ConfigError, match=r"patches of \(14, 14\).*task\.skips=false"):
        TokenPyramid(vit((28, 28), (14, 14)))
