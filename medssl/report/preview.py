"""Pictures of what a model sees and makes of it: augmented views, and reconstructions of hidden blocks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from medssl.augment.mask import block_grid, blocks_to_voxels
from medssl.augment.policy import ViewPolicy
from medssl.data.loader import Loader
from medssl.data.source import Data, open_data
from medssl.evaluate.predict import still
from medssl.objectives import build_objective
from medssl.report.figures import save_reconstructions, save_views
from medssl.train.build import chosen_encoder, fitted_encoder
from medssl.train.pretrain import PretrainConfig
from medssl.types import Batch, Views, ViewSpec

CASES = 6
VIEWS = 4


def draw_views(config, out: Path, data: Data | None = None) -> Path:
    """Writes a PNG: a row a case, as prepared and then as augmented, of any recipe with data and augment."""
    data = data or open_data(config.data)
    batch = _batch(config, data)
    original = ViewPolicy(still(config.augment), ViewSpec(), 0)(batch).images
    views = ViewPolicy(config.augment, ViewSpec(count=VIEWS), _seed(config))(batch).images
    save_views(out, [_plane(image) for image in (*original, *views)])
    return out


def draw_pretraining(run: Path, config: PretrainConfig, data: Data) -> None:
    """Leaves pictures/views.png in a finished run and, if the objective reconstructs, pictures/reconstruction.png."""
    pictures = run / "pictures"
    if not (pictures / "views.png").is_file():
        draw_views(config, pictures / "views.png", data)
    if (pictures / "reconstruction.png").is_file():
        return
    encoder = fitted_encoder(chosen_encoder(config.encoder, config.init), data, config.augment)
    objective = build_objective(config.objective, encoder)
    if not hasattr(objective, "reconstruct"):
        return
    objective.load_state_dict(_objective_state(run))
    objective.eval()
    batch = _batch(config, data)
    views = ViewPolicy(still(config.augment), objective.view_spec, config.seed)(batch)
    with torch.no_grad():
        reconstruction = objective.reconstruct(views)
    shown = _seen(views, objective.view_spec)
    stacks = [_clip_or_plane(image) for image in (views.images[0], shown, reconstruction)]
    save_reconstructions(pictures / "reconstruction.png", *stacks)


def _objective_state(run: Path) -> dict[str, torch.Tensor]:
    """The whole objective, heads included, from the run's last checkpoint."""
    return torch.load(run / "checkpoints" / "last.ckpt", weights_only=True, map_location="cpu")["module"]


def _batch(config, data: Data) -> Batch:
    cases = data.cases.filter(data.cases["split"] == "train")
    return Loader(data.cache, cases["case_id"].to_list(), config.data.box, CASES, _seed(config)).batch(0)


def _seed(config) -> int:
    """A curve has many seeds and no first one."""
    return getattr(config, "seed", 0)


def _seen(views: Views, spec: ViewSpec) -> torch.Tensor:
    image = views.images[0]
    hidden = blocks_to_voxels(views.hidden, block_grid(tuple(image.shape[2:]), spec.mask.block), spec.mask.block)
    return image.masked_fill(hidden, float("nan"))


def _plane(image: torch.Tensor) -> np.ndarray:
    """(B, C, *S) -> (B, J, I): the first channel, and the middle slice or frame."""
    plane = image[:, 0]
    return (plane if plane.ndim == 3 else plane[:, plane.shape[1] // 2]).float().numpy()


def _clip_or_plane(image: torch.Tensor) -> np.ndarray:
    return image[:, 0].float().numpy()
