"""The brushes that all phantoms are drawn with: soft edges, smooth noise, curves through points, strokes of a pen."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw
from scipy.interpolate import PchipInterpolator

Array = np.ndarray


def edge(distance: Array, width: float) -> Array:
    """0 outside, 1 inside, a smooth cubic in between: `distance` > 0 is inside, the ramp is `width` wide."""
    t = np.clip(distance / width + 0.5, 0.0, 1.0)
    return t * t * (3.0 - 2.0 * t)


def bump(distance: Array, width: float) -> Array:
    """A Gaussian ridge: 1 at distance 0, 0.61 at `width`."""
    return np.exp(-0.5 * np.square(distance / width))


def ball(*scaled: Array) -> Array:
    """1 at the centre falling to 0 on the surface of the unit ball, given coordinates divided by its half axes."""
    return np.clip(1.0 - sum(np.square(axis) for axis in scaled), 0.0, 1.0)


@lru_cache(maxsize=256)
def _spline_weights(points: int, cells: int) -> Array:
    """(points, cells + 3): uniform cubic B-spline weights of control values along one axis."""
    position = np.linspace(0.0, cells, points)
    cell = np.minimum(position.astype(int), cells - 1)
    t = position - cell
    four = np.stack([(1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3], axis=1) / 6.0
    weights = np.zeros((points, cells + 3), np.float32)
    np.put_along_axis(weights, cell[:, None] + np.arange(4), four.astype(np.float32), axis=1)
    weights.setflags(write=False)
    return weights


def smooth_noise(rng: np.random.Generator, shape: Sequence[int], cells: Sequence[int]) -> Array:
    """A smooth random field of `shape`, mean 0, variance about 1; `cells` says how many bumps fit along each axis."""
    field = rng.standard_normal([count + 3 for count in cells], np.float32)
    for axis, (points, count) in enumerate(zip(shape, cells, strict=True)):
        field = np.moveaxis(np.tensordot(_spline_weights(points, count), field, axes=(1, axis)), 0, axis)
    return np.ascontiguousarray(field) / np.float32(0.479 ** (len(shape) / 2))  # 0.479: mean of a row's summed squares


def curve(t: Array, knots: Sequence[tuple[float, float]]) -> Array:
    """A smooth curve through `knots` (t, value), without overshoot; constant beyond the ends."""
    at, value = np.asarray(knots, np.float32).T
    fine = np.linspace(at[0], at[-1], 193, dtype=np.float32)
    return np.interp(t, fine, PchipInterpolator(at, value)(fine)).astype(np.float32)


def strokes(shape: tuple[int, int], lines: Iterable[tuple[Array, float, float]]) -> Array:
    """(J, I) float32 in 0..1: antialiased polylines.

    lines: (points (n, 2) as (i, j) in pixels, width in pixels, brightness 0..1); later lines cover earlier ones.
    """
    scale = 3
    canvas = Image.new("L", (shape[1] * scale, shape[0] * scale))
    pen = ImageDraw.Draw(canvas)
    for points, width, brightness in lines:
        corners = (np.asarray(points) + 0.5) * scale
        thickness = max(1, round(width * scale))
        pen.line(corners.ravel().tolist(), fill=round(255 * brightness), width=thickness, joint="curve")
    return np.asarray(canvas.reduce(scale), np.float32) / 255.0


def bend(points: Sequence[tuple[float, float]], count: int = 24) -> Array:
    """(count, 2): a smooth path through `points`, for catheters and wires."""
    corners = np.asarray(points, float)
    at = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(corners, axis=0), axis=1))])
    return PchipInterpolator(at, corners)(np.linspace(0.0, at[-1], count))


class Field:
    """The canonical coordinates of a picture's pixels.

    x, y: (J, I) float32. `to_pixels` takes canonical points (n, 2) back to (i, j).
    """

    def __init__(self, size: int, angle: float, zoom: float, shift: tuple[float, float]) -> None:
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) / zoom
        self.size, self._back, self._shift = size, np.linalg.inv(turn).T, np.asarray(shift)
        axis = (np.arange(size, dtype=np.float32) + 0.5) * 2 / size - 1
        flat = np.stack(np.meshgrid(axis, axis)).reshape(2, -1)
        self.x, self.y = ((turn @ flat).astype(np.float32) + self._shift[:, None].astype(np.float32)).reshape(
            2, size, size
        )
        self.unit = size / 2 * zoom
        """Pixels to a canonical unit."""

    def to_pixels(self, points: Array) -> Array:
        flat = (np.asarray(points) - self._shift) @ self._back
        return (flat + 1) * self.size / 2 - 0.5

    def strokes(self, lines: list[tuple[Array, float, float]]) -> Array:
        """(J, I): lines of (canonical points, canonical width, brightness)."""
        if not lines:
            return np.zeros((self.size, self.size), np.float32)
        points, widths, brightness = zip(*lines, strict=True)
        pixels = np.split(self.to_pixels(np.concatenate(points)), np.cumsum([len(path) for path in points])[:-1])
        return strokes((self.size, self.size), zip(pixels, [w * self.unit for w in widths], brightness, strict=True))
