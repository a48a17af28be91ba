"""Pictures of what a model sees and makes of it: augmented views, each transform alone, and reconstructions."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import torch

from medssl.augment.parts import Part, other_transforms, parts
from medssl.augment.policy import PolicyConfig, ViewPolicy
from medssl.augment.suitable import require_drawable, require_suitable
from medssl.data.loader import Loader
from medssl.data.source import Data, open_data
from medssl.errors import ConfigError
from medssl.models.start import open_start
from medssl.objectives import OBJECTIVES, Objective, build_objective
from medssl.report.scans import StrengthRow, save_reconstructions, save_strengths, save_views
from medssl.report.words import percent
from medssl.train.build import fitted_encoder
from medssl.train.checkpoint import NAME, read_state
from medssl.train.pretrain import PretrainConfig, learnt_from
from medssl.types import Batch, ViewSpec

log = logging.getLogger(__name__)

CASES = 6
VIEWS = 4
SHARES = (1 / 3, 2 / 3, 1.0)
"""The strengths that each transform is shown at, as shares of the recipe's."""
DRAWS = 8
"""So many draws are tried, and that which changes the image most is shown."""


def draw_views(config, out: Path, data: Data | None = None) -> Path:
    """Writes a PNG: a row a case, as prepared and then as augmented, of any recipe with data and augment."""
    data = data or open_data(config.data)
    batch = _batch(config, data)
    original = ViewPolicy(config.augment.still(), ViewSpec(), 0)(batch).images
    views = ViewPolicy(config.augment, ViewSpec(count=VIEWS), _seed(config))(batch).images
    save_views(out, [_plane(image, config.data.prepare.colour) for image in (*original, *views)])
    return out


def draw_strengths(config, out: Path, data: Data, every: bool = False,
                   progress: Callable[[int, int], None] | None = None) -> Path:
    """Writes a PNG: a row for each transform of the recipe, alone, at growing shares of its strength, on one case.

    Args:
        every: the transforms that the recipe does not use as well, at a typical strength.

    Raises ConfigError where there is nothing to show.
    """
    case, rows = _telling_case(config, data), []
    require_drawable(config.augment, ViewPolicy(config.augment, ViewSpec(), _seed(config))(case).images[0].shape[1:])
    shown = parts(config.augment) + (other_transforms(config.augment) if every else [])
    if not shown:
        raise ConfigError("This recipe does not augment", expected="augment.spatial or augment.intensity in it",
                          remedy="add some, or see every transform on your scans with --strengths all")
    for done, part in enumerate(shown, 1):
        try:
            require_suitable(part.policy, data)
            rows.append(_strength_row(part, case, config))
        except ConfigError as error:
            if part.place == "temporal":
                log.warning("%s is left out: alone, it has no frames to spare", part.name)
            elif part.chance:
                raise
            else:
                log.warning("%s is left out: %s", part.name, error)
        if progress:
            progress(done, len(shown))
    if not rows:
        raise ConfigError("Nothing that this recipe does can be shown alone", expected="a transform or some geometry",
                          remedy="leave --strengths out")
    save_strengths(out, rows, "Each transform alone, on one case: as prepared, then the same draw at a third, "
                   "two thirds and the whole of its strength")
    return out


def draw_pretraining(run: Path, config: PretrainConfig, data: Data) -> None:
    """Leaves pictures/views.png in a finished run and, if the objective reconstructs, pictures/reconstruction.png."""
    pictures = run / "pictures"
    if not (pictures / "views.png").is_file():
        draw_views(config, pictures / "views.png", data)
    if (pictures / "reconstruction.png").is_file() or not OBJECTIVES[config.objective.name].reconstructs():
        return
    encoder = fitted_encoder(config.encoder or open_start(run).encoder_config, data, config.augment)
    objective = build_objective(config.objective, encoder)
    objective.load_state_dict(_objective_state(run))
    objective.eval()
    if stacks := reconstructions(objective, _batch(config, data), config):
        save_reconstructions(pictures / "reconstruction.png", *stacks)


@torch.no_grad()
def reconstructions(objective: Objective, batch: Batch, config: PretrainConfig) -> list[np.ndarray] | None:
    """What each case was, what of it the objective sees, and what it makes of that, (B, *S) each.

    None for an objective that paints nothing.
    """
    views = ViewPolicy(config.augment.still(), objective.view_spec, config.seed)(batch)
    pair = objective.reconstruct(views)
    return pair and [_grey(image, config.data.prepare.colour) for image in (views.images[0], *pair)]


def first_batch(config, data: Data, cases: pl.DataFrame) -> Batch:
    """The few cases that are shown."""
    return Loader(data.cache, cases["case_id"].to_list(), config.data.box, CASES, _seed(config)).batch(0)


def _strength_row(part: Part, case: Batch, config) -> StrengthRow:
    """The same draw at every strength."""
    def view(policy: PolicyConfig, draw: int = 0) -> torch.Tensor:
        return ViewPolicy(policy, ViewSpec(), _seed(config))(replace(case, epochs=[draw])).images[0]

    original = view(config.augment.still())
    draw = max(range(DRAWS), key=lambda draw: float((view(part.policy, draw) - original).abs().mean()))
    images, captions = [original], ["as prepared"]
    for share in SHARES:
        values = [f"{field} {_number(value)}" for field, value in part.values(share).items()]
        images.append(view(part.at(share), draw) if values or share == 1 else None)
        captions.append("\n".join(values) or part.name)
    colour = config.data.prepare.colour
    pictures = [None if image is None else _plane_and_section(image, colour) for image in images]
    return StrengthRow(part.name.replace("_", " "), _notes(part), pictures, captions)


def _notes(part: Part) -> list[str]:
    """How often, and what each strength means: the first sentence of its field's description, which names the unit."""
    fields = type(part.config).model_fields
    meanings = [f"{name}: {' '.join(fields[name].description.split()).split('. ')[0].rstrip('.').replace('`', '')}"
                for name in part.neutral if fields[name].description]
    often = f"on {percent(part.chance)} of the samples" if part.chance else "not in the recipe; a typical strength"
    return [often, *meanings]


def _number(value: float | tuple[float, ...]) -> str:
    return f"{value:.3g}" if isinstance(value, float) else " to ".join(f"{end:.3g}" for end in value)


def _objective_state(run: Path) -> dict[str, torch.Tensor]:
    """The whole objective, heads included, from the run's last checkpoint."""
    return read_state(run / "checkpoints" / NAME)["module"]


def _batch(config, data: Data) -> Batch:
    learnt = isinstance(config, PretrainConfig)
    return first_batch(config, data, learnt_from(config, data) if learnt else data.training)


def _telling_case(config, data: Data) -> Batch:
    """Of some cases that with most to see in its middle slice: a box may lie in the air."""
    batch = _batch(config, data)
    most = int(np.argmax([plane.std() for plane in _plane(batch.image, colour=False)]))
    return Batch([batch.case_ids[most]], batch.image[most : most + 1])


def _seed(config) -> int:
    """A curve has many seeds and no first one."""
    return getattr(config, "seed", 0)


def _grey(image: torch.Tensor, colour: bool) -> np.ndarray:
    """(B, C, *S) -> (B, *S): the mean of colours, the first channel of anything else."""
    return (image.mean(dim=1) if colour else image[:, 0]).float().cpu().numpy()


def _plane(image: torch.Tensor, colour: bool) -> np.ndarray:
    """(B, C, *S) -> (B, J, I) or, in colour, (B, J, I, 3): the first channel or all, and the middle slice or frame."""
    plane = image.movedim(1, -1) if colour else image[:, 0]
    return (plane if image.ndim == 4 else plane[:, image.shape[2] // 2]).float().numpy()


def _plane_and_section(image: torch.Tensor, colour: bool) -> np.ndarray:
    """(1, C, *S) -> (J, I') or, in colour, (J, I', 3): the middle slice or frame and, beside it, the section through
    its middle column.

    The section is a volume's side view, and a clip's motion over time (M-mode): what acts across slices or frames shows
    there. A thin stack of them is widened to half a plane.
    """
    (plane,) = _plane(image, colour)
    if image.ndim == 4:
        return plane
    (section,) = _plane(image.transpose(2, 4), colour)  # (J, K)
    section = section.repeat(max(1, round(plane.shape[1] / 2 / section.shape[1])), axis=1)
    return np.concatenate([plane, np.full_like(plane[:, :2], np.nan), section], axis=1)
