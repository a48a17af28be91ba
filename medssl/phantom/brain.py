"""Brain tumours in the layout of BraTS 2021: `BraTS2021_00000/BraTS2021_00000_{flair,t1,t1ce,t2,seg}.nii.gz`.

Coordinates are millimetres from the brain's centre: x to the patient's left, y to the back, z up, so that an axial
slice is seen as radiologists see it. Labels: 1 necrosis or non-enhancing core, 2 oedema, 4 enhancing; a whole tumour
contains its core (1, 4) contains its enhancing part (4). What mimics a tumour (white-matter lesions of age, vessels,
bias field) is drawn into the channels and never into the mask.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.ndimage import gaussian_filter, shift

from medssl.io.write import write_nifti
from medssl.phantom.shapes import Array, ball, bump, edge, smooth_noise
from medssl.phantom.studio import Progress, draw_patients, signed
from medssl.rng import stream

SHAPE = (20, 64, 64)
"""(K, J, I)"""

SPACING = (6.0, 3.0, 3.0)
CHANNELS = ("flair", "t1", "t1ce", "t2")
AFFINE = np.array([[-3.0, 0, 0, 0], [0, -3.0, 0, 189.0], [0, 0, 6.0, 0], [0, 0, 0, 1]])
"""i runs to the patient's left and j to the back, as in BraTS; the world is RAS+."""

NECROSIS, OEDEMA, ENHANCING = 1, 2, 4

CONTRAST = {
    # tissue: flair, t1, t1ce, t2, relative to white matter on T1
    "fluid": (0.18, 0.28, 0.28, 1.45),
    "grey": (0.84, 0.62, 0.64, 0.88),
    "white": (0.64, 0.90, 0.92, 0.62),
    "oedema": (1.22, 0.62, 0.64, 1.18),
    "necrosis": (0.62, 0.42, 0.44, 1.28),
    "enhancing": (1.08, 0.66, 1.35, 1.00),
    "solid": (1.10, 0.52, 0.56, 1.15),
    "scar": (1.15, 0.72, 0.74, 1.02),
    "vessel": (0.50, 0.70, 1.50, 0.45),
}


@dataclass(frozen=True)
class Tumour:
    """Soft memberships 0..1, each (K, J, I): how much of the voxel is tumour, how much its core."""

    whole: Array
    core: Array
    hollow: Array
    """How much of the core does not enhance."""

    push: tuple[Array, Array, Array]
    """Mass effect: how far the tissue beside it moved, mm, along z, y, x."""

    solid: bool
    """What does not enhance is solid tumour, not necrosis."""

    @property
    def enhancing(self) -> Array:
        return self.core * (1 - self.hollow)


def write_brain(folder: str | Path, patients: int, seed: int = 0, progress: Progress | None = None) -> None:
    """Writes `patients` synthetic patients under `folder`, 64 x 64 x 20 voxels of 3 x 3 x 6 mm.

    Patient k is the same for a seed, however many patients there are. Returns at once where they are all there;
    RunError where the folder holds something else.
    """
    folder = Path(folder)
    with signed(folder, "brain", patients, seed, ("BraTS2021_*",)) as needed:
        if needed:
            draw_patients(_write_patient, folder, patients, seed, progress)


def _write_patient(folder: Path, seed: int, index: int) -> None:
    channels, labels = draw_patient(seed, index)
    name = f"BraTS2021_{index:05d}"
    for channel, array in channels.items():
        write_nifti(folder / name / f"{name}_{channel}.nii.gz", array, AFFINE)
    write_nifti(folder / name / f"{name}_seg.nii.gz", labels, AFFINE)


def draw_patient(seed: int, index: int) -> tuple[dict[str, Array], Array]:
    """Four channels (K, J, I) int16, exactly 0 outside the brain, and the labels (K, J, I) uint8."""
    key = (seed, "phantom", "brain", index)
    grid = _grid(stream(*key, "head"))
    tumour = _tumour(stream(*key, "tumour"), grid)
    moved = tuple(axis - push for axis, push in zip(grid, tumour.push, strict=True))
    tissues, inside = _anatomy(stream(*key, "anatomy"), moved, grid)
    labels = _labels(tumour, inside)
    mixture = _infiltrate(stream(*key, "mixture"), tissues, tumour)
    channels = _scan(stream(*key, "scanner"), mixture, tumour, inside)
    return channels, labels


def _grid(rng: np.random.Generator) -> tuple[Array, Array, Array]:
    """z, y, x in mm, each (K, J, I), of a head of its own size, place and tilt."""
    axes = [(np.arange(n, dtype=np.float32) - (n - 1) / 2) * mm for n, mm in zip(SHAPE, SPACING, strict=True)]
    z, y, x = np.meshgrid(*axes, indexing="ij")
    z, y, x = z - rng.normal(2, 3), y - rng.normal(0, 3), x - rng.normal(0, 2.5)
    roll, yaw = rng.normal(0, 0.06, 2)
    x, y = np.cos(yaw) * x - np.sin(yaw) * y, np.sin(yaw) * x + np.cos(yaw) * y
    x, z = np.cos(roll) * x - np.sin(roll) * z, np.sin(roll) * x + np.cos(roll) * z
    scale = rng.normal(1.0, 0.045) * rng.normal(1.0, 0.025, 3)
    bend = [1.6 * smooth_noise(rng, SHAPE, (3, 4, 4)) for _ in range(3)]
    return tuple(np.float32(s) * axis + b for s, axis, b in zip(scale, (z, y, x), bend, strict=True))


def _tumour(rng: np.random.Generator, grid: tuple[Array, Array, Array]) -> Tumour:
    z, y, x = grid
    side = rng.choice([-1, 1])
    centre = rng.uniform(-12, 38), rng.uniform(-42, 42), side * rng.uniform(14, 42)
    radius = float(np.clip(rng.lognormal(np.log(18.5), 0.32), 10, 34))
    axes = radius * rng.uniform(0.75, 1.3, 3)
    away = [axis - at for axis, at in zip(grid, centre, strict=True)]
    reach = np.sqrt(sum(np.square(d / a) for d, a in zip(away, axes, strict=True)))
    rough = 0.20 * smooth_noise(rng, SHAPE, (6, 10, 10)) + 0.08 * smooth_noise(rng, SHAPE, (10, 20, 20))
    fingers = 0.30 * smooth_noise(rng, SHAPE, (5, 9, 9))
    spread = rng.uniform(1.05, 1.9) if rng.random() < 0.85 else 1.0
    extent = rng.uniform(0.72, 0.95)
    core = edge(extent - reach - rough, 0.12)
    # oedema follows the white matter: fingers, and little of it across the midline or out into the cortex
    cortex = np.sqrt(np.square(z / 62) + np.square(y / 84) + np.square(x / 67))
    barrier = 1.2 * np.clip(cortex - 0.80, 0, 1) + 0.04 * np.clip(4 - side * x, 0, 30)
    whole = edge(spread - reach - fingers - barrier, 0.14)
    whole = np.maximum(whole, core)
    kind = rng.random()
    solid = kind < 0.20  # of the rest most enhance in a rim around necrosis, some as a whole
    inner = extent * rng.uniform(0.30, 0.75) if kind < 0.88 else 0.0
    hollow = edge(inner - reach - rough - 0.08 * smooth_noise(rng, SHAPE, (8, 14, 14)), 0.12) * (kind < 0.88)
    hollow = np.ones_like(core) if solid else hollow
    push = 0.22 * radius * np.exp(-0.5 * np.square(np.maximum(reach - 0.8, 0) / 0.8)) * np.clip(reach, 0, 1)
    distance = np.sqrt(sum(np.square(d) for d in away)) + 1.0
    return Tumour(whole, core, hollow, tuple(push * d / distance for d in away), solid)


def _anatomy(
    rng: np.random.Generator, moved: tuple[Array, Array, Array], grid: tuple[Array, Array, Array]
) -> tuple[dict[str, Array], Array]:
    """Memberships of the healthy tissues, summing to 1, and the brain mask (K, J, I) bool."""
    z, y, x = grid
    taper = 1 - 0.10 * np.clip(-y / 80, 0, 1) ** 2  # the frontal pole is narrower
    cerebrum = np.sqrt(np.square(x / (66 * taper)) + np.square(y / 82) + np.square((z - 4) / 58))
    hind = np.sqrt(np.square(x / 48) + np.square((y - 38) / 32) + np.square((z + 40) / 24))
    stem = np.sqrt(np.square(x / 15) + np.square((y - 14) / 17) + np.square((z + 44) / 40))
    depth = np.maximum(64 * (1 - cerebrum), np.maximum(26 * (1 - hind), 15 * (1 - stem)))
    depth = depth - 9 * edge(-22 - z, 14) * edge(15 - np.hypot(x / 1.6, y + 8), 12)  # skull base between the poles
    atrophy = rng.beta(1.3, 2.0)
    inside = depth > 0
    z, y, x = moved
    folds = np.abs(smooth_noise(rng, SHAPE, (9, 15, 15)) + 0.5 * smooth_noise(rng, SHAPE, (12, 24, 24)))
    sulcus = bump(folds, 0.20 + 0.10 * atrophy) * edge(13 + 4 * atrophy - depth, 9)
    fissure = bump(x, 1.3 + 1.2 * atrophy) * edge(np.maximum(np.abs(y) - 30, z - 20) / 10, 1.5) * edge(z + 20, 20)
    sylvian = bump(z + 2 - 0.25 * y, 3.0 + 2 * atrophy) * edge(np.abs(x) - 36, 10) * edge(30 - np.abs(y + 8), 16)
    cistern = edge(2.0 - depth, 2.5) * (0.3 + 0.5 * atrophy)
    ventricles = _ventricles(rng, x, y, z, atrophy)
    fluid = np.maximum.reduce([0.85 * sulcus, 0.9 * fissure, 0.8 * sylvian, cistern, ventricles])
    ribbon = edge(6.0 + 6.5 * bump(folds, 0.40) - depth, 4.0)
    folia = edge(1.0 - hind, 0.3) * edge(0.4 + 0.5 * np.sin(0.9 * z + 0.25 * np.abs(x)), 1.2)
    ribbon = np.maximum(ribbon, 0.75 * folia)
    ribbon = np.maximum(ribbon, 0.9 * bump(x, 5.0) * edge(np.maximum(np.abs(y) - 32, z - 24) / 10, 1.5))
    grey = np.maximum(ribbon, _nuclei(rng, x, y, z)) * (1 - fluid)
    return {"fluid": fluid, "grey": grey, "white": 1 - fluid - grey}, inside


def _ventricles(rng: np.random.Generator, x: Array, y: Array, z: Array, atrophy: float) -> Array:
    """Lateral ventricles with their horns, third and fourth ventricle; wider with atrophy, a little uneven."""
    width = (4.5 + 5.5 * atrophy) * rng.uniform(0.85, 1.2)
    total = np.zeros_like(x)
    for side in (-1, 1):
        u, size = side * x, width * rng.uniform(0.88, 1.12)
        body = 1 - np.sqrt(np.square((u - 5 - 0.0042 * np.square(y - 2)) / size) + np.square(y / 36)
                           + np.square((z - 12 - 0.003 * np.square(y)) / (1.3 * size + 3)))  # fmt: skip
        horn = 1 - np.sqrt(np.square((u - 26) / (0.8 * size + 1)) + np.square((y - 24) / 15) + np.square((z + 2) / 12))
        total = np.maximum(total, np.maximum(edge(body, 0.35), 0.8 * edge(horn, 0.5)))
    third = bump(x, 1.5 + 1.5 * atrophy) * edge(14 - np.abs(y - 4), 6) * edge(12 - np.abs(z + 2), 6)
    fourth = edge(1 - np.sqrt(np.square(x / 7) + np.square((y - 26) / 6) + np.square((z + 36) / 9)), 0.5)
    return np.maximum.reduce([total, 0.8 * third, fourth])


def _nuclei(rng: np.random.Generator, x: Array, y: Array, z: Array) -> Array:
    """Thalamus, lentiform and caudate nucleus, as grey as their iron lets them be."""
    total = np.zeros_like(x)
    for at, size in (((10, 8, 6), (8, 14, 10)), ((24, -8, 2), (7, 15, 10)), ((13, -20, 10), (5, 9, 11))):
        at = np.asarray(at) * rng.normal(1, 0.04, 3)
        gap = ball((np.abs(x) - at[0]) / size[0], (y - at[1]) / size[1], (z - at[2]) / size[2])
        total = np.maximum(total, 0.75 * edge(gap - 0.15, 0.4))
    return total


def _labels(tumour: Tumour, inside: Array) -> Array:
    """The mask as a rater draws it: a voxel belongs to what fills half of it."""
    labels = np.zeros(SHAPE, np.uint8)
    labels[tumour.whole >= 0.5] = OEDEMA
    labels[tumour.core >= 0.5] = NECROSIS
    labels[(tumour.core >= 0.5) & (tumour.hollow < 0.5)] = ENHANCING
    return labels * inside


def _infiltrate(rng: np.random.Generator, tissues: dict[str, Array], tumour: Tumour) -> dict[str, Array]:
    """The tumour displaces healthy tissue; oedema leaves the ventricles open. Mimics join: scars and vessels."""
    oedema = (tumour.whole - tumour.core) * (1 - 0.85 * tissues["fluid"]) * rng.uniform(0.65, 1.0)
    oedema = oedema * np.clip(0.85 + 0.2 * smooth_noise(rng, SHAPE, (7, 14, 14)), 0.3, 1)
    healthy = 1 - oedema - tumour.core
    scars = _scars(rng, tissues) * healthy
    vessels = 0.8 * _vessels(rng, tissues) * healthy
    rest = healthy - np.minimum(scars + vessels, healthy)
    mixture = {name: share * rest for name, share in tissues.items()}
    return mixture | {"oedema": oedema, "enhancing": tumour.enhancing, "scar": scars, "vessel": vessels,
                      "solid" if tumour.solid else "necrosis": tumour.core * tumour.hollow}  # fmt: skip


def _scars(rng: np.random.Generator, tissues: dict[str, Array]) -> Array:
    """White-matter hyperintensities of age: caps around the ventricles and patches, bright on FLAIR like oedema."""
    burden = rng.beta(1.0, 2.2)
    near = gaussian_filter(tissues["fluid"], (0.8, 2.2, 2.2)) * (1 - tissues["fluid"])
    patches = edge(smooth_noise(rng, SHAPE, (8, 15, 15)) - 2.3 + 1.0 * burden, 0.5)
    caps = edge(near + 0.10 * smooth_noise(rng, SHAPE, (6, 12, 12)) - 0.42 + 0.20 * burden, 0.2)
    return np.clip(0.9 * patches + burden * caps, 0, 0.95) * tissues["white"]


def _vessels(rng: np.random.Generator, tissues: dict[str, Array]) -> Array:
    """Thin crossings of two noise sheets, mostly in the sulci: vessels and dura, bright after contrast."""
    first, second = smooth_noise(rng, SHAPE, (6, 10, 10)), smooth_noise(rng, SHAPE, (6, 10, 10))
    lines = bump(first, 0.16) * bump(second, 0.16)
    return lines * (0.25 + 0.75 * edge(tissues["fluid"] - 0.2, 0.4))


def _scan(rng: np.random.Generator, mixture: dict[str, Array], tumour: Tumour, inside: Array) -> dict[str, Array]:
    """One scanner's four channels: contrast, bias field, resolution, misregistration, Rician noise, arbitrary units."""
    names = list(mixture)
    jitter = np.exp(rng.normal(0, 0.06, (len(names), len(CHANNELS))))
    memberships = np.stack([mixture[name] for name in names])
    weights = np.array([CONTRAST[name] for name in names]) * jitter
    uptake = rng.uniform(0.72, 1.1)  # how much contrast agent the tumour took up
    if "enhancing" in mixture:
        weights[names.index("enhancing"), CHANNELS.index("t1ce")] *= uptake
    images = np.tensordot(weights.T.astype(np.float32), memberships, axes=1)
    sigma, reference = rng.uniform(0.02, 0.065), rng.uniform(150, 900)
    channels = {}
    for name, image in zip(CHANNELS, images, strict=True):
        grain, texture = (smooth_noise(rng, SHAPE, (9, cells, cells)) for cells in (22, 18))
        image = image * (1 + 0.10 * tumour.whole * texture + 0.03 * grain)
        image = gaussian_filter(image, (rng.uniform(0.1, 0.4), *[rng.uniform(0.3, 0.75)] * 2))
        if name != "t1":  # the others were registered to it, not quite
            image = shift(image, (0, *rng.normal(0, 0.25, 2)), order=1, mode="nearest")
        image = image * np.exp(rng.uniform(0.05, 0.18) * smooth_noise(rng, SHAPE, (1, 2, 2)))
        real, imaginary = sigma * rng.standard_normal((2, *SHAPE), np.float32)
        image = np.hypot(image + real, imaginary) ** rng.uniform(0.9, 1.12)
        stored = np.round(image * reference * np.exp(rng.normal(0, 0.45)))
        channels[name] = np.where(inside, np.clip(stored, 1, 32000), 0).astype(np.int16)
    return channels
