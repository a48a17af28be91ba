"""Batch -> Views: what a recipe says of augmentation, joined to what an objective or task asks for."""

from __future__ import annotations

from typing import Annotated, Union

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from medssl.augment.intensity import Blur, Cutout, Gamma, Jitter, Noise
from medssl.augment.mask import block_grid, check_mask, draw_hidden
from medssl.augment.mri import BiasField, Rician, ScaleShift
from medssl.augment.spatial import Spatial, SpatialConfig
from medssl.augment.transform import Params, Transform, apply_draws
from medssl.augment.ultrasound import DepthGain, Speckle
from medssl.config import Config
from medssl.rng import stream
from medssl.types import Batch, Views, ViewSpec

TRANSFORMS: dict[str, type[Transform]] = {
    "jitter": Jitter,
    "gamma": Gamma,
    "noise": Noise,
    "blur": Blur,
    "cutout": Cutout,
    "bias_field": BiasField,
    "rician": Rician,
    "scale_shift": ScaleShift,
    "speckle": Speckle,
    "depth_gain": DepthGain,
}

IntensityConfig = Annotated[
    Union[tuple(kind.Config for kind in TRANSFORMS.values())], Field(discriminator="name")  # noqa: UP007 (no `|` here)
]

CACHED = 2**20
"""Values that a CPU augments at a time: 4 MiB, and a few times that for what lies between."""


class PolicyConfig(Config):
    """How views are made. The default changes nothing: views are the images themselves."""

    size: Annotated[tuple[Annotated[int, Field(gt=0)], ...], Field(min_length=2, max_length=3)] | None = None
    """A view's voxels, (J, I), or (K, J, I) where spatial.axes is volume; null keeps the images' own size."""
    spatial: SpatialConfig = SpatialConfig()
    intensity: tuple[IntensityConfig, ...] = ()
    """Transforms of grey values, done in this order after the geometry, each by its `name` in `TRANSFORMS`."""


class ViewPolicy:
    """Makes the views that `spec` asks for. Every sample draws from streams of its own, named by seed, epoch, case and
    view, so views depend neither on the batch's composition nor on its order.

    Raises ConfigError when the size, the blocks and the images do not fit one another.
    """

    def __init__(self, config: PolicyConfig, spec: ViewSpec, seed: int) -> None:
        self.config, self.spec, self.seed = config, spec, seed
        self.spatial = Spatial(config.spatial, config.size)
        self.intensity = [TRANSFORMS[one.name](one) for one in config.intensity]
        if spec.mask is not None:
            check_mask(spec.mask)

    @torch.no_grad()
    def __call__(self, batch: Batch) -> Views:
        """image (B, C, *S) -> `spec.count` views (B, C, *size) of its dtype, on its device."""
        images, mask = [], batch.mask
        for view in range(self.spec.count):
            streams = self._streams(batch, "view", view)
            boxes = [self.spatial.draw(rng, tuple(batch.image.shape[1:])) for rng in streams]
            images.append(self._image(batch.image, boxes, streams))
            if view == 0 and mask is not None:
                mask = apply_draws(self.spatial.apply_labels, mask, boxes)
        return Views(images=tuple(images), hidden=self._hidden(batch), mask=mask, target=batch.target)

    def _streams(self, batch: Batch, name: str, *view: int) -> list[np.random.Generator]:
        """A stream for each sample. A batch that names no epochs, as in evaluation, is of epoch 0."""
        epochs = batch.epochs or [0] * len(batch.case_ids)
        return [stream(self.seed, name, epoch, case, *view)
                for epoch, case in zip(epochs, batch.case_ids, strict=True)]

    def _image(self, image: Tensor, boxes: list[Params | None], streams: list[np.random.Generator]) -> Tensor:
        """One view of every sample; on CPU a few samples at a time, so that what lies between stays in its cache."""
        few = max(1, CACHED // image[0].numel()) if image.device.type == "cpu" else len(image)
        parts = [slice(start, start + few) for start in range(0, len(image), few)]
        return torch.cat([self._augment(image[part], boxes[part], streams[part]) for part in parts])

    def _augment(self, image: Tensor, boxes: list[Params | None], streams: list[np.random.Generator]) -> Tensor:
        """The same of a part of the batch, computed in float32."""
        view = apply_draws(self.spatial.apply, image.float(), boxes)
        for transform in self.intensity:
            chance, shape = transform.config.probability, tuple(view.shape[1:])
            draws = [transform.draw(rng, shape) if rng.random() < chance else None for rng in streams]
            view = apply_draws(transform.apply, view, draws)
        return view.to(image.dtype)

    def _hidden(self, batch: Batch) -> Tensor | None:
        """(B, N) bool, from streams of its own: the same blocks whatever augmentation the recipe sets."""
        spec = self.spec.mask
        if spec is None:
            return None
        grid = block_grid(self.spatial.output_size(tuple(batch.image.shape[2:])), spec.block)
        streams = self._streams(batch, "hidden")
        hidden = np.stack([draw_hidden(rng, grid, spec) for rng in streams])
        return torch.from_numpy(hidden).to(batch.image.device)
