"""The left ventricle in the apical four-chamber view: its contour through the beat, and the volumes that follow.

Heart coordinates, in pixels: u from the apex along the long axis to the mitral valve, v across it, negative towards
the septum. `squeeze` is 0 at end-diastole and 1 at end-systole.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from medssl.phantom.shapes import Array, curve

CHORDS = 20
"""Discs of the method of discs (single plane), as traced in EchoNet-Dynamic."""


@dataclass(frozen=True)
class Ventricle:
    apex: tuple[float, float]
    """(x, y) in pixels, x to the right, y downwards."""

    angle: float
    """Of the long axis against the picture's vertical, radians, positive to the right."""

    length: float
    radius: float
    """At end-diastole, pixels."""

    waist: float
    """Where the ventricle is widest, as a share of its length from the apex."""

    lean: float
    wave: float
    """How the lateral wall's outline differs from the septum's."""

    apical: float
    """How much more the apex contracts than the base; negative where the apex is weak."""

    inward: float
    shortening: float
    """Contraction of the width (share, before `apical`) and of the length (share), at end-systole."""

    def half_width(self, s: Array, side: Array | float) -> Array:
        """Pixels from the axis to the wall at end-diastole, at s = 0 (apex) .. 1 (valve); side -1 septal, 1 lateral."""
        above = np.clip((self.waist - s) / self.waist, 0, 1)
        below = np.clip((s - self.waist) / (1 - self.waist), 0, 1)
        profile = np.sqrt(1 - np.square(above)) * (1 - 0.24 * np.square(below))
        return self.radius * profile * (1 + side * (self.lean + self.wave * (s - 0.5)))

    def narrowing(self, s: Array, squeeze: Array | float) -> Array:
        """Width now as a share of the width at end-diastole."""
        return 1 - squeeze * self.inward * (1 + self.apical * (0.5 - s))

    def current_length(self, squeeze: Array | float) -> Array:
        return self.length * (1 - squeeze * self.shortening)

    def to_heart(self, x: Array, y: Array) -> tuple[Array, Array]:
        """Picture (x, y) -> (u, v)."""
        x, y = x - self.apex[0], y - self.apex[1]
        sine, cosine = np.sin(self.angle), np.cos(self.angle)
        return sine * x + cosine * y, cosine * x - sine * y

    def to_picture(self, u: Array, v: Array) -> Array:
        """(u, v) -> (n, 2) of (x, y)."""
        sine, cosine = np.sin(self.angle), np.cos(self.angle)
        return np.stack([self.apex[0] + sine * u + cosine * v, self.apex[1] + cosine * u - sine * v], axis=-1)

    def cavity(self, u: Array, v: Array, squeeze: float) -> Array:
        """True inside the blood pool."""
        s = u / self.current_length(squeeze)
        wall = self.half_width(s, np.sign(v)) * self.narrowing(s, squeeze)
        return (s > 0) & (s < 1) & (np.abs(v) < wall)

    def at_rest(self, u: Array, v: Array, squeeze: Array) -> tuple[Array, Array]:
        """Where the tissue now at (u, v) was at end-diastole.

        Blood stretches with the cavity. The muscle keeps its area (v² changes by the same amount everywhere outside
        the cavity), so it thickens as it moves inwards, and what is far away hardly moves.
        """
        now = self.current_length(squeeze)
        s = np.clip(u / now, 0, 1)
        at_rest = self.half_width(s, np.where(v < 0, np.float32(-1), np.float32(1)))
        wall = at_rest * self.narrowing(s, squeeze)
        across = np.abs(v)
        outside = np.sqrt(np.square(across) + np.square(at_rest) - np.square(wall))
        inside = across * at_rest / np.maximum(wall, np.float32(1e-3))
        along = np.where(u > now, u + (self.length - now), np.where(u > 0, s * np.float32(self.length), u))
        return along, np.copysign(np.where(across < wall, inside, outside), v)

    def tracing(self, squeeze: float, offset: tuple[float, float]) -> Array:
        """(21, 4) of x1, y1, x2, y2: the long axis from the apex, then the chord in the middle of each disc."""
        length = float(self.current_length(squeeze))
        s = (np.arange(CHORDS) + 0.5) / CHORDS
        ends = [side * self.half_width(s, side) * self.narrowing(s, squeeze) for side in (-1.0, 1.0)]
        axis = self.to_picture(np.array([0.0, length]), np.zeros(2)).reshape(1, 4)
        chords = np.concatenate([self.to_picture(s * length, end) for end in ends], axis=1)
        return np.concatenate([axis, chords]) + np.tile(offset, 2)


def disc_volume(tracing: Array, mm: float) -> float:
    """Millilitres by the method of discs from one frame's tracing (21, 4) in pixels of `mm` millimetres."""
    lengths = np.hypot(tracing[:, 2] - tracing[:, 0], tracing[:, 3] - tracing[:, 1]) * mm
    return float(np.pi / 4 * np.sum(np.square(lengths[1:])) * lengths[0] / (len(tracing) - 1) / 1000)


def draw_ventricle(rng: np.random.Generator, fraction: float, axis: tuple[float, float], angle: float, length: float,
                   ratio: float) -> Ventricle:  # fmt: skip
    """A ventricle that ejects `fraction` (0..1) of its volume; `axis` is its apex, `ratio` radius over length."""
    shape = {
        "apex": axis,
        "angle": angle,
        "length": length,
        "radius": length * ratio,
        "waist": float(rng.uniform(0.52, 0.72)),
        "lean": float(rng.normal(0, 0.07)),
        "wave": float(rng.normal(0, 0.14)),
        "apical": float(np.clip(rng.normal(0.15, 0.30 if fraction > 0.5 else 0.5), -0.7, 0.7)),
    }
    shortening = float(np.clip(fraction * rng.normal(0.29, 0.05), 0.02, 0.30))
    still = Ventricle(**shape, inward=0.0, shortening=0.0)
    s = (np.arange(CHORDS) + 0.5) / CHORDS
    weight = np.square(still.half_width(s, -1.0) + still.half_width(s, 1.0))
    weight, motion = weight / weight.sum(), 1 + shape["apical"] * (0.5 - s)
    # sum weight (1 - inward motion)^2 (1 - shortening) = 1 - fraction, the smaller root
    a, b = np.sum(weight * motion**2), np.sum(weight * motion)
    c = 1 - (1 - fraction) / (1 - shortening)
    inward = float((b - np.sqrt(max(b * b - a * c, 0.0))) / a)
    return Ventricle(**shape, inward=inward, shortening=shortening)


def beat(phase: Array, systole: float) -> tuple[Array, Array]:
    """(squeeze, opening of the mitral valve), each 0..1, at phases 0..1 of a beat that starts at end-diastole."""
    late = systole + 0.06
    fill = min(late + 0.22, 0.80)
    squeeze = curve(phase, [(0, 0), (0.05, 0.03), (0.6 * systole, 0.68), (systole, 1), (late, 0.97), (fill, 0.28),
                            (0.86, 0.20), (0.96, 0.02), (1, 0)])  # fmt: skip
    opening = curve(phase, [(0, 0.12), (0.03, 0), (late, 0), (late + 0.08, 1), (fill, 0.45), (0.84, 0.35), (0.91, 0.8),
                            (1, 0.12)])  # fmt: skip
    return squeeze, opening
