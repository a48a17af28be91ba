"""Masked autoencoding: a ViT sees a few patches, a small decoder paints the others.

He et al., Masked Autoencoders Are Scalable Vision Learners, CVPR 2022 (arXiv 2111.06377), for images and volumes; with
`tube`, VideoMAE (Tong et al., NeurIPS 2022, arXiv 2203.12602) for clips: the same places are hidden at all times, since
a hidden patch could otherwise be copied from the frame before. The reference's class token, which pretraining gives
nothing to do, is there only with `encoder.class_token`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from medssl.augment.mask import BlockMask
from medssl.config import Config as StrictConfig
from medssl.errors import ConfigError, TrainingError
from medssl.models import Encoder, TokenDecoder, ViT
from medssl.objectives.fitting import draw_some
from medssl.objectives.objective import Objective
from medssl.types import Views, ViewSpec


class MAE(Objective):
    """Mean squared error of the hidden patches, each patch's target normalised by its own mean and deviation."""

    per_sample = True

    class Config(StrictConfig):
        name: Literal["mae"] = "mae"
        ratio: float = Field(0.75, gt=0, lt=1)
        """Share of patches hidden. Papers: 0.75 for photographs, 0.9 for chest X-rays (medical_mae) and clips."""
        tube: bool = False
        """For clips: hide the same places at all times, and normalise targets for each channel apart."""
        normalise_target: bool = True
        """By each patch's own mean and deviation; medical_mae leaves this out for chest X-rays."""
        decoder: TokenDecoder.Config = TokenDecoder.Config()

    def __init__(self, encoder: Encoder, config: MAE.Config) -> None:
        super().__init__()
        if not isinstance(encoder, ViT):
            raise ConfigError(
                f"MAE was given a {type(encoder).__name__}",
                expected="a ViT, which can leave out the hidden patches",
                remedy="choose encoder.name=vit, or objective.name=masked_reconstruction for a U-Net",
            )
        self.encoder, self.config = encoder, config
        self.mask = BlockMask(config.ratio, encoder.patch, config.tube)
        self.view_spec = ViewSpec(draw=self._draw)
        self.decoder = TokenDecoder(config.decoder, encoder.width, encoder.embedding.weight[0].numel())
        self._has_asked = False

    def forward(self, views: Views) -> tuple[Tensor, dict[str, Tensor]]:
        """One view (B, C, *S), each axis a multiple of the patch; drawn `hidden` (B, N), as many True in every row."""
        patches, visible, hidden = self._split(views)
        predicted = self._predict(views, patches, visible, hidden)
        target = self._normalise(gather(patches, hidden))
        loss = (predicted - target).square().mean()
        error = loss.detach()
        explained = 1 - error / target.var(correction=0).clamp_min(1e-12)
        return loss, {"masked_error": error, "explained_variance": explained}

    @torch.no_grad()
    def reconstruct(self, views: Views) -> tuple[Tensor, Tensor]:
        """The image with its hidden patches NaN, and with them as predicted, each (B, C, *S) float32.

        Predictions of normalised targets are shown with the true patch's mean and deviation, which the model never saw.
        """
        patches, visible, hidden = self._split(views)
        predicted = self._predict(views, patches, visible, hidden)
        restored = self._restore(predicted, gather(patches, hidden))
        painted = patches.scatter(1, hidden[:, :, None].expand_as(restored), restored)
        size = tuple(views.images[0].shape[2:])
        shown = views.images[0].float().masked_fill(self.mask.voxels(views.drawn["hidden"], size), float("nan"))
        return shown, self.encoder.unpatchify(painted, self.encoder.grid_of(size))

    def _draw(self, rng: np.random.Generator, shape: tuple[int, ...]) -> dict[str, np.ndarray]:
        return draw_some(self.mask, rng, shape, "encoder.patch")

    def _split(self, views: Views) -> tuple[Tensor, Tensor, Tensor]:
        """All patches (B, N, P), and the indices of the visible (B, n) and the hidden ones (B, m)."""
        patches = self.encoder.patchify(views.images[0].float())
        hidden = views.drawn.get("hidden")
        return patches, *split_tokens(hidden, patches.shape[1], self._known_count(hidden, views.images[0].shape[2:]))

    def _known_count(self, hidden: Tensor | None, size: Sequence[int]) -> int | None:
        """How many patches the ratio hides of a view of `size`; None where the mask itself is to be asked.

        Asking would break a compiled step in two, and wait for a GPU, whose first mask has to stand for the others.
        """
        waits = hidden is not None and hidden.device.type != "cpu"
        if torch.compiler.is_compiling() or (waits and self._has_asked):
            return self.mask.count(tuple(size))
        self._has_asked = waits
        return None

    def _predict(self, views: Views, patches: Tensor, visible: Tensor, hidden: Tensor) -> Tensor:
        """Values (B, m, P) of the hidden patches; the encoder is shown only the visible ones."""
        grid = self.encoder.grid_of(views.images[0].shape[2:])
        positions = self.encoder.positions(grid, patches.device)
        tokens = self.encoder.project(gather(patches, visible)) + positions[visible]
        return self.decoder(self.encoder.encode(tokens), visible, hidden, grid).float()

    def _normalise(self, patches: Tensor) -> Tensor:
        if not self.config.normalise_target:
            return patches
        mean, deviation = self._statistics(patches)
        return ((self._grouped(patches) - mean) / deviation).flatten(2)

    def _restore(self, values: Tensor, patches: Tensor) -> Tensor:
        """The inverse of `_normalise`, given the true patches."""
        if not self.config.normalise_target:
            return values
        mean, deviation = self._statistics(patches)
        return (self._grouped(values) * deviation + mean).flatten(2)

    def _statistics(self, patches: Tensor) -> tuple[Tensor, Tensor]:
        variance, mean = torch.var_mean(self._grouped(patches), dim=3, keepdim=True)  # unbiased, as the paper's code
        return mean, (variance + 1e-6).sqrt()

    def _grouped(self, patches: Tensor) -> Tensor:
        """(B, m, P) -> (B, m, groups, values): MAE normalises all of a patch together, VideoMAE each channel apart."""
        return patches.unflatten(2, (self.encoder.channels if self.config.tube else 1, -1))


def split_tokens(hidden: Tensor | None, count: int, known: int | None = None) -> tuple[Tensor, Tensor]:
    """hidden (B, N) bool -> indices of the visible (B, n) and of the hidden tokens (B, m), each in rising order.

    known: m, where that is not to be asked of the mask.

    TrainingError unless it has `count` columns and hides some, the same number in every sample, but not all.
    """
    expected = f"a mask over {count} patches that hides the same number of them, some but not all, in every sample"
    if hidden is None or hidden.shape[1] != count:
        shape = None if hidden is None else tuple(hidden.shape)
        raise TrainingError(f"The views' mask is {shape}", expected=expected, remedy="draw it from the view_spec")
    fewest, most = (int(n) for n in hidden.sum(1).aminmax()) if known is None else (known, known)
    if fewest != most or not 0 < most < count:
        found = f"The views' mask hides {fewest} to {most} patches of a sample"
        raise TrainingError(found, expected=expected, remedy="draw it from the view_spec")
    order = hidden.long().argsort(dim=1, stable=True)
    return order[:, : count - most], order[:, count - most :]


def gather(patches: Tensor, index: Tensor) -> Tensor:
    """patches (B, N, P), index (B, n) -> (B, n, P)."""
    return patches.gather(1, index[:, :, None].expand(-1, -1, patches.shape[2]))
