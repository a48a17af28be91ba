"""Rotation: by how many quarter turns was the picture rotated? To tell, one must know how anatomy stands.

Gidaris et al., Unsupervised Representation Learning by Predicting Image Rotations, ICLR 2018 (arXiv 1803.07728): 0,
90, 180 or 270 degrees, all four of each image in one batch, which they found best. In volumes Taleb et al., 3D
Self-Supervised Methods for Medical Imaging, NeurIPS 2020 (arXiv 2006.03829): a quarter, half or three-quarter turn
about one of three axes, or none, ten classes, of which one is drawn for each sample. Quarter turns need no
interpolation, whose traces would give the answer away. So would zeros on one side, as `translate` and a case smaller
than its box bring them in; and flips and rotations of the views make several answers right. The recipe should have
neither.
"""

from __future__ import annotations

from itertools import combinations
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from medssl.config import Config as StrictConfig
from medssl.errors import ConfigError
from medssl.models import Encoder
from medssl.objectives.classification import judged
from medssl.objectives.fitting import resized
from medssl.objectives.objective import Objective
from medssl.types import Views, ViewSpec


class Rotation(Objective):
    """Cross-entropy of a linear classifier of the pooled features. Class 0 is the picture as it is."""

    per_sample = True

    class Config(StrictConfig):
        name: Literal["rotation"] = "rotation"
        shown: Literal["all", "one"] | None = None
        """Every rotation of each sample, at as many times the memory and cost, or one drawn. Null is the papers': all
        four in a plane, one of a volume's ten."""
        planar: bool = False
        """Rotate only in the plane of the last two axes: for clips (Jing et al. 2018, arXiv 1811.11387), and volumes
        whose sides differ."""

    def __init__(self, encoder: Encoder, config: Rotation.Config) -> None:
        super().__init__()
        self.encoder, self.config = encoder, config
        self.turns = quarter_turns(encoder.dims, config.planar)
        shown = config.shown or ("all" if len(self.turns) == 4 else "one")
        self.all_shown = shown == "all"
        self.view_spec = ViewSpec(draw=self._draw)
        self.classifier = nn.Linear(encoder.width, len(self.turns))

    def forward(self, views: Views) -> tuple[Tensor, dict[str, Tensor]]:
        """One view (B, C, *S), of equal sides along the axes that are turned."""
        image = views.images[0]
        if self.all_shown:
            answer = torch.arange(len(self.turns), device=image.device).repeat_interleave(len(image))
            image = torch.cat([torch.rot90(image, *turn) for turn in self.turns])
        else:
            answer = views.drawn["rotation"].long()
            image = rotated(image, answer, self.turns)
        return judged(self.classifier(self.encoder(image).pooled), answer)

    def _draw(self, rng: np.random.Generator, shape: tuple[int, ...]) -> dict[str, int]:
        sides = shape[-2:] if self.config.planar else shape[1:]
        if len(set(sides)) > 1:
            planar = "set objective.planar=true, or " if len(set(shape[-2:])) == 1 else ""
            raise ConfigError(f"Views of {shape[1:]} voxels, whose sides {sides} a quarter turn would exchange",
                              expected="equal sides", remedy=planar + resized((min(sides),) * len(sides)))
        return {} if self.all_shown else {"rotation": int(rng.integers(len(self.turns)))}


def quarter_turns(dims: int, planar: bool) -> list[tuple[int, tuple[int, int]]]:
    """The classes, as torch.rot90's number of turns and plane, of pictures (B, C, *S): none first, 4 or 10 in all."""
    last = dims + 1
    planes = [(last - 1, last)] if planar else list(combinations(range(2, dims + 2), 2))
    return [(0, planes[0]), *((turns, plane) for plane in planes for turns in (1, 2, 3))]


def rotated(image: Tensor, answer: Tensor, turns: list[tuple[int, tuple[int, int]]]) -> Tensor:
    """image (B, C, *S), each sample turned by its own class, answer (B,)."""
    shown = image.clone()
    for number, turn in enumerate(turns[1:], start=1):
        chosen = answer == number
        shown[chosen] = torch.rot90(image[chosen], *turn)
    return shown
