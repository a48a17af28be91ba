"""SimCLR: of all the views in the batch, each has to find the other view of its own case.

Chen et al., A Simple Framework for Contrastive Learning of Visual Representations, ICML 2020 (arXiv 2002.05709). Where
the paper is silent (batch norms in the projection head) this follows its code, github.com/google-research/simclr.
Negatives may be false: another scan of the same patient, and, in a batch that begins the next pass over the cases, the
same scan again.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field, PositiveFloat
from torch import Tensor, nn

from medssl.config import Config as StrictConfig
from medssl.models import Encoder
from medssl.models.collective import gathered, own_rows
from medssl.objectives.monitors import effective_rank, feature_std
from medssl.objectives.objective import Objective
from medssl.types import Views, ViewSpec


class SimCLR(Objective):
    """NT-Xent of z = projector(encoder(x)) over the two views of every case in the batch, on all processes together."""

    class Config(StrictConfig):
        name: Literal["simclr"] = "simclr"
        width: int = Field(128, ge=2)
        """Width of z; more made no difference (the paper's figure 8)."""
        temperature: PositiveFloat = 0.1
        """The code's README: 0.1 for ImageNet in batches of 4096, 0.5 for CIFAR-10 in batches of 512."""

    def __init__(self, encoder: Encoder, config: SimCLR.Config) -> None:
        super().__init__()
        self.encoder, self.config = encoder, config
        self.view_spec = ViewSpec(count=2)
        features = encoder.width
        self.projector = nn.Sequential(
            nn.Linear(features, features, bias=False), nn.BatchNorm1d(features), nn.ReLU(inplace=True),
            nn.Linear(features, config.width, bias=False), nn.BatchNorm1d(config.width),
        )  # fmt: skip
        self.projector[-1].bias.requires_grad_(False)  # the last norm scales, and leaves the mean at zero

    def forward(self, views: Views) -> tuple[Tensor, dict[str, Tensor]]:
        """Two views (n, C, *S), n at least 2 and the same on every process."""
        z1, z2 = self.projector(self.encoder(torch.cat(views.images)).pooled).chunk(2)
        loss, accuracy = nt_xent(z1, z2, self.config.temperature)
        alignment = F.cosine_similarity(z1.detach().float(), z2.detach().float(), dim=1).mean()
        health = {"contrastive_accuracy": accuracy, "alignment": alignment}
        return loss, health | {"feature_std": feature_std(z1), "effective_rank": effective_rank(z1)}


def nt_xent(z1: Tensor, z2: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Normalised temperature-scaled cross-entropy: -log of the partner's softmax among all views but the view itself.

    Args:
        z1, z2: both views of n cases, (n, D) each. With W processes the 2n views are compared with all 2nW.

    Returns:
        The mean over the 2n views, (), log(2nW - 1) by guessing; and how often the partner is the most similar of all
        views, (), without gradient.
    """
    views = torch.cat([z1, z2])
    with torch.autocast(views.device.type, enabled=False):
        views = F.normalize(views.to(torch.promote_types(views.dtype, torch.float32)), dim=1)
        similarity = views @ gathered(views).T / temperature
    itself = own_rows(len(views), views.device)
    partner = itself.roll(len(z1))
    similarity = similarity.scatter(1, itself[:, None], float("-inf"))
    return F.cross_entropy(similarity, partner), (similarity.detach().argmax(1) == partner).float().mean()
