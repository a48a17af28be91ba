"""What every encoder in the table must do, whatever it is called. A new one needs a line in SMALL, and no test."""

from __future__ import annotations

import pytest
import torch
from pydantic import TypeAdapter, ValidationError

from medssl.errors import ConfigError
from medssl.models import ENCODERS, EncoderConfig, UNetDecoder, build_encoder
from medssl.models.weights import load_encoder, load_into, load_parts, save_model

RESNET = {"blocks": (1, 1, 1, 1), "widths": (4, 6, 8, 10), "zero_init_residual": False}  # so that all learns at once
SMALL = {  # a small encoder of each kind and number of axes, and a size that it takes
    "vit": [
        ({"size": (24, 16), "patch": (8, 8), "width": 36, "depth": 2, "heads": 3}, (24, 16)),
        ({"size": (4, 16, 16), "patch": (2, 8, 8), "width": 48, "depth": 2, "heads": 2}, (4, 16, 16)),
        ({"size": (16, 16), "patch": (8, 8), "width": 24, "depth": 2, "heads": 2, "class_token": True, "registers": 2,
          "positions": "learned", "layer_scale": 0.1, "pooled": "class"}, (16, 16)),
    ],
    "resnet": [
        ({**RESNET, "dims": 2}, (45, 52)),
        ({**RESNET, "dims": 3, "block": "bottleneck", "stem_pool": False}, (33, 40, 36)),
    ],
    "unet": [
        ({"dims": 2, "widths": (4, 6, 8)}, (21, 17)),
        ({"dims": 3, "widths": (4, 6, 8)}, (9, 16, 13)),
    ],
    "r2plus1d": [
        ({"blocks": (1, 1, 1, 1), "widths": (4, 6, 8, 10), "stem_width": 5}, (6, 33, 36)),
    ],
    "swin": [
        ({"dims": 2, "width": 6, "window": 4, "depths": (2, 1, 1, 1), "heads": (1, 2, 3, 3)}, (43, 38)),
        ({"dims": 3, "width": 6, "window": 2, "depths": (2, 1, 1, 1), "heads": (1, 2, 3, 3)}, (33, 32, 36)),
    ],
}
CASES = [
    pytest.param({"name": name, "channels": 2, **settings}, size, id=f"{name}-{len(size)}d")
    for name in ENCODERS
    for settings, size in SMALL[name]
]


def build(settings):
    torch.manual_seed(0)
    return build_encoder(TypeAdapter(EncoderConfig).validate_python(settings))


def picture(size, batch=3, channels=2):
    return torch.randn(batch, channels, *size, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(("settings", "size"), CASES)
def test_features_are_what_the_attributes_promise(settings, size):
    encoder = build(settings)
    features = encoder(picture(size))
    assert (encoder.dims, encoder.channels) == (len(size), 2)
    assert features.pooled.shape == (3, encoder.width)
    assert tuple(m.shape[:2] for m in features.maps) == tuple((3, width) for width in encoder.map_widths)
    assert tuple(skip.shape[1] for skip in features.skips) == encoder.skip_widths
    finest = features.maps[-1].shape[2:]
    assert finest == tuple(-(-voxels // stride) for voxels, stride in zip(size, encoder.stride, strict=True))
    cells = [m[0, 0].numel() for m in features.maps]
    assert cells == sorted(cells), "maps must run from coarse to fine"


@pytest.mark.parametrize(("settings", "size"), CASES)
def test_layers_run_from_the_input_on_and_leave_out_the_last_norm_at_most(settings, size):
    encoder = build(settings)
    numbers = [encoder.layer_of(name) for name, _ in encoder.named_parameters()]
    assert set(numbers) | {len(encoder.layers)} == set(range(len(encoder.layers) + 1))
    after = [name for name, number in zip(dict(encoder.named_parameters()), numbers, strict=True)
             if number == len(encoder.layers)]
    assert all(name.startswith("norm.") for name in after)


@pytest.mark.parametrize(("settings", "size"), CASES)
@pytest.mark.parametrize("bf16", [False, True])
def test_every_parameter_learns(settings, size, bf16):
    encoder = build(settings)
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        features = encoder(picture(size))
        loss = sum((m.float() ** 3).mean() for m in features.maps) + (features.pooled.float() ** 3).mean()
    loss.backward()
    for name, parameter in encoder.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().max() > 0, name


@pytest.mark.parametrize(("settings", "size"), CASES)
def test_bf16_autocast_stays_near_float32(settings, size):
    encoder = build(settings).eval()
    exact = encoder(picture(size)).pooled
    with torch.autocast("cpu", torch.bfloat16):
        rough = encoder(picture(size)).pooled.float()
    assert (rough - exact).norm() < 0.05 * exact.norm()


@pytest.mark.parametrize(("settings", "size"), CASES)
def test_cases_do_not_mix_in_eval(settings, size):
    encoder, x = build(settings).eval(), picture(size)
    together = encoder(x).pooled
    torch.testing.assert_close(encoder(x[1:2]).pooled, together[1:2], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("settings", "size"), CASES)
def test_saved_and_loaded_it_is_the_same_bit_for_bit(settings, size, tmp_path):
    encoder = build(settings)
    encoder(picture(size))  # moves the running statistics of norms, which are part of the state
    encoder.eval()
    save_model(tmp_path, {"encoder": encoder}, {"preprocessing": {"spacing": [1.0, 2.0]}})
    torch.manual_seed(99)
    loaded = load_encoder(tmp_path)
    assert not loaded.training
    assert loaded.preprocessing == {"spacing": [1.0, 2.0]}
    assert loaded.config == encoder.config
    before, after = encoder(picture(size)), loaded(picture(size))
    assert torch.equal(before.pooled, after.pooled)
    assert all(torch.equal(a, b) for a, b in zip(before.maps, after.maps, strict=True))


@pytest.mark.parametrize(("settings", "size"), CASES)
def test_other_channels_are_refused_by_name(settings, size, tmp_path):
    encoder = build(settings)
    with pytest.raises(ConfigError, match=r"given 3 channels.*2"):
        encoder(picture(size, channels=3))
    with pytest.raises(ConfigError, match="spatial axes"):
        encoder(picture(size[1:]))
    save_model(tmp_path, {"encoder": encoder}, {})
    wider = build({**settings, "channels": 4})
    before = {name: tensor.clone() for name, tensor in wider.state_dict().items()}
    with pytest.raises(Exception, match="takes 2 channels in the run and 4 in this model"):
        load_into(wider, load_parts(tmp_path)[0], "encoder")
    assert all(torch.equal(tensor, before[name]) for name, tensor in wider.state_dict().items())


@pytest.mark.parametrize(("settings", "size"), CASES)
def test_a_decoder_built_from_its_attributes_reaches_full_resolution(settings, size):
    encoder = build(settings)
    decoder = UNetDecoder(encoder.map_widths, encoder.dims, encoder.stride)
    assert decoder(encoder(picture(size)).maps, size).shape == (3, decoder.width, *size)


def test_an_unknown_encoder_lists_the_known_ones():
    with pytest.raises(ValidationError, match=r"'vit'.*'resnet'.*'unet'"):
        TypeAdapter(EncoderConfig).validate_python({"name": "vgg"})
