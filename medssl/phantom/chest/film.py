"""From absorbance to a picture: scatter, quantum noise, blur, the display curve, the collimator and the markers."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import gaussian_filter

from medssl.phantom.shapes import Array, strokes

GLYPHS: dict[str, list[list[tuple[float, float]]]] = {
    "L": [[(0, 0), (0, 1), (0.6, 1)]],
    "R": [[(0, 1), (0, 0), (0.6, 0.05), (0.6, 0.45), (0, 0.5), (0.65, 1)]],
    "A": [[(0, 1), (0.35, 0), (0.7, 1)], [(0.15, 0.65), (0.55, 0.65)]],
    "P": [[(0, 1), (0, 0), (0.6, 0.05), (0.6, 0.5), (0, 0.55)]],
    "E": [[(0.6, 0), (0, 0), (0, 1), (0.6, 1)], [(0, 0.5), (0.5, 0.5)]],
    "T": [[(0, 0), (0.7, 0)], [(0.35, 0), (0.35, 1)]],
}
"""Strokes of the few capitals that markers need, in a box of 0.7 by 1."""


def expose(absorbance: Array, rng: np.random.Generator, ap: bool) -> Array:
    """(J, I) absorbance -> (J, I) in 0..1, bright where little came through, as it is displayed."""
    size = absorbance.shape[0]
    dose = np.exp(-absorbance * rng.uniform(0.9, 1.12))
    scatter = rng.uniform(0.04, 0.12) * (1.6 if ap else 1.0)
    dose = dose + scatter * _veil(dose)
    blur = rng.uniform(0.35, 0.7) + (rng.uniform(0, 0.5) if ap else 0.0)
    dose = gaussian_filter(dose, blur * size / 160)
    quanta = rng.uniform(0.012, 0.035) * (1.3 if ap else 1.0)
    grain = rng.standard_normal(dose.shape, np.float32)
    density = -np.log(np.maximum(dose + quanta * grain * np.sqrt(dose * 0.15), 1e-4))
    field = _collimator(rng, size)
    low, high = np.quantile(density[10:-10, 10:-10], [0.04, 0.97])
    low, high = low + rng.normal(-0.10, 0.12), high + rng.normal(0.12, 0.15)
    shown = np.clip((density - low) / (high - low), 0, 1.2) ** np.exp(rng.normal(-0.05, 0.22))
    shown = shown / (1 + np.maximum(shown - 0.75, 0) * 0.5) * rng.uniform(0.86, 1.0) + rng.uniform(0.0, 0.06)
    shown = np.maximum(shown * field, rng.uniform(0.0, 0.05))
    return np.clip(np.maximum(shown, _markers(rng, size, ap)), 0, 1)


def _veil(dose: Array) -> Array:
    """The scattered radiation: very smooth, so computed on every fourth pixel."""
    coarse = gaussian_filter(dose[::4, ::4], dose.shape[0] / 40, mode="nearest")
    return np.repeat(np.repeat(coarse, 4, 0), 4, 1)[: dose.shape[0], : dose.shape[1]]


def _collimator(rng: np.random.Generator, size: int) -> Array:
    """1 inside the collimated field; every third picture shows a border."""
    if rng.random() > 0.35:
        return np.ones((size, size), np.float32)
    axis = np.linspace(-1, 1, size, dtype=np.float32)
    angle = rng.normal(0, 0.03)
    i, j = axis[None, :] + angle * axis[:, None], axis[:, None] - angle * axis[None, :]
    edges = 1 - np.abs(rng.normal(0, 0.07, 4)) * (rng.random(4) < 0.6)
    inside = (i > -edges[0]) & (i < edges[1]) & (j > -edges[2]) & (j < edges[3])
    return inside.astype(np.float32)


def _markers(rng: np.random.Generator, size: int, ap: bool) -> Array:
    """A side marker, usually, and on portable pictures sometimes a word; (J, I) brightness."""
    lines = []
    if rng.random() < 0.75:
        letter = "L" if rng.random() < 0.65 else "R"
        at = np.array([0.90 if letter == "L" else 0.05, rng.uniform(0.03, 0.25)]) + rng.normal(0, 0.012, 2)
        lines += _word(letter, at * size, rng.uniform(0.035, 0.06) * size, rng.uniform(0.7, 1.0))
    if rng.random() < (0.4 if ap else 0.1):
        at = np.array([rng.choice([0.06, 0.80]), rng.uniform(0.03, 0.12)])
        word = str(rng.choice(["AP", "ERET", "TEPR", "PRE"] if ap else ["PA", "ERET", "TEPR", "PRE"]))
        lines += _word(word, at * size, 0.03 * size, rng.uniform(0.6, 1.0))
    return strokes((size, size), lines) if lines else np.zeros((size, size), np.float32)


def _word(text: str, at: Array, height: float, brightness: float) -> list[tuple[Array, float, float]]:
    return [(at + height * (np.array(line) + (0.95 * place, 0)), max(0.8, 0.14 * height), brightness)
            for place, letter in enumerate(text) for line in GLYPHS[letter]]  # fmt: skip
