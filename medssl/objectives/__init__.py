"""Ways to learn without labels. A new one is one file, one line in OBJECTIVES, and one recipe."""

from __future__ import annotations

from typing import Annotated, Union

from pydantic import Field

from medssl.config import Config
from medssl.models import Encoder
from medssl.objectives.context_restoration import ContextRestoration
from medssl.objectives.exemplar import Exemplar
from medssl.objectives.inpainting import Inpainting
from medssl.objectives.jigsaw import Jigsaw
from medssl.objectives.mae import MAE
from medssl.objectives.masked_reconstruction import MaskedReconstruction
from medssl.objectives.objective import Objective
from medssl.objectives.relative_position import RelativePosition
from medssl.objectives.rotation import Rotation
from medssl.objectives.simclr import SimCLR
from medssl.objectives.simsiam import SimSiam

OBJECTIVES: dict[str, type[Objective]] = {
    "simsiam": SimSiam,
    "simclr": SimCLR,
    "mae": MAE,
    "masked_reconstruction": MaskedReconstruction,
    "rotation": Rotation,
    "relative_position": RelativePosition,
    "jigsaw": Jigsaw,
    "exemplar": Exemplar,
    "inpainting": Inpainting,
    "context_restoration": ContextRestoration,
}

ObjectiveConfig = Annotated[
    Union[tuple(kind.Config for kind in OBJECTIVES.values())],  # noqa: UP007
    Field(discriminator="name"),
]
"""Any objective's Config, told apart by `name`."""


def build_objective(config: Config, encoder: Encoder) -> Objective:
    """The objective that `config` describes, around `encoder`; ConfigError where the two do not fit."""
    return OBJECTIVES[config.name](encoder, config)


__all__ = ["OBJECTIVES", "Objective", "ObjectiveConfig", "build_objective"]
