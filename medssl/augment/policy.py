"""Batch -> Views: what a recipe says of augmentation, joined to what an objective or task asks for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Union

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor

from medssl.augment.colour import ColourDrop, ColourJitter
from medssl.augment.compression import Jpeg
from medssl.augment.ct import HuShift, HuWindow, SliceThickness
from medssl.augment.intensity import Blur, Cutout, Gamma, Jitter, Noise, Sobel
from medssl.augment.kspace import Ghosting, Gibbs, Motion
from medssl.augment.mri import Anisotropy, BiasField, Rician, ScaleShift
from medssl.augment.spatial import Spatial, SpatialConfig
from medssl.augment.temporal import Temporal, TemporalConfig
from medssl.augment.transform import Params, Transform, apply_draws, stack
from medssl.augment.ultrasound import DepthGain, Gain, Speckle, probes, sector, sector_of_view
from medssl.augment.xray import Equalisation, Exposure, WindowJitter
from medssl.config import Config
from medssl.rng import stream
from medssl.types import Batch, Views, ViewSpec

TRANSFORMS: dict[str, type[Transform]] = {
    "jitter": Jitter,
    "gamma": Gamma,
    "noise": Noise,
    "blur": Blur,
    "cutout": Cutout,
    "sobel": Sobel,
    "jpeg": Jpeg,
    "colour_drop": ColourDrop,
    "colour_jitter": ColourJitter,
    "exposure": Exposure,
    "window_jitter": WindowJitter,
    "equalisation": Equalisation,
    "hu_window": HuWindow,
    "hu_shift": HuShift,
    "slice_thickness": SliceThickness,
    "bias_field": BiasField,
    "rician": Rician,
    "scale_shift": ScaleShift,
    "anisotropy": Anisotropy,
    "ghosting": Ghosting,
    "gibbs": Gibbs,
    "motion": Motion,
    "speckle": Speckle,
    "depth_gain": DepthGain,
    "gain": Gain,
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
    temporal: TemporalConfig = TemporalConfig()
    """For clips: which moments a view shows. Done first."""
    spatial: SpatialConfig = SpatialConfig()
    intensity: tuple[IntensityConfig, ...] = ()
    """Transforms of grey values, done in this order after the geometry, each by its `name` in `TRANSFORMS`."""

    @model_validator(mode="after")
    def _check(self) -> PolicyConfig:
        if self.temporal != TemporalConfig() and self.spatial.axes == "volume":
            raise ValueError("spatial.axes is volume, but temporal is for clips, whose spatial.axes is plane: leave "
                             "one of them out")
        return self

    def still(self) -> PolicyConfig:
        """The policy without anything random: views of the same size, central and untouched."""
        return PolicyConfig(size=self.size, temporal=TemporalConfig(frames=self.temporal.frames),
                            spatial=SpatialConfig(axes=self.spatial.axes))


class ViewPolicy:
    """Makes the views that `spec` asks for. Every sample draws from streams of its own, named by seed, epoch, case and
    view, so views depend neither on the batch's composition nor on its order.

    Raises ConfigError when the size, the images and what the objective draws do not fit one another.
    """

    def __init__(self, config: PolicyConfig, spec: ViewSpec, seed: int) -> None:
        self.config, self.spec, self.seed = config, spec, seed
        self.temporal, self.spatial = Temporal(config.temporal), Spatial(config.spatial, config.size)
        self.intensity = [TRANSFORMS[one.name](one) for one in config.intensity]

    @torch.no_grad()
    def __call__(self, batch: Batch) -> Views:
        """image (B, C, *S) -> `spec.count` views (B, C, *size) of its dtype, on its device."""
        images, mask = [], batch.mask
        fan, about = self._fan(batch.image)
        for view in range(self.spec.count):
            moments = self._moments(batch, view)
            clip = apply_draws(self.temporal.apply, batch.image.float(), moments)
            streams = self._streams(batch, "view", view)
            boxes = [self.spatial.draw(rng, tuple(clip.shape[1:]), probe)
                     for rng, probe in zip(streams, about, strict=True)]
            images.append(self._image(clip, boxes, streams, fan).to(batch.image.dtype))
            if view == 0 and mask is not None:
                mask = apply_draws(self.temporal.apply_labels, mask, moments)
                mask = apply_draws(self.spatial.apply_labels, mask, boxes)
                mask = mask if fan is None else mask * fan[:, 0]
        return Views(images=tuple(images), drawn=self._drawn(batch), mask=mask, target=batch.target)

    def _fan(self, image: Tensor) -> tuple[Tensor | None, Sequence[list[float] | None]]:
        """What views are to stay within, and the point of each sample that crops zoom about, if anything."""
        if not self.config.spatial.keep_sector:
            return None, [None] * len(image)
        fan = sector(image)
        return sector_of_view(fan, self.config.size), probes(fan)

    def _streams(self, batch: Batch, name: str, *view: int) -> list[np.random.Generator]:
        """A stream for each sample. A batch that names no epochs, as in evaluation, is of epoch 0."""
        epochs = batch.epochs or [0] * len(batch.case_ids)
        return [stream(self.seed, name, epoch, case, *view)
                for epoch, case in zip(epochs, batch.case_ids, strict=True)]

    def _moments(self, batch: Batch, view: int) -> list[Params | None]:
        """Each sample's time, from streams of its own: geometry and grey values are drawn alike with it and without."""
        if not self.temporal.acts:
            return [None] * len(batch.case_ids)
        shape = tuple(batch.image.shape[1:])
        return [self.temporal.draw(rng, shape) for rng in self._streams(batch, "time", view)]

    def _image(self, image: Tensor, boxes: list[Params | None], streams: list[np.random.Generator],
               fan: Tensor | None) -> Tensor:
        """One view of every sample; on CPU a few samples at a time, so that what lies between stays in its cache."""
        few = max(1, CACHED // image[0].numel()) if image.device.type == "cpu" else len(image)
        parts = [slice(start, start + few) for start in range(0, len(image), few)]
        return torch.cat([self._augment(image[part], boxes[part], streams[part], None if fan is None else fan[part])
                          for part in parts])

    def _augment(self, image: Tensor, boxes: list[Params | None], streams: list[np.random.Generator],
                 fan: Tensor | None) -> Tensor:
        """The same of a part of the batch; `image` is float32, and so is all that is computed of it."""
        view = apply_draws(self.spatial.apply, image, boxes)
        view = view if fan is None else view * fan
        for transform in self.intensity:
            chance, shape = transform.config.probability, tuple(view.shape[1:])
            draws = [transform.draw(rng, shape) if rng.random() < chance else None for rng in streams]
            view = apply_draws(transform.apply, view, draws)
        return view

    def _drawn(self, batch: Batch) -> dict[str, Tensor]:
        """What the objective draws, from streams of its own: the same whatever augmentation the recipe sets."""
        if self.spec.draw is None:
            return {}
        size = self.spatial.output_size(self.temporal.output_size(tuple(batch.image.shape[2:])))
        draws = stack([self.spec.draw(rng, (batch.image.shape[1], *size)) for rng in self._streams(batch, "objective")])
        return {name: values.to(batch.image.device) for name, values in draws.items()}
