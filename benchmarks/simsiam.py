"""One step of SimSiam, forward and backward: medssl against lightly's, and a plain SimSiam after the paper.

ResNet-18 on two views of 32 pictures of 128² with one channel, z and p 2048 wide, alike for all. The views are made
beforehand, for everybody.
"""

from __future__ import annotations

import torch
from harness import Peer, Row, Settings, compare, main
from plain_simsiam import PlainSimSiam
from remote import lightly, lightly_peer
from step import PRECISIONS, step

from medssl.models import build_encoder
from medssl.models.cnn import ResNetEncoder
from medssl.objectives.simsiam import SimSiam
from medssl.types import Views

BATCH, SIDE, WIDTH = 32, 128, 2048
TINY_BATCH, TINY_SIDE = 4, 64


def measure(settings: Settings) -> list[Row]:
    batch, side = (TINY_BATCH, TINY_SIDE) if settings.tiny else (BATCH, SIDE)
    torch.manual_seed(0)
    views = tuple(torch.rand(2, batch, 1, side, side))
    ours = SimSiam(build_encoder(ResNetEncoder.Config()), SimSiam.Config(width=WIDTH))
    plain = PlainSimSiam(WIDTH)
    name = f"SimSiam step, {batch} pictures of {side}², {torch.get_num_threads()} threads"
    with lightly(method="simsiam", batch=batch, side=side, threads=torch.get_num_threads(), width=WIDTH) as server:
        return [row for precision in PRECISIONS
                for row in compare(f"{name}, {precision}", step(ours, lambda: ours(Views(views))[0], precision),
                                   [Peer("plain SimSiam", step(plain, lambda: plain(*views), precision), "torch"),
                                    lightly_peer("lightly", server, precision)], settings.repeats)]


if __name__ == "__main__":
    main("simsiam", __doc__, measure, repeats=5)
