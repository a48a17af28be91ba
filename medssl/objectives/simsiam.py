"""SimSiam: one view's prediction is drawn to the other view's embedding, which gets no gradient.

Chen and He, Exploring Simple Siamese Representation Learning, CVPR 2021 (arXiv 2011.10566). An image x goes through the
encoder F, the projector G and the predictor H: z = G(F(x)), p = H(z). The paper calls G∘F its encoder f, and H h.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from torch import Tensor, nn

from medssl.config import Config as StrictConfig
from medssl.models import Encoder
from medssl.objectives.monitors import effective_rank, feature_std
from medssl.objectives.objective import Objective
from medssl.types import Views, ViewSpec


class SimSiam(Objective):
    """½ (D(p1, z2) + D(p2, z1)), where D is minus the cosine and its z gets no gradient."""

    class Config(StrictConfig):
        name: Literal["simsiam"] = "simsiam"
        width: int = Field(2048, ge=4)
        """Width of z and p. 2048 is the paper's, for ResNet-50; smaller encoders do with less."""
        fix_predictor_lr: bool = True
        """Keep the predictor's learning rate from decaying (section 4.2: "predictor's lr not decayed")."""

    def __init__(self, encoder: Encoder, config: SimSiam.Config) -> None:
        super().__init__()
        self.encoder, self.config = encoder, config
        self.view_spec = ViewSpec(count=2)
        features, width, bottleneck = encoder.width, config.width, config.width // 4
        self.projector = nn.Sequential(
            nn.Linear(features, features, bias=False), nn.BatchNorm1d(features), nn.ReLU(inplace=True),
            nn.Linear(features, features, bias=False), nn.BatchNorm1d(features), nn.ReLU(inplace=True),
            nn.Linear(features, width, bias=False), nn.BatchNorm1d(width, affine=False),
        )  # fmt: skip
        self.predictor = nn.Sequential(
            nn.Linear(width, bottleneck, bias=False), nn.BatchNorm1d(bottleneck), nn.ReLU(inplace=True),
            nn.Linear(bottleneck, width),
        )  # fmt: skip

    def forward(self, views: Views) -> tuple[Tensor, dict[str, Tensor]]:
        """Two views (B, C, *S), B at least 2. The loss lies in [-1, 1]."""
        z1, z2 = (self.projector(self.encoder(image).pooled) for image in views.images)
        p1, p2 = self.predictor(z1), self.predictor(z2)
        loss = (negative_cosine(p1, z2) + negative_cosine(p2, z1)) / 2
        return loss, {"feature_std": feature_std(z1), "effective_rank": effective_rank(z1)}

    def fixed_lr_parameters(self) -> list[nn.Parameter]:
        return list(self.predictor.parameters()) if self.config.fix_predictor_lr else []


def negative_cosine(p: Tensor, z: Tensor) -> Tensor:
    """Mean over the batch of -cos(p, z), () float32; p, z (B, D). z gets no gradient: without that, all collapses."""
    return -nn.functional.cosine_similarity(p.float(), z.detach().float(), dim=1).mean()
