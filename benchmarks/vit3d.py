"""A step of a 3-D ViT-B on one volume of 128³ in patches of 8³, with and without activation checkpointing.

Of MAE, which shows the encoder 1024 of the 4096 patches and the decoder (384 wide, 4 blocks) all, and of a
classification that shows the encoder all. Forward, backward and AdamW; and the memory of the whole process.
"""

from __future__ import annotations

from typing import Any

import torch
from harness import Peer, Row, Settings, Work, compare, in_a_fresh_process, main
from mae import our_loss
from meter import highest_mib
from step import PRECISIONS, Loss, step
from torch import Tensor, nn

from medssl.models import LinearHead, TokenDecoder, ViT
from medssl.models.activations import checkpoint_activations
from medssl.objectives.mae import MAE

BASE = {"side": 128, "width": 768, "depth": 12, "heads": 12, "decoder_width": 384, "decoder_depth": 4}
TINY = {"side": 16, "width": 32, "depth": 2, "heads": 2, "decoder_width": 32, "decoder_depth": 1}
PATCH, HEAD_WIDTH = 8, 64
LIMIT = 24 * 1024.0
"""MiB"""
METHODS = ("MAE", "classification")


def measure(settings: Settings) -> list[Row]:
    shape = TINY if settings.tiny else BASE
    kinds = [(method, precision) for method in METHODS for precision in PRECISIONS]
    return [row for kind in (kinds[-1:] if settings.tiny else kinds)  # a fresh process for each takes seconds
            for row in _rows(*kind, shape, settings.repeats)]


def _rows(method: str, precision: str, shape: dict[str, int], repeats: int) -> list[Row]:
    what = f"{method} step, ViT {shape['width']} wide, one volume of {shape['side']}³, {precision}"
    mib = in_a_fresh_process(whole_process, method, precision, shape)
    whole = Row(f"{what}: the whole process, checkpointed", mib, LIMIT, "the limit of 24 GiB", LIMIT / mib, unit="MiB",
                target=1.0)
    without = Peer("without checkpointing", training(method, precision, shape, checkpointed=False), "torch")
    threads = f"{torch.get_num_threads()} threads"
    return [*compare(f"{what}, checkpointed, {threads}", training(method, precision, shape, checkpointed=True),
                     [without], repeats), whole]


def whole_process(method: str, precision: str, shape: dict[str, int]) -> float:
    """The most MiB that are resident in a process that trains, from its start through two steps."""
    work = training(method, precision, shape, checkpointed=True)
    work()
    work()  # the first makes the optimiser's moments
    return highest_mib()


def training(method: str, precision: str, shape: dict[str, int], checkpointed: bool) -> Work:
    torch.manual_seed(0)
    volume = torch.rand(1, 1, *[shape["side"]] * 3)
    vit = ViT(ViT.Config(size=(shape["side"],) * 3, patch=(PATCH,) * 3,
                         **{name: shape[name] for name in ("width", "depth", "heads")}))
    module, loss = {"MAE": masked, "classification": classified}[method](vit, volume, shape)
    if checkpointed:
        checkpoint_activations(module)
    return step(module, loss, precision, torch.optim.AdamW(module.parameters(), fused=True))


def masked(vit: ViT, volume: Tensor, shape: dict[str, Any]) -> tuple[nn.Module, Loss]:
    width = shape["decoder_width"]
    decoder = TokenDecoder.Config(width=width, depth=shape["decoder_depth"], heads=max(1, width // HEAD_WIDTH))
    mae = MAE(vit, MAE.Config(decoder=decoder))
    return mae, our_loss(mae, volume)


def classified(vit: ViT, volume: Tensor, shape: dict[str, Any]) -> tuple[nn.Module, Loss]:
    head = LinearHead(vit.width, 1)
    truth = torch.ones(1, 1)
    return nn.ModuleList([vit, head]), lambda: nn.functional.binary_cross_entropy_with_logits(
        head(vit(volume).pooled).float(), truth)


if __name__ == "__main__":
    main("vit3d", __doc__, measure, repeats=3)
