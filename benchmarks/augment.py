"""Two augmented views of 96³: medssl's view policy against MONAI's and TorchIO's transforms of the same kinds.

Everybody gets the same float32 batch (B, 1, 128, 128, 128) and returns two views (B, 1, 96, 96, 96): turned about K,
scaled and shifted, then noise, blur, gamma and a bias field, all with probability 1, strengths drawn alike. The peers
work as they are used, sample by sample and view by view.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from itertools import count

import torch
from harness import Peer, Row, Settings, Work, compare, main
from torch import Tensor
from volumes import head

from medssl.augment import PolicyConfig, ViewPolicy
from medssl.types import Batch, ViewSpec

BOX, VIEW = 128, 96
"""Voxels along each axis of what is read, and of a view."""
BATCH = 4
DEGREES = 15
ZOOM = 0.15
"""The crop's side is 1 - ZOOM to 1 + ZOOM of the view's."""
STD, SIGMA, LOG_GAMMA, BIAS = 0.1, 1.0, 0.3, 0.3
"""Noise on values from 0 to 1; blur in voxels; the largest logarithm of gamma; coefficients of a cubic polynomial."""


def measure(settings: Settings) -> list[Row]:
    box, view = (16, 12) if settings.tiny else (BOX, VIEW)
    cores = torch.get_num_threads()
    rows = []
    for size, threads in ((BATCH, cores), (1, cores), (BATCH, 1)):
        torch.set_num_threads(threads)
        name = f"two views of {view}³ of a batch of {size}, {threads} thread{'s' if threads > 1 else ''}"
        rows += compare(name, ours(images(box, size), view), peers(images(box, size), view), settings.repeats)
    torch.set_num_threads(cores)
    return rows


def images(side: int, size: int) -> Tensor:
    """(B, 1, side, side, side) float32 from 0 to 1."""
    volumes = torch.stack([torch.from_numpy(head((side,) * 3, number)) for number in range(size)]).float()
    return (volumes / volumes.amax())[:, None]


def ours(batch: Tensor, view: int) -> Work:
    """A new epoch, hence a new draw, each time."""
    box = batch.shape[-1]
    config = PolicyConfig.model_validate({
        "size": (view,) * 3,
        "spatial": {"axes": "volume", "rotate": DEGREES,
                    "scale": [((1 + side) * view / box) ** 3 for side in (-ZOOM, ZOOM)]},
        "intensity": [{"name": "noise", "std": STD}, {"name": "blur", "sigma": SIGMA, "axes": "volume"},
                      {"name": "gamma", "gamma": math.expm1(LOG_GAMMA)}, {"name": "bias_field", "strength": BIAS}],
    })
    policy, epochs = ViewPolicy(config, ViewSpec(count=2), seed=0), count()
    names = [f"case{number}" for number in range(len(batch))]
    return lambda: policy(Batch(names, batch, epochs=[next(epochs)] * len(batch))).images


def peers(batch: Tensor, view: int) -> list[Peer]:
    margin = (batch.shape[-1] - view) // 2

    def peer(name: str, package: str, target: float | None, make: Callable[[], Callable[[Tensor], Tensor]]) -> Peer:
        transform = cache(make)  # made on first use, for the package may be missing
        return Peer(name, lambda: tuple(torch.stack([transform()(image) for image in batch]) for _ in range(2)),
                    package, target, _alike)

    return [
        peer("MONAI", "monai", 3.0, lambda: monai_transform(view, margin)),
        peer("TorchIO", "torchio", 6.0, lambda: torchio_transform(margin, crop_first=False)),
        peer("TorchIO, cropping first", "torchio", None, lambda: torchio_transform(margin, crop_first=True)),
    ]


def monai_transform(view: int, margin: int) -> Callable[[Tensor], Tensor]:
    """The affine resamples to the view's size at once, which is MONAI's fastest way to crop."""
    from monai.transforms import (
        Compose,
        RandAdjustContrast,
        RandAffine,
        RandBiasField,
        RandGaussianNoise,
        RandGaussianSmooth,
    )
    from monai.utils import set_determinism

    set_determinism(0)
    sigma = (0.0, SIGMA)
    return Compose([
        RandAffine(prob=1, rotate_range=(math.radians(DEGREES), 0, 0), scale_range=(ZOOM,) * 3,
                   translate_range=(margin,) * 3, spatial_size=(view,) * 3, mode="bilinear", padding_mode="zeros"),
        RandGaussianNoise(prob=1, std=STD),
        RandGaussianSmooth(prob=1, sigma_x=sigma, sigma_y=sigma, sigma_z=sigma),
        RandAdjustContrast(prob=1, gamma=(math.exp(-LOG_GAMMA), math.exp(LOG_GAMMA))),
        RandBiasField(prob=1, degree=3, coeff_range=(-BIAS, BIAS)),
    ])


def torchio_transform(margin: int, crop_first: bool) -> Callable[[Tensor], Tensor]:
    """Affine, then crop, keeps the view's corners filled, as the others do; cropping first spares it most voxels."""
    import torchio

    torch.manual_seed(0)
    affine = torchio.RandomAffine(scales=(1 - ZOOM, 1 + ZOOM), degrees=(DEGREES, 0, 0), translation=margin,
                                  isotropic=True, default_pad_value=0)
    crop = torchio.Crop(margin)
    transform = torchio.Compose([
        *((crop, affine) if crop_first else (affine, crop)),
        torchio.RandomNoise(std=(0, STD)),
        torchio.RandomBlur(std=(0, SIGMA)),
        torchio.RandomGamma(log_gamma=LOG_GAMMA),
        torchio.RandomBiasField(coefficients=BIAS),
    ])
    return lambda image: transform(torchio.ScalarImage(tensor=image)).data


def _alike(ours: tuple[Tensor, ...], theirs: tuple[Tensor, ...]) -> bool:
    """Draws differ, so only what they are is compared."""
    return all(a.shape == b.shape and a.dtype == b.dtype and bool(b.isfinite().all())
               for a, b in zip(ours, theirs, strict=True))


if __name__ == "__main__":
    main("augment", __doc__, measure, repeats=5)
