"""How ultrasound sees the heart: a map of echoes at rest, its speckle carried along by the tissue, and the fan.

Everything is computed on the beam's own grid, (T, R, W): time, depth, beam angle. Speckle is the length of a complex
Gaussian field times the local echo strength; the picture is its logarithm, converted to pixels at the end.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter
from scipy.sparse import csr_array

from medssl.phantom.heart.ventricle import Ventricle
from medssl.phantom.shapes import Array, ball, bump, edge, smooth_noise

SIZE = 112
DEPTHS, BEAMS = 100, 78
LOW, HIGH, PER_PIXEL = (-22.0, -78.0), (116.0, 78.0), 2
"""The map at rest: its range in (u, v), and its cells to a pixel."""


@dataclass(frozen=True)
class Sector:
    """The fan: where its tip is, how far it reaches (pixels), half its opening (radians)."""

    tip: tuple[float, float]
    reach: float
    opening: float

    def grid(self) -> tuple[Array, Array]:
        """Picture (x, y) of the beam samples, each (R, W) float32."""
        depth = np.linspace(0.02, 1, DEPTHS, dtype=np.float32)[:, None] * self.reach
        angle = np.linspace(-1, 1, BEAMS, dtype=np.float32)[None, :] * self.opening
        return np.float32(self.tip[0]) + depth * np.sin(angle), np.float32(self.tip[1]) + depth * np.cos(angle)

    def to_picture(self, beams: Array) -> Array:
        """(T, R, W) -> (T, J, I), bilinear; 0 outside the fan."""
        j, i = np.mgrid[:SIZE, :SIZE].astype(np.float32)
        i, j = (i - self.tip[0]).ravel(), (j - self.tip[1]).ravel()
        row = (np.hypot(i, j) / self.reach - 0.02) / 0.98 * (DEPTHS - 1)
        column = (np.arctan2(i, j) / self.opening + 1) / 2 * (BEAMS - 1)
        shown = np.flatnonzero((row >= 0) & (row < DEPTHS - 1) & (column >= 0) & (column < BEAMS - 1))
        row, column = row[shown], column[shown]
        first, left = row.astype(int), column.astype(int)
        down, right = row - first, column - left
        cells = [((first + dj) * BEAMS + left + di, np.abs(1 - dj - down) * np.abs(1 - di - right))
                 for dj in (0, 1) for di in (0, 1)]  # fmt: skip
        pixel = np.tile(shown, 4)
        sample, share = (np.concatenate(part) for part in zip(*cells, strict=True))
        convert = csr_array((share.astype(np.float32), (pixel, sample)), shape=(SIZE * SIZE, DEPTHS * BEAMS))
        flat = convert @ np.ascontiguousarray(beams.reshape(len(beams), -1).T)
        return np.ascontiguousarray(flat.T).reshape(-1, SIZE, SIZE)


def rest_map(heart: Ventricle, rng: np.random.Generator) -> tuple[Array, Array]:
    """Echo strength of the heart at end-diastole, and complex scatterers, both over the range LOW..HIGH."""
    shape = tuple(int((high - low) * PER_PIXEL) for low, high in zip(LOW, HIGH, strict=True))
    u = (LOW[0] + np.arange(shape[0], dtype=np.float32) / PER_PIXEL)[:, None]
    v = (LOW[1] + np.arange(shape[1], dtype=np.float32) / PER_PIXEL)[None, :]
    length, radius = heart.length, heart.radius
    wall = length * rng.uniform(0.10, 0.145)
    inner = _outline(heart, u, v, 0.0)
    outer = _outline(heart, u, v, wall)
    base = edge(length + 2 - u, 3)
    muscle = edge(outer, 1.5) * base
    left_size, right_size = rng.uniform(0.85, 1.25, 2)
    atrium = np.sqrt(ball((u - length - 0.30 * length) / (0.33 * length), (v - 1) / (1.15 * left_size * radius)))
    right = -(radius * (1 + rng.uniform(0.55, 0.8)) + wall)
    chamber = np.sqrt(ball((u - 0.60 * length) / (0.50 * length), (v - right) / (0.85 * radius + 0.12 * u)))
    auricle = np.sqrt(ball((u - length - 0.27 * length) / (0.30 * length), (v - right) / (1.05 * right_size * radius)))
    lung = 0.045 + 0.03 * smooth_noise(rng, shape, (7, 7)) + 0.02 * smooth_noise(rng, shape, (16, 16))
    lung = lung * (1 + 1.5 * edge(v - radius, 15) * edge(length - u, 25))
    rim = [edge(room + 0.05 * smooth_noise(rng, shape, (9, 9)), 0.3) for room in (atrium, chamber, auricle)]
    shell = np.maximum.reduce([bump(room - 0.22, 0.14) for room in (atrium, chamber, auricle)])
    strength = np.clip(lung, 0.012, 1)
    strength = np.maximum(strength, 0.34 * np.maximum.reduce(rim) * (np.broadcast_to(u, shape) < 2.0 * length))
    strength = np.maximum(strength, 0.30 * shell)
    for room in (chamber, auricle, atrium):
        strength = strength * (1 - 0.96 * edge(room - 0.42, 0.2))
    strength = strength * (1 - muscle) + muscle * (0.32 + 0.06 * smooth_noise(rng, shape, (10, 10)))
    strength += 0.40 * bump(outer + 0.5, 1.0) * base * edge(v, 4) + 0.14 * bump(inner + 0.8, 1.2) * base
    strength *= 1 - 0.97 * edge(inner, 1.6) * edge(length - u, 1.5)
    for side in (-1.0, 1.0):  # the fibrous ring of the mitral valve
        hinge = side * float(heart.half_width(np.float32(1), side))
        strength += 0.55 * bump(np.hypot(u - length, v - hinge), 2.0)
    # papillary muscle and trabeculae on the lateral wall make the true border hard to see
    strength += 0.16 * bump(u - 0.55 * length, 5) * bump(inner - rng.uniform(1.0, 3.0), 1.6) * edge(v, 2) * rng.random()
    scatterers = rng.standard_normal((2, *shape), np.float32)
    scatterers = gaussian_filter(scatterers, (0, 1.2, 1.7)) * np.float32(3.8)
    return gaussian_filter(strength, 1.2), scatterers[0] + 1j * scatterers[1]


def _outline(heart: Ventricle, u: Array, v: Array, margin: float) -> Array:
    """Pixels inside (> 0) the ventricle's outline at rest, widened by `margin`."""
    s = np.clip((u + margin) / (heart.length + margin), 0, 1)
    reach = heart.half_width(s, np.where(v < 0, np.float32(-1), np.float32(1))) * (1 + margin / heart.radius)
    return np.minimum(reach - np.abs(v), u + margin)


def film(heart: Ventricle, sector: Sector, squeeze: Array, opening: Array, drift: Array,
         rng: np.random.Generator) -> Array:  # fmt: skip
    """(T, J, I) uint8: the clip.

    squeeze, opening: (T,) from `beat`. drift: (T, 2), how far the heart is from its place, pixels (x, y).
    """
    x, y = sector.grid()
    x, y = x[None] - drift[:, 0, None, None], y[None] - drift[:, 1, None, None]
    u, v = heart.to_heart(x, y)
    now = squeeze.astype(np.float32)[:, None, None]
    along, across = heart.at_rest(u, v, now)
    strength, scatterers = rest_map(heart, rng)
    rows = np.clip((along - LOW[0]) * PER_PIXEL, 0, strength.shape[0] - 1).astype(np.int32)
    columns = np.clip((across - LOW[1]) * PER_PIXEL, 0, strength.shape[1] - 1).astype(np.int32)
    place = rows * np.int32(strength.shape[1]) + columns
    echo = np.take((strength * scatterers).astype(np.complex64), place)
    echo += _leaflets(heart, u, v, now, opening.astype(np.float32)[:, None, None]) * np.take(scatterers, place)
    return _develop(sector, echo * _window(rng), rng)


def _leaflets(heart: Ventricle, u: Array, v: Array, squeeze: Array, opening: Array) -> Array:
    """Echo of the two mitral leaflets: from the ring to the middle when shut, into the ventricle when open."""
    rest = u[0] / heart.length, np.abs(v[0]) / heart.radius
    near = (rest[0] > 0.5) & (rest[0] < 1.2) & (rest[1] < 1.5)  # nowhere else can a leaflet be
    total = np.zeros_like(u)
    u, v, squeeze, opening = u[:, near], v[:, near], squeeze[:, :, 0], opening[:, :, 0]
    ring = heart.current_length(squeeze)
    for side, size in ((-1.0, 0.30), (1.0, 0.22)):
        hinge = side * np.float32(heart.half_width(np.float32(1), side)) * heart.narrowing(np.float32(1), squeeze)
        tip_u = ring + 2.5 - opening * np.float32(size * heart.length + 2.5)
        tip_v = hinge * (0.02 + 0.55 * opening)
        du, dv = tip_u - ring, tip_v - hinge
        t = np.clip(((u - ring) * du + (v - hinge) * dv) / (du * du + dv * dv), 0, 1)
        gap = np.square(u - ring - t * du) + np.square(v - hinge - t * dv)
        total[:, near] += np.float32(0.5) * np.clip(1 - gap / np.float32(3.2), 0, 1)
    return total


def _window(rng: np.random.Generator) -> Array:
    """(R, W): what the chest wall lets through. Shadows of ribs and lung, walls that drop out, loss with depth."""
    depth, angle = np.linspace(0, 1, DEPTHS, dtype=np.float32)[:, None], np.linspace(-1, 1, BEAMS, dtype=np.float32)
    decibel = 5.0 * smooth_noise(rng, (DEPTHS, BEAMS), (5, 6)) + 3.0 * smooth_noise(rng, (1, BEAMS), (1, 9))
    decibel += rng.uniform(-9, 3) * depth - rng.uniform(0, 10) * np.abs(angle) ** 3
    for _ in range(int(rng.integers(0, 3))):
        at, width = rng.choice([-1, 1]) * rng.uniform(0.35, 1.0), rng.uniform(0.04, 0.16)
        decibel -= rng.uniform(6, 22) * bump(angle - at, width) * edge(depth - rng.uniform(0, 0.35), 0.1)
    return np.float32(10) ** (decibel / 20)


def _develop(sector: Sector, echo: Array, rng: np.random.Generator) -> Array:
    """Beam width, noise floor, log compression, persistence, and the fan."""
    for _ in range(2):
        echo[:, :, 1:-1] = 0.25 * echo[:, :, :-2] + 0.5 * echo[:, :, 1:-1] + 0.25 * echo[:, :, 2:]
    depth = np.linspace(0, 1, DEPTHS, dtype=np.float32)[:, None]
    floor = rng.uniform(0.002, 0.009) * (1 + 1.5 * depth)
    noise = rng.standard_normal((2, *echo.shape), np.float32)
    power = np.square(echo.real + floor * noise[0]) + np.square(echo.imag + floor * noise[1])
    clutter = rng.uniform(0.0, 0.10) * np.exp(-depth * rng.uniform(7, 14))
    power = power + np.square(clutter)
    span, gain = rng.uniform(36, 52), rng.normal(4, 3.5)
    shown = np.clip((10 * np.log10(power + 1e-9) + span - 9 + gain) / span, 0, 1)
    shown[1:] = 0.65 * shown[1:] + 0.35 * shown[:-1]
    picture = sector.to_picture(shown) ** rng.uniform(0.9, 1.5)
    return np.round(255 * np.clip(picture, 0, 1)).astype(np.uint8)
