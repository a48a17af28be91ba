"""Exemplar: two views of the same sample must lie closer to each other than to views of other samples.

Dosovitskiy et al., Discriminative Unsupervised Feature Learning with Exemplar Convolutional Neural Networks, NeurIPS
2014 (arXiv 1406.6909), make every sample a class of its own. A classifier of as many outputs as there are cases grows
with the archive and sees each class once an epoch; so this is the triplet form of Doersch and Zisserman, Multi-task
Self-Supervised Visual Learning, ICCV 2017 (arXiv 1708.07860), which Taleb et al. carry over to volumes (3D
Self-Supervised Methods for Medical Imaging, NeurIPS 2020, arXiv 2006.03829). The batch's other samples are the
negatives, all of them. They may be false: another scan of the same patient, and, in a batch that begins the next pass
over the cases, the same scan again. Distance, margin and width are those of Wang and Gupta, Unsupervised Learning of
Visual Representations using Videos, ICCV 2015 (arXiv 1505.00687).
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from medssl.config import Config as StrictConfig
from medssl.errors import TrainingError
from medssl.models import Encoder
from medssl.models.collective import gathered
from medssl.objectives.monitors import feature_std
from medssl.objectives.objective import Objective
from medssl.types import Views, ViewSpec


class Exemplar(Objective):
    """Mean over all triplets of max(0, d(anchor, positive) - d(anchor, negative) + margin), d being 1 - cosine."""

    class Config(StrictConfig):
        name: Literal["exemplar"] = "exemplar"
        margin: float = Field(0.5, gt=0, le=2)
        """How much closer the positive must be than the negative."""
        width: PositiveInt = 1024
        """Width of the embedding."""

    def __init__(self, encoder: Encoder, config: Exemplar.Config) -> None:
        super().__init__()
        self.encoder, self.config = encoder, config
        self.view_spec = ViewSpec(count=2)
        self.projector = nn.Linear(encoder.width, config.width)

    def forward(self, views: Views) -> tuple[Tensor, dict[str, Tensor]]:
        """Two views (B, C, *S), B at least 2. The loss lies in [0, margin + 2]."""
        first, second = (self.projector(self.encoder(image).pooled) for image in views.images)
        loss, health = triplet_loss(gathered(first), gathered(second), self.config.margin)
        return loss, health | {"feature_std": feature_std(first)}


def triplet_loss(first: Tensor, second: Tensor, margin: float) -> tuple[Tensor, dict[str, Tensor]]:
    """Embeddings (B, D) of the first and the second view of the same samples -> the loss () float32, and of its
    triplets the share whose positive is the closer one (`accuracy`) and the share that still gives gradient.

    Each view is anchor in turn, the other view of the other B - 1 samples its negatives. TrainingError for B = 1.
    """
    if len(first) < 2:
        raise TrainingError("A batch of one sample has no negatives", expected="at least 2 samples",
                            remedy="give train.batch_size=32 or more")
    with torch.autocast(first.device.type, enabled=False):
        distance = 1 - F.normalize(first.float(), dim=1) @ F.normalize(second.float(), dim=1).T  # (B, B)
    positive = distance.diagonal()
    others = ~torch.eye(len(first), dtype=torch.bool, device=first.device)
    gaps = torch.stack([(positive[:, None] - distance)[others], (positive[None, :] - distance)[others]])
    loss = F.relu(gaps + margin).mean()
    shares = {"accuracy": gaps < 0, "active_triplets": gaps > -margin}
    return loss, {name: share.float().mean() for name, share in shares.items()} | {"chance": loss.new_tensor(0.5)}
