"""lightly's MAE and SimSiam steps, in an environment that has lightly and not medssl (`make .venv-lightly`).

It is told the method and the sizes in its argument and answers questions on its standard input; see remote.py.
"""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Callable
from typing import Any

import meter
import torch
from step import PRECISIONS, Loss, step
from torch import Tensor, library, nn

if torch.version.cuda is None:  # then torchvision's own library, which defines them, does not load; nobody calls them
    for name in ("nms", "qnms"):
        library.define(f"torchvision::{name}", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

import lightly.models.utils as tokens
from lightly.loss import NegativeCosineSimilarity
from lightly.models.modules import (
    MAEDecoderTIMM,
    MaskedVisionTransformerTIMM,
    SimSiamPredictionHead,
    SimSiamProjectionHead,
)
from timm.models.vision_transformer import VisionTransformer
from torchvision.models import resnet18


class MAE(nn.Module):
    """x (B, 1, side, side) -> the loss (), as lightly's example puts its modules together: targets are plain pixels."""

    def __init__(self, side: int, patch: int, width: int, depth: int, heads: int, decoder_width: int,
                 decoder_depth: int, decoder_heads: int, ratio: float) -> None:
        super().__init__()
        self.patch, self.ratio = patch, ratio
        vit = VisionTransformer(side, patch, in_chans=1, num_classes=0, embed_dim=width, depth=depth, num_heads=heads)
        self.backbone = MaskedVisionTransformerTIMM(vit)
        self.decoder = MAEDecoderTIMM(vit.patch_embed.num_patches, patch, in_chans=1, embed_dim=width,
                                      decoder_embed_dim=decoder_width, decoder_depth=decoder_depth,
                                      decoder_num_heads=decoder_heads)

    def forward(self, x: Tensor) -> Tensor:
        size = (len(x), self.backbone.sequence_length)
        keep, hidden = tokens.random_token_mask(size, self.ratio, device=x.device)
        encoded = self.decoder.embed(self.backbone.encode(x, idx_keep=keep))
        masked = tokens.repeat_token(self.decoder.mask_token, size)
        decoded = self.decoder.decode(tokens.set_at_index(masked, keep, encoded.type_as(masked)))
        predicted = self.decoder.predict(tokens.get_at_index(decoded, hidden))
        target = tokens.get_at_index(tokens.patchify(x, self.patch), hidden - 1)  # the first token is the class token
        return nn.functional.mse_loss(predicted, target)


class SimSiam(nn.Module):
    """Two views (B, 1, side, side) -> the loss (), on torchvision's ResNet-18."""

    def __init__(self, width: int) -> None:
        super().__init__()
        net = resnet18(zero_init_residual=True)
        net.conv1 = nn.Conv2d(1, 64, 7, 2, 3, bias=False)
        features, net.fc = net.fc.in_features, nn.Identity()
        self.backbone = net
        self.projector = SimSiamProjectionHead(features, features, width)
        self.predictor = SimSiamPredictionHead(width, width // 4, width)
        self.criterion = NegativeCosineSimilarity()

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        (z1, p1), (z2, p2) = self._project(first), self._project(second)
        return (self.criterion(z1, p2) + self.criterion(z2, p1)) / 2

    def _project(self, x: Tensor) -> tuple[Tensor, Tensor]:
        z = self.projector(self.backbone(x))
        return z.detach(), self.predictor(z)


def prepared(method: str, batch: int, side: int, **shape: Any) -> tuple[nn.Module, Loss]:
    images = torch.rand(2, batch, 1, side, side)
    if method == "mae":
        model = MAE(side, **shape)
        return model, lambda: model(images[0])
    model = SimSiam(**shape)
    return model, lambda: model(*images)


def serve(measures: dict[str, Callable], steps: dict[str, Callable[[], None]]) -> None:
    answers, sys.stdout = sys.stdout, sys.stderr  # what libraries print is no answer
    for line in sys.stdin:
        question = json.loads(line)
        measure = question["measure"]
        print(json.dumps({measure: measures[measure](steps[question["precision"]])}), file=answers, flush=True)


if __name__ == "__main__":
    warnings.simplefilter("ignore", FutureWarning)  # its MAE decoder goes in lightly 1.7; the version is pinned
    settings = json.loads(sys.argv[1])
    torch.set_num_threads(settings.pop("threads"))
    torch.manual_seed(0)
    network, loss = prepared(**settings)
    serve({"milliseconds": meter.milliseconds, "peak_mib": meter.peak_mib},
          {precision: step(network, loss, precision) for precision in PRECISIONS})
