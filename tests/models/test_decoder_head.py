"""Decoders and heads: sizes, errors, and what each output may depend on."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from medssl.errors import ConfigError
from medssl.models import DenseHead, LinearHead, TokenDecoder, UNetDecoder
from medssl.models.cnn import UNetEncoder


@given(size=st.lists(st.integers(8, 19), min_size=2, max_size=3))
@settings(max_examples=12, deadline=None)
def test_odd_sizes_come_back_whole(size):
    encoder = UNetEncoder(UNetEncoder.Config(dims=len(size), widths=(2, 3, 4)))
    decoder = UNetDecoder(encoder.map_widths, encoder.dims)
    assert decoder(encoder(torch.randn(1, 1, *size)).maps, size).shape == (1, 2, *size)


def test_a_coarse_map_alone_is_doubled_until_the_picture_is_reached():
    decoder = UNetDecoder((32,), 3, stride=(2, 8, 8))
    assert len(decoder.doubling) == 3
    assert decoder([torch.randn(1, 32, 4, 3, 3)], (8, 24, 24)).shape == (1, decoder.width, 8, 24, 24)


def test_every_map_reaches_the_output():
    torch.manual_seed(0)
    decoder = UNetDecoder((6, 4, 2), 2)
    maps = [torch.randn(1, w, s, s, requires_grad=True) for w, s in ((6, 3), (4, 5), (2, 11))]
    (decoder(maps, (11, 11)) ** 3).sum().backward()
    assert all(m.grad.abs().max() > 0 for m in maps)


@pytest.mark.parametrize(
    "maps",
    [
        [torch.zeros(1, 2, 8, 8), torch.zeros(1, 4, 4, 4)],  # fine to coarse
        [torch.zeros(1, 4, 4, 4)],
        [torch.zeros(1, 4, 4, 4, 4), torch.zeros(1, 2, 8, 8, 8)],
    ],
)
def test_maps_of_another_encoder_are_refused(maps):
    with pytest.raises(ConfigError, match=r"widths \(4, 2\), coarse to fine"):
        UNetDecoder((4, 2), 2)(maps, (8, 8))


def test_a_picture_too_small_for_the_levels_is_refused():
    with pytest.raises(ConfigError, match="at least 8 voxels"):
        UNetEncoder(UNetEncoder.Config(dims=2, widths=(2, 3, 4)))(torch.zeros(1, 1, 7, 16))


def test_hidden_tokens_are_predicted_from_place_and_visible_tokens():
    torch.manual_seed(0)
    decoder = TokenDecoder(TokenDecoder.Config(width=16, depth=1, heads=2), encoder_width=8, values=5)
    tokens = torch.randn(2, 2, 8)
    visible, hidden = torch.tensor([[0, 5], [1, 2]]), torch.tensor([[1, 2, 3], [0, 3, 4]])
    out = decoder(tokens, visible, hidden, (2, 3))
    assert out.shape == (2, 3, 5)
    swapped = decoder(tokens.flip(1), visible.flip(1), hidden.flip(1), (2, 3))  # order says nothing, place does
    torch.testing.assert_close(swapped, out.flip(1))
    assert not torch.allclose(decoder(tokens, visible.flip(1), hidden, (2, 3)), out)
    assert not torch.allclose(decoder(tokens + 1, visible, hidden, (2, 3)), out)


def test_a_token_decoder_whose_heads_do_not_divide_is_refused():
    with pytest.raises(ValidationError, match="multiple of heads"):
        TokenDecoder.Config(width=100, heads=16)


def test_linear_head_starts_at_its_bias():
    head = LinearHead(6, 2, bias=[55.6, -1.0])
    assert torch.allclose(head(torch.zeros(3, 6)), torch.tensor([55.6, -1.0]).expand(3, 2))
    assert LinearHead(6, 2)(torch.randn(3, 6)).abs().max() < 0.2


def test_dense_head_judges_each_voxel_alone():
    torch.manual_seed(0)
    head, x = DenseHead(4, 3, dims=3), torch.randn(1, 4, 2, 3, 5)
    y = head(x)
    assert y.shape == (1, 3, 2, 3, 5)
    torch.testing.assert_close(head(x[..., 1:2, 2:3])[0, :, 0, 0, 0], y[0, :, 0, 1, 2])
