"""Region-based segmentation: regions such as BraTS's WT, TC and ET may nest, so each has a sigmoid of its own.

Loss: soft Dice over the batch plus binary cross-entropy, as nnU-Net's region-based training has it (Isensee et al.,
arXiv 2011.00848). Judged over the whole case: the Dice of each region, and how far its surface lies off the drawn one.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import polars as pl
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from medssl.config import Config as StrictConfig
from medssl.errors import ManifestError
from medssl.metrics.segment import dice, surface_distances
from medssl.models.collective import over_all
from medssl.models.decoder import UNetDecoder
from medssl.models.encoder import Encoder
from medssl.models.head import DenseHead
from medssl.models.skips import TokenPyramid
from medssl.tasks.task import Task
from medssl.types import Features, Prediction, Views


class Segment(Task):
    """A U-Net's ascending half on the encoder's maps, and a mask for each of the card's regions."""

    needs_mask = True

    class Config(StrictConfig):
        name: Literal["segment"] = "segment"
        threshold: float = Field(0.5, gt=0, lt=1)
        """Probability from which on a voxel belongs to a region."""
        overlap: float = Field(0.25, ge=0, le=0.9)
        """Share of a window's side by which it overlaps the next one, where a case larger than the box is judged or
        predicted; logits are averaged with Gaussian weights. 0.5 is slower, and a little smoother."""
        distances: bool = True
        """Also judge by HD95 and the mean surface distance in mm, where the files say their spacing."""
        skips: bool = False
        """Also draw from a ViT's earlier tokens and from the picture itself, as UNETR does (arXiv 2103.10504), not from
        its last tokens alone. Other encoders have a pyramid already, and nothing changes for them."""

    def __init__(self, config: Segment.Config, encoder: Encoder, regions: dict[str, list[int]]) -> None:
        super().__init__()
        if not regions:
            raise ManifestError("The manifest's card names no regions", expected="regions: {lesion: [1]}",
                                remedy="add them to the card and build the manifest again")
        self.config, self.names, self.regions = config, tuple(regions), regions
        self.pyramid = TokenPyramid(encoder) if config.skips and encoder.skip_widths else None
        self.decoder = (UNetDecoder(self.pyramid.map_widths, encoder.dims) if self.pyramid
                        else UNetDecoder.above(encoder))
        self.head = DenseHead(self.decoder.width, len(regions), encoder.dims)

    def forward(self, features: Features, views: Views) -> tuple[Tensor, dict[str, Tensor]]:
        size = tuple(views.images[0].shape[2:])
        logits = self.outputs(features, size)
        truth = self.split_regions(views.mask).float()
        axes = (0, *range(2, logits.ndim))
        overlap = over_all((torch.sigmoid(logits) * truth).sum(axes))
        total = over_all(torch.sigmoid(logits).sum(axes) + truth.sum(axes))
        soft_dice = (2 * overlap + 1) / (total + 1)
        loss = 1 - soft_dice.mean() + F.binary_cross_entropy_with_logits(logits, truth)
        return loss, {"soft_dice": soft_dice.detach().mean()}

    def split_regions(self, mask: Tensor) -> Tensor:
        """mask (B, *S) of the file's label values -> (B, R, *S) bool."""
        return torch.stack([torch.isin(mask, mask.new_tensor(values)) for values in self.regions.values()], dim=1)

    def outputs(self, features: Features, size: tuple[int, ...]) -> Tensor:
        maps = self.pyramid(features) if self.pyramid else features.maps
        return self.head(self.decoder(maps, size)).float()

    def judge(self, case: dict, output: np.ndarray, mask: np.ndarray | None) -> list[Prediction]:
        """`target` is 1, a perfect Dice, and `prediction` the Dice that was reached; for hd95/<region> and
        assd/<region> 0 mm, and the distance, left out where the spacing of an axis is not known."""
        pairs = {name: (region, np.isin(mask, values))
                 for (name, values), region in zip(self.regions.items(), self.drawn(output), strict=True)}
        found = [(name, 1.0, dice(*pair)) for name, pair in pairs.items()]
        spacing = case.get("spacing") or ()
        if self.config.distances and len(spacing) == mask.ndim:  # a clip has none along its frames
            found += [(f"{measure}/{name}", 0.0, mm) for name, pair in pairs.items()
                      for measure, mm in surface_distances(*pair, spacing)._asdict().items()]
        return [Prediction(case["case_id"], case["patient_id"], *row) for row in found]

    def drawn(self, output: np.ndarray) -> np.ndarray:
        """(R, *S) logits -> (R, *S) bool: what the threshold makes of them."""
        return output > float(np.log(self.config.threshold / (1 - self.config.threshold)))

    @classmethod
    def labelled(cls, config: Config, cases: pl.DataFrame) -> pl.DataFrame:
        return cases.filter(pl.col("has_mask"))

    @classmethod
    def strata(cls, config: Config, cases: pl.DataFrame) -> list[int]:
        return [0] * len(cases)
