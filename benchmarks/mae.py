"""One step of MAE, forward and backward: medssl against MONAI's, lightly's and a plain MAE after the paper.

ViT-S/16 on pictures of 224², a decoder of 8 blocks, 512 wide, 75 % hidden, alike for all. medssl's step draws its mask
too, as the others' do.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from functools import cache, partial
from importlib.util import find_spec
from itertools import count

import torch
from harness import Peer, Row, Settings, Work, compare, main
from plain_mae import PlainMAE, cut, masked_error
from remote import lightly, lightly_peer
from step import PRECISIONS, Loss, step
from torch import Tensor

from medssl.augment import PolicyConfig, ViewPolicy
from medssl.models import TokenDecoder, ViT
from medssl.objectives.mae import MAE
from medssl.types import Batch

PATCH, RATIO = 16, 0.75
SMALL = {"side": 224, "width": 384, "depth": 12, "heads": 6, "decoder_width": 512, "decoder_depth": 8,
         "decoder_heads": 16}
TINY = {"side": 64, "width": 32, "depth": 2, "heads": 2, "decoder_width": 32, "decoder_depth": 1, "decoder_heads": 2}
BATCH = 8
MONAI = "monai" if find_spec("einops") else "einops"
"""What must be installed for MONAI's transformers, which need einops and do not bring it."""


def measure(settings: Settings) -> list[Row]:
    shape = TINY if settings.tiny else SMALL
    torch.manual_seed(0)
    images = torch.rand(2 if settings.tiny else BATCH, 1, shape["side"], shape["side"])
    name = f"MAE step, {len(images)} pictures of {shape['side']}², {torch.get_num_threads()} threads"
    mae, plain = ours(shape), PlainMAE(patch=PATCH, channels=1, ratio=RATIO, **shape)
    with lightly(method="mae", batch=len(images), threads=torch.get_num_threads(), patch=PATCH, ratio=RATIO,
                 **shape) as server:
        rows = [row for precision in PRECISIONS
                for row in compare(f"{name}, {precision}", step(mae, our_loss(mae, images), precision),
                                   [monai(shape, images, precision), plain_peer(plain, images, precision),
                                    lightly_peer("lightly", server, precision)], settings.repeats)]
    if settings.tiny or not shutil.which("g++"):  # compiling takes a minute, and needs a C++ compiler
        return rows
    return rows + compiled(f"{name}, float32, compiled", mae, plain, images, settings.repeats)


def compiled(name: str, mae: MAE, plain: PlainMAE, images: Tensor, repeats: int) -> list[Row]:
    """medssl's step through torch.compile, against the plain one with and without."""
    quick_plain = torch.compile(plain)
    return compare(name, step(mae, our_loss(torch.compile(mae), images, mae)),
                   [Peer("plain MAE, compiled", step(plain, lambda: quick_plain(images)), "torch", 1.2),
                    Peer("plain MAE, eager", step(plain, lambda: plain(images)), "torch")], repeats)


def plain_peer(plain: PlainMAE, images: Tensor, precision: str) -> Peer:
    return Peer("plain MAE", step(plain, lambda: plain(images), precision), "torch", 1.0)


def monai(shape: dict[str, int], images: Tensor, precision: str) -> Peer:
    """In float32, whatever the others do: it fails under bf16 autocast. Made on first use, for what it needs may be
    missing."""
    work = cache(partial(monai_step, shape, images))
    if precision == "bf16":
        return Peer("MONAI in float32, all it can", lambda: work()(), MONAI, 2.5)
    return Peer("MONAI", lambda: work()(), MONAI, 1.2)


def ours(shape: dict[str, int]) -> MAE:
    encoder = ViT(ViT.Config(size=(shape["side"],) * 2, patch=(PATCH,) * 2, width=shape["width"], depth=shape["depth"],
                             heads=shape["heads"]))
    decoder = TokenDecoder.Config(width=shape["decoder_width"], depth=shape["decoder_depth"],
                                  heads=shape["decoder_heads"])
    return MAE(encoder, MAE.Config(ratio=RATIO, decoder=decoder))


def our_loss(forward: Callable, images: Tensor, mae: MAE | None = None) -> Loss:
    """`forward`: the objective, or its compiled form, and then the objective itself beside it."""
    policy, epochs = ViewPolicy(PolicyConfig(), (mae or forward).view_spec, seed=0), count()
    names = [f"case{number}" for number in range(len(images))]
    return lambda: forward(policy(Batch(names, images, epochs=[next(epochs)] * len(images))))[0]


def monai_step(shape: dict[str, int], images: Tensor) -> Work:
    """It has no loss of its own: the mean squared error of the hidden patches' pixels."""
    from monai.networks.nets import MaskedAutoEncoderViT

    model = MaskedAutoEncoderViT(
        in_channels=1, img_size=shape["side"], patch_size=PATCH, spatial_dims=2, masking_ratio=RATIO, qkv_bias=True,
        hidden_size=shape["width"], mlp_dim=4 * shape["width"], num_layers=shape["depth"], num_heads=shape["heads"],
        decoder_hidden_size=shape["decoder_width"], decoder_mlp_dim=4 * shape["decoder_width"],
        decoder_num_layers=shape["decoder_depth"], decoder_num_heads=shape["decoder_heads"])

    def loss() -> Tensor:
        predicted, mask = model(images)
        return masked_error(predicted, cut(images, PATCH), mask)
    return step(model, loss)


if __name__ == "__main__":
    main("mae", __doc__, measure, repeats=5)
