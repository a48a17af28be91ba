"""Nine ways in which a scan may be worse than those that a model was made for, at five severities each.

The list is after Hendrycks and Dietterich's ImageNet-C (arXiv 1903.12261), with what goes wrong in magnetic resonance
in place of weather. All are transforms of `augment`, at a strength that is given instead of drawn. What stays random
(noise, where a box lies, which way the head moves) is drawn once a case and corruption: the five severities of a case
are one draw at growing strength, and the same for every model.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch

from medssl.augment.compression import Jpeg, quality_after
from medssl.augment.intensity import Blur, Cutout, Jitter, Noise
from medssl.augment.kspace import Ghosting, Motion
from medssl.augment.mri import Anisotropy, BiasField
from medssl.augment.policy import TRANSFORMS, PolicyConfig
from medssl.augment.suitable import strange
from medssl.augment.transform import Params, TransformConfig, apply_draws
from medssl.data.cache import Cache
from medssl.data.decode import PrepareConfig
from medssl.data.source import Data
from medssl.rng import stream
from medssl.train.precision import best_device
from medssl.types import Sample

SEVERITIES = (1, 2, 3, 4, 5)
MOVES = 4
"""How often the head moves during a measurement."""

Step = tuple[TransformConfig, Params]
"""A transform, and what of its draw is given."""


class Scale(NamedTuple):
    """What strengths are measured by: a case's standard deviation, and the shorter side of its plane in voxels."""

    deviation: float
    side: int

    @classmethod
    def of(cls, image: np.ndarray) -> Scale:
        return cls(float(image.std()), min(image.shape[-2:]))


@dataclass(frozen=True)
class Corruption:
    """strengths: one a severity; measure: what they are, in words; steps: what is done at a strength to a case."""

    name: str
    strengths: tuple[float, float, float, float, float]
    measure: str
    steps: Callable[[float, Scale], Sequence[Step]]

    def apply(self, image: np.ndarray, case_id: str, severity: int) -> np.ndarray:
        """(C, *S) float32 of a case at a severity, 1 to 5."""
        rng = stream("corruption", self.name, case_id)
        batch = torch.from_numpy(image)[None].to(best_device())
        for config, given in self.steps(self.strengths[severity - 1], Scale.of(image)):
            transform = TRANSFORMS[config.name](config)
            batch = apply_draws(transform.apply, batch, [transform.draw(rng, image.shape) | given])
        return batch[0].cpu().numpy()

    def reason_against(self, data: Data) -> str:
        """Why it does not suit these cases; empty where it does."""
        configs = [config for config, _ in self.steps(self.strengths[-1], Scale(1.0, 1))]
        return strange(PolicyConfig(intensity=configs), data)


def _noise(strength: float, scale: Scale) -> list[Step]:
    std = strength * scale.deviation
    return [(Noise.Config(std=std), {"std": std})]


def _blur(strength: float, scale: Scale) -> list[Step]:
    sigma = strength * scale.side
    return [(Blur.Config(sigma=sigma), {"sigma": sigma})]


def _contrast(strength: float, _: Scale) -> list[Step]:
    return [(Jitter.Config(brightness=0, contrast=strength, clip=None), {"brightness": 1.0, "contrast": 1 - strength})]


def _bias_field(strength: float, _: Scale) -> list[Step]:
    return [(BiasField.Config(strength=strength), {})]


def _resolution(strength: float, _: Scale) -> list[Step]:
    return [(Anisotropy.Config(thickening=strength - 1, axes=(axis,)), {"factor": strength}) for axis in ("j", "i")]


def _motion(strength: float, scale: Scale) -> list[Step]:
    return [(Motion.Config(translate=strength * scale.side, rotate=100 * strength, moves=MOVES), {})]


def _ghosting(strength: float, _: Scale) -> list[Step]:
    return [(Ghosting.Config(intensity=strength), {"intensity": strength})]


def _jpeg(strength: float, _: Scale) -> list[Step]:
    return [(Jpeg.Config(loss=strength), {"quality": quality_after(strength)})]


def _occlusion(strength: float, _: Scale) -> list[Step]:
    return [(Cutout.Config(size=strength), {"half": np.full(2, strength / 2)})]


SUITE = (
    Corruption("noise", (0.05, 0.1, 0.2, 0.3, 0.5), "standard deviation, as a share of the case's own", _noise),
    Corruption("blur", (0.005, 0.01, 0.015, 0.02, 0.025), "standard deviation, as a share of the plane's shorter side",
               _blur),
    Corruption("contrast", (0.2, 0.35, 0.5, 0.65, 0.8), "share of the distances to the case's mean that is lost",
               _contrast),
    Corruption("bias field", (0.1, 0.2, 0.3, 0.4, 0.5), "largest coefficient of the polynomial in the exponent",
               _bias_field),
    Corruption("resolution", (1.5, 2.0, 2.5, 3.0, 4.0), "side of a pixel, in prepared ones", _resolution),
    Corruption("motion", (0.01, 0.02, 0.03, 0.04, 0.05), "largest shift as a share of the plane's shorter side, and "
               "a degree of turn for each hundredth", _motion),
    Corruption("ghosting", (0.2, 0.4, 0.6, 0.8, 1.0), "share that every n-th line of k-space loses", _ghosting),
    Corruption("jpeg", (0.4, 0.6, 0.75, 0.85, 0.93), "share of libjpeg's quality of 100 that is lost", _jpeg),
    Corruption("occlusion", (0.1, 0.2, 0.3, 0.4, 0.5), "side of the box, as a share of each side of the plane",
               _occlusion),
)


class CorruptedCache:
    """A cache whose prepared cases are read corrupted. Its masks are the cases' own.

    Values that a case cannot have are cut off where it was prepared to [0, 1]. What `zscore_nonzero` calls background,
    0 amid the tissue's values, is as dark as the darkest tissue while the scan is corrupted, and background again
    thereafter.
    """

    def __init__(self, cache: Cache, prepare: PrepareConfig, corruption: Corruption, severity: int) -> None:
        self._cache, self._intensity = cache, prepare.intensity
        self._corruption, self._severity = corruption, severity
        self._last: tuple[str, np.ndarray] | None = None

    def shape(self, case_id: str) -> tuple[int, ...]:
        return self._cache.shape(case_id)

    def array(self, case_id: str) -> np.ndarray:
        """(C, *S) float32. The last case is kept, since its boxes are read one after another."""
        if self._last is None or self._last[0] != case_id:
            self._last = case_id, self._corrupted(case_id)
        return self._last[1]

    def read(self, case_id: str) -> Sample:
        return replace(self._cache.read(case_id), array=self.array(case_id))

    def _corrupted(self, case_id: str) -> np.ndarray:
        image = self._cache.array(case_id).astype(np.float32)
        if not self._intensity.startswith("zscore"):
            low, high = min(0, image.min()), max(1, image.max())
            return self._corruption.apply(image, case_id, self._severity).clip(low, high)
        if self._intensity == "zscore":
            return self._corruption.apply(image, case_id, self._severity)
        background = image == 0
        darkest = image.min(axis=tuple(range(1, image.ndim)), keepdims=True)
        scanned = self._corruption.apply(np.where(background, darkest, image), case_id, self._severity)
        return np.where(background, 0, scanned)
