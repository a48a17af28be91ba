"""What is ours in the CNNs: the walk over MONAI's stages, and how blocks start."""

from __future__ import annotations

import pytest
import torch

from medssl.models.cnn import ResNetEncoder


def resnet(**settings):
    torch.manual_seed(0)
    small = {"blocks": (1, 2, 1, 1), "widths": (4, 6, 8, 10), **settings}
    return ResNetEncoder(ResNetEncoder.Config(**small))


@pytest.mark.parametrize(("dims", "block", "pool"), [(2, "basic", True), (2, "bottleneck", False), (3, "basic", False)])
def test_pooled_is_what_monais_own_forward_gives(dims, block, pool):
    encoder = resnet(dims=dims, block=block, stem_pool=pool).eval()
    x = torch.randn(2, 1, *(32,) * dims)
    torch.testing.assert_close(encoder(x).pooled, encoder.net(x))


@pytest.mark.parametrize("block", ["basic", "bottleneck"])
def test_with_zero_init_a_block_starts_as_its_shortcut(block):
    encoder = resnet(block=block)
    second = encoder.net.layer2[1]  # no change of shape: its shortcut is the identity
    x = torch.rand(2, encoder.map_widths[2], 5, 5)
    torch.testing.assert_close(second(x), x)
    assert not torch.allclose(resnet(block=block, zero_init_residual=False).net.layer2[1](x), x)


def test_maps_of_one_cell_leave_no_garbage_in_the_gradients_in_bf16():
    """Stages 3 and 4 are given one cell along each axis. Of volumes, which pass through two cells, torch's own garbage
    may come: `precision: auto` trains them in float32."""
    torch.manual_seed(0)
    encoder = ResNetEncoder(ResNetEncoder.Config(dims=2, blocks=(1, 1, 1, 1), widths=(4, 8, 16, 16)))
    x = torch.randn(8, 1, 8, 8)
    for _ in range(5):
        encoder.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            encoder(x).pooled.float().square().mean().backward()
        assert all(p.grad.abs().max() < 100 for p in encoder.parameters())  # NaN is not
