"""One lung in the frontal view: how much air is in the beam, and what the findings do to it."""

from __future__ import annotations

import numpy as np

from medssl.phantom.chest.patient import Anatomy, Illness, Pose
from medssl.phantom.shapes import Array, Field, bend, bump, curve, edge, smooth_noise
from medssl.rng import stream

HILUM = (0.15, -0.03)
"""(u, y) of the root of the lung; u runs outwards from the midline on either side."""


def lung(
    anatomy: Anatomy, illness: Illness, pose: Pose, field: Field, side: int, x: Array, y: Array
) -> tuple[Array, Array, Array]:
    """One lung: its air 0..1, what its markings add to the absorbance where there is air, and lines on its surface."""
    rng = stream(*pose.key, "lung", side)
    u = side * (x - 0.02 * pose.yaw)
    wall, collapse, edema = anatomy.half_width(y), illness.of("Atelectasis", side), illness.of("Edema", side)
    dome = anatomy.diaphragm + 0.045 * pose.breath - 0.05 * pose.ap + (0.025 if side > 0 else -0.025)
    dome = dome - 0.20 * collapse + rng.normal(0, 0.02)
    floor = dome + 0.20 * np.clip((u - 0.34) / 0.34, 0, 1.4) ** 2.4 + 0.05 * np.clip((0.36 - u) / 0.34, 0, 1) ** 2
    inside = edge(wall - u, 0.03) * edge(u - 0.05, 0.05) * edge(floor - y, 0.028)
    recess = edge(wall - u, 0.05) * edge(u - 0.05, 0.05) * edge(floor + 0.16 - y, 0.22)  # lung behind the dome
    air = np.maximum(inside * (0.62 + 0.38 * np.clip((wall - u) / 0.28, 0, 1)), 0.13 * recess)

    fine, coarse = smooth_noise(rng, x.shape, (14, 14)), smooth_noise(rng, x.shape, (5, 5))
    filled = np.maximum.reduce([
        _haze(edema, pose, rng, u, y, coarse, fine),
        _patch(illness.of("Consolidation", side), anatomy, rng, u, y, coarse, fine),
        0.75 * collapse * bump(floor - y, 0.10 + 0.05 * collapse) * edge(u - 0.1, 0.2),
    ])  # fmt: skip
    fluid = _fluid(illness.of("Pleural Effusion", side), pose, rng, u, y, wall, floor, dome)
    air = air * (1 - np.clip(filled, 0, 0.92)) * (1 - fluid)

    markings = 0.36 * _vessels(anatomy, field, side) * (1 - 0.45 * edema) + _septa(edema, field, side, rng)
    markings += 0.045 * fine + 0.035 * (1 + 1.5 * edema) * smooth_noise(rng, x.shape, (34, 34))
    markings, line = _pneumothorax(illness.of("Pneumothorax", side), u, y, wall, anatomy, markings)
    root = bump(u - HILUM[0] - 0.02, 0.05) * bump(y - HILUM[1], 0.10 + 0.03 * edema)
    surface = (rng.uniform(0.2, 0.48) + 0.18 * edema) * root + line + _plates(collapse, field, side, rng, dome)
    surface += _nodules(illness.of("Lung Lesion", side), rng, u, y, anatomy)
    peel = 0.3 * illness.of("Pleural Other", side) * bump(wall - u - 0.03, 0.03) * edge(y + 0.2, 0.4)
    return air, markings, surface * inside + peel


def _haze(severity: float, pose: Pose, rng: np.random.Generator, u: Array, y: Array, coarse: Array,
          fine: Array) -> Array:  # fmt: skip
    """Edema fills the air about the hilum; crowded vessels veil every lung a little, the more the less it is filled."""
    reach = np.hypot(u - HILUM[0], 0.8 * (y - HILUM[1]))
    wings = bump(reach, 0.26 + 0.12 * severity) * np.clip(1 + 0.3 * coarse + 0.25 * fine, 0.2, 2)
    veil = 0.08 + 0.06 * smooth_noise(rng, u.shape, (2, 2)) - 0.04 * pose.breath
    return 0.52 * severity * wings + np.maximum(veil, 0)


def _fluid(severity: float, pose: Pose, rng: np.random.Generator, u: Array, y: Array, wall: Array, floor: Array,
           dome: float) -> Array:  # fmt: skip
    """Share of the air that an effusion takes: a meniscus when upright, a veil over the lung when lying."""
    lying = rng.uniform(0.2, 0.8) if pose.ap else rng.uniform(0.0, 0.15)
    if severity <= 0:
        return np.zeros_like(u)
    level = dome + 0.20 - (0.10 + 0.50 * severity)
    meniscus = level + 0.13 * np.clip((wall - u) / 0.42, 0, 1.3) ** 1.5 * (1 + severity)
    pool = edge(y - meniscus, 0.05) * edge(floor + 0.22 - y, 0.1)
    veil = 0.60 * severity**0.8 * edge(y - dome + 0.5, 0.9)
    return np.clip((1 - 0.6 * lying) * pool + lying * veil, 0, 0.97)


def _patch(severity: float, anatomy: Anatomy, rng: np.random.Generator, u: Array, y: Array, coarse: Array,
           fine: Array) -> Array:  # fmt: skip
    """Consolidation: a cloud with an uneven border, cut straight where it meets a fissure."""
    centre = (rng.uniform(0.28, 0.55) * anatomy.thorax / 0.7, rng.choice([-0.32, 0.02, 0.26], p=[0.25, 0.3, 0.45]))
    size = (0.12 + 0.16 * severity) * rng.uniform(0.8, 1.2)
    below = rng.random() < 0.5
    if severity <= 0:
        return np.zeros_like(u)
    cloud = edge(1.15 - np.hypot((u - centre[0]) / size, (y - centre[1]) / (0.85 * size)) + 0.28 * coarse, 0.9)
    fissure = edge((y - centre[1] + 0.25 * size) * (1 if below else -1) + 0.5 * size * (not below), 0.03)
    return (0.30 + 0.45 * severity) * cloud * (0.35 + 0.65 * fissure) * np.clip(1 + 0.30 * fine, 0.2, 1.6)


def _plates(severity: float, field: Field, side: int, rng: np.random.Generator, dome: float) -> Array:
    """Plate-like atelectasis: short bands across the base."""
    lines = []
    for _ in range(1 + int(rng.random() < severity) if severity > 0 else 0):
        at, tilt = dome - rng.uniform(0.05, 0.16), rng.uniform(-0.25, 0.25)
        start, stop = sorted(rng.uniform(0.15, 0.62, 2))
        stop = max(stop, start + 0.16)
        middle = (start + stop) / 2
        path = bend([(side * start, at), (side * middle, at + tilt * 0.1 + 0.01), (side * stop, at + tilt * 0.2)])
        lines.append((path, rng.uniform(0.014, 0.03), 0.5 + 0.5 * rng.random()))
    return 0.42 * severity * field.strokes(lines)


def _nodules(severity: float, rng: np.random.Generator, u: Array, y: Array, anatomy: Anatomy) -> Array:
    total = np.zeros_like(u)
    if severity <= 0:
        return total
    for _ in range(int(rng.choice([1, 1, 1, 2, 3]))):
        radius = (0.03 + 0.07 * severity) * rng.uniform(0.8, 1.2)
        centre = rng.uniform(0.22, 0.85 * anatomy.thorax), rng.uniform(-0.42, 0.30)
        angle = np.arctan2(y - centre[1], u - centre[0])
        lobed = radius * (1 + 0.12 * np.sin(3 * angle + rng.uniform(0, 6)) + 0.08 * np.sin(7 * angle))
        gap = np.hypot(u - centre[0], y - centre[1])
        total += (0.20 + 0.40 * severity) * edge(lobed - gap, 0.035) * (0.75 + 0.25 * np.clip(1 - gap / radius, 0, 1))
    return total


def _pneumothorax(severity: float, u: Array, y: Array, wall: Array, anatomy: Anatomy,
                  markings: Array) -> tuple[Array, Array]:  # fmt: skip
    """Beyond the visceral line there is air without markings; the gap is widest at the apex."""
    if severity <= 0:
        return markings, np.zeros_like(u)
    gap = (0.04 + 0.28 * severity) * curve(y, [(anatomy.apex, 1.25), (-0.2, 0.7), (0.3, 0.45 * severity), (0.6, 0.2)])
    beyond = edge(u - (wall - gap), 0.02)
    return markings * (1 - beyond) - 0.10 * beyond, 0.13 * bump(u - (wall - gap), 0.008)


def _septa(severity: float, field: Field, side: int, rng: np.random.Generator) -> Array:
    """Kerley B lines: short and horizontal at the lateral base."""
    lines = []
    for _ in range(7 if severity > 0 else 0):
        start, at = rng.uniform(0.52, 0.60), rng.uniform(0.05, 0.45)
        lines.append((np.array([(side * start, at), (side * (start + 0.08), at + 0.005)]), 0.006, 1.0))
    return 0.10 * severity * field.strokes(lines)


def _vessels(anatomy: Anatomy, field: Field, side: int) -> Array:
    """The patient's own tree of vessels, forking three times on its way out from the hilum."""
    rng = stream(*anatomy.key, "vessels", side)
    angle = rng.normal(np.linspace(-1.45, 1.5, 9), 0.12)
    at = np.stack([np.full(9, HILUM[0]), HILUM[1] + np.linspace(-0.06, 0.08, 9)], axis=1)
    width, length = 0.026, 0.27
    lines: list[tuple[Array, float, float]] = []
    for _ in range(4):
        half = 0.5 * length * rng.uniform(0.8, 1.2, (len(angle), 1))
        turned = angle + rng.normal(0, 0.18, len(angle))
        middle = at + half * np.stack([np.cos(angle), np.sin(angle)], axis=1)
        tip = middle + half * np.stack([np.cos(turned), np.sin(turned)], axis=1)
        paths = np.stack([at, middle, tip], axis=1) * (side, 1)
        lines = [(path, width, 0.25 + 22 * width) for path in paths] + lines  # thick ones cover thin ones
        fork = rng.normal(0.35, 0.1, (2, len(angle)))
        at, angle = np.tile(tip, (2, 1)), np.concatenate([turned + fork[0], turned - fork[1]])
        width, length = 0.64 * width, 0.70 * length
    return field.strokes(lines)
