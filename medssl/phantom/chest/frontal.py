"""A chest as an X-ray beam meets it: the absorbance of every structure, summed along the beam.

Canonical coordinates: x in -1..1 from the patient's right to left (so to the right of the picture), y in -1..1
downwards; 1 is about 19 cm. A finding acts on the anatomy, not on the picture: fluid and heart fill air, a collapse
raises the diaphragm. What is written as a label is therefore what was drawn.
"""

from __future__ import annotations

import numpy as np

from medssl.phantom.chest.devices import devices
from medssl.phantom.chest.lung import lung
from medssl.phantom.chest.patient import Anatomy, Illness, Pose
from medssl.phantom.shapes import Array, Field, ball, bump, curve, edge, smooth_noise
from medssl.rng import stream


def frontal(anatomy: Anatomy, illness: Illness, pose: Pose, field: Field) -> Array:
    """(J, I) absorbance of a frontal view; 0 in open air, about 3 through the abdomen."""
    x, y = _wobble(anatomy, pose, field)
    soft = _torso(anatomy, x, y)
    heart, pedicle = _mediastinum(anatomy, illness, pose, x - 0.06 * pose.yaw, y)
    air, markings, surface = np.zeros_like(x), np.zeros_like(x), np.zeros_like(x)
    for side in (-1, 1):
        one_air, one_markings, one_surface = lung(anatomy, illness, pose, field, side, x, y)
        air, markings, surface = air + one_air, markings + one_markings, surface + one_surface
    open_air = air * (1 - 0.93 * np.maximum(heart, pedicle))
    below = edge(anatomy.diaphragm + 0.10 - y, 0.30)
    total = soft + surface + (markings - 1.15 * anatomy.aeration) * open_air
    total += (0.06 + 0.16 * below) * heart + 0.10 * pedicle
    total += _bones(anatomy, pose, x, y) + _airway(pose, x, y) + _abdomen(anatomy, x, y)
    total += _breasts(anatomy, x, y) + _fracture(anatomy, illness, pose, x, y)
    return np.maximum(total, 0) * edge(soft, 0.12) + devices(anatomy, illness, pose, field)


def _wobble(anatomy: Anatomy, pose: Pose, field: Field) -> tuple[Array, Array]:
    """No chest is symmetric: bends the coordinates a little, mostly the patient's own way."""
    shape = field.x.shape
    own, now = stream(*anatomy.key, "bend"), stream(*pose.key, "bend")
    bent = [0.014 * smooth_noise(own, shape, (3, 3)) + 0.007 * smooth_noise(now, shape, (3, 3)) for _ in range(2)]
    scoliosis = 0.03 * own.standard_normal() * np.sin(2.2 * field.y + own.uniform(0, 6))
    return field.x + bent[0] + scoliosis.astype(np.float32), field.y + bent[1]


def _torso(anatomy: Anatomy, x: Array, y: Array) -> Array:
    wall = 0.12 + 0.06 * anatomy.build
    side = anatomy.thorax + wall
    outline = curve(y, [(-1.5, 0.20), (-0.98, 0.19), (-0.86, 0.26), (-0.76, 0.60), (-0.66, side + 0.08),
                        (-0.45, side + 0.17), (-0.1, side + 0.10), (0.35, side), (1.5, side + 0.04)])  # fmt: skip
    depth = np.sqrt(np.clip(1 - np.square(x / outline), 0, 1))
    arm = ball((np.abs(x) - side - 0.27 - 0.12 * np.maximum(y, -0.4)) / 0.15) * edge(y + 0.55, 0.3)
    thickness = curve(y, [(-1.5, 1.35), (-0.9, 1.3), (-0.6, 1.75), (0.1, 1.95), (0.5, 2.2), (1.5, 2.35)])
    return np.maximum(depth**0.75 * thickness * (1 + 0.14 * anatomy.build), 0.9 * np.sqrt(arm))


def _mediastinum(anatomy: Anatomy, illness: Illness, pose: Pose, x: Array, y: Array) -> tuple[Array, Array]:
    """Heart and vascular pedicle, each 0..1 as thickness along the beam."""
    magnified = pose.magnified * (1 - 0.06 * pose.breath)
    width = 2 * anatomy.thorax * illness.heart_ratio * magnified
    rng = stream(*anatomy.key, "heart")
    share = rng.normal(0.67, 0.05)
    left, right = width * share, width * (1 - share)
    low, wide, knob = 0.03 * pose.breath, illness.of("Enlarged Cardiomediastinum"), 0.05 * anatomy.aorta
    waist = rng.normal(0.16, 0.018)
    to_left = curve(y - low, [
        (-0.95, 0.07), (-0.60, 0.11 + 0.07 * wide), (-0.36, 0.145 + knob + 0.10 * wide),
        (-0.24, 0.13 + 0.5 * knob + 0.08 * wide), (-0.12, waist), (0.0, 0.45 * waist + 0.38 * left),
        (0.11, 0.15 * waist + 0.74 * left), (0.21, 0.95 * left), (0.30, left), (0.40, 0.96 * left), (0.60, 0.68 * left),
    ])  # fmt: skip
    to_right = curve(y - low, [
        (-0.95, 0.07), (-0.55, 0.115 + 0.08 * wide), (-0.2, 0.12 + 0.08 * wide), (-0.02, 0.82 * right),
        (0.08, 0.95 * right), (0.19, right), (0.38, 0.92 * right), (0.60, 0.6 * right),
    ])  # fmt: skip
    reach = np.where(x > 0, to_left, to_right)
    depth = np.sqrt(np.clip(1 - np.square(x / (reach + 0.01)), 0, 1))
    shown = edge(reach - np.abs(x), 0.035)
    heart_share = edge(y + 0.12, 0.3) * edge(0.78 - y, 0.3)
    return shown * heart_share * (0.55 + 0.45 * depth), shown * (1 - heart_share) * (0.35 + 0.65 * depth)


def _bones(anatomy: Anatomy, pose: Pose, x: Array, y: Array) -> Array:
    rng = stream(*anatomy.key, "bones")
    first, tilt = anatomy.apex + rng.uniform(0.02, 0.08), rng.normal(0, 0.03)
    total = 0.13 * edge(0.075 - np.abs(x), 0.05) * (1 + 0.25 * np.sin(2 * np.pi * (y + rng.random()) / 0.115))
    for side in (-1, 1):
        u = side * x
        wall = anatomy.half_width(y) + 0.015
        cage = edge(wall - u, 0.03) * edge(u - 0.07, 0.06)
        arch = anatomy.rib_slope * np.square(np.clip(u - 0.20, 0, 1)) * (1.24 + 0.6 * y) - 0.05 * bump(u - 0.2, 0.1)
        posterior = (y - first - arch - side * tilt + 0.05 * pose.breath * y) / anatomy.rib_gap
        row = np.abs(posterior - np.round(posterior))
        drawn = cage * edge(posterior + 0.5, 0.1) * edge(0.86 - y, 0.4)
        drawn = drawn * (0.35 + 0.65 * edge(anatomy.diaphragm + 0.1 - y, 0.2))  # fainter over the abdomen
        total += 0.24 * anatomy.bone * drawn * (0.62 * edge(0.20 - row, 0.10) + 0.55 * bump(row - 0.19, 0.05))
        anterior = (y - first + 0.04 + 0.62 * (u - 0.62) * (1 + 0.15 * y)) / (1.12 * anatomy.rib_gap)
        row = np.abs(anterior - np.round(anterior))
        front = cage * edge(u - 0.30, 0.2) * edge(anterior - 0.4, 0.3) * edge(0.40 - y, 0.3)
        total += 0.12 * anatomy.bone * front * edge(0.24 - row, 0.12)
        total += 0.10 * anatomy.bone * bump(wall - u, 0.02) * edge(y - anatomy.apex, 0.2) * edge(0.7 - y, 0.3)
        total += anatomy.bone * _shoulder(rng, pose, u, y, anatomy)
    return total


def _fracture(anatomy: Anatomy, illness: Illness, pose: Pose, x: Array, y: Array) -> Array:
    """A rib broken at the side: a dark cleft in a spindle of callus."""
    severity = illness.of("Fracture")
    if severity <= 0:
        return np.zeros_like(x)
    rng = stream(*pose.key, "fracture")
    at = rng.uniform(-0.3, 0.3)
    u = illness.side["Fracture"] * x - float(anatomy.half_width(np.float32(at))) + rng.uniform(0.03, 0.15)
    callus = bump(u, 0.035) * bump(y - at - 0.4 * u, 0.022)
    return (0.25 + 0.35 * severity) * (callus - 0.9 * bump(u, 0.008) * bump(y - at, 0.03))


def _shoulder(rng: np.random.Generator, pose: Pose, u: Array, y: Array, anatomy: Anatomy) -> Array:
    """Clavicle, scapula and the head of the humerus; when lying the scapula lies over the lung."""
    lift = -0.05 * pose.ap + rng.normal(0, 0.02)
    path = lift + curve(u, [(0.04, -0.555), (0.20, -0.60), (0.45, -0.625), (0.68, -0.68), (0.9, -0.66)])
    off = np.abs(y - path)
    clavicle = 0.26 * edge(0.026 - off, 0.016) + 0.12 * bump(off - 0.024, 0.008)
    clavicle = clavicle * edge(u - 0.06, 0.03) * edge(0.82 - u, 0.1)
    inner = anatomy.thorax - (0.12 if pose.ap else -0.04) + 0.30 * np.clip(y + 0.5, 0, 1)
    blade = edge(u - inner, 0.03) * edge(inner + 0.22 - u, 0.2) * edge(y + 0.62, 0.1) * edge(0.02 - y, 0.2)
    rim = bump(u - inner, 0.012) * edge(y + 0.5, 0.1) * edge(-0.02 - y, 0.1)
    shaft = edge(0.075 - np.abs(u - 1.0 - 0.10 * (y + 0.6)), 0.03) * edge(y + 0.55, 0.05)
    humerus = np.maximum(edge(0.12 - np.hypot(u - 0.99, y + 0.60), 0.03), shaft)
    return clavicle + 0.08 * blade + 0.07 * rim + 0.22 * humerus


def _airway(pose: Pose, x: Array, y: Array) -> Array:
    """Trachea and main bronchi, darker than what surrounds them."""
    x = x - 0.03 * pose.yaw - 0.008
    trachea = edge(0.036 - np.abs(x), 0.02) * edge(-0.24 - y, 0.06)
    right = bump((x + 0.06) + 0.75 * (y + 0.19), 0.022) * edge(0.075 - np.abs(x + 0.07), 0.04)
    left = bump((x - 0.08) - 1.2 * (y + 0.18), 0.026) * edge(0.085 - np.abs(x - 0.08), 0.04)
    return -0.22 * trachea - 0.12 * np.maximum(right, left)


def _abdomen(anatomy: Anatomy, x: Array, y: Array) -> Array:
    """Gas in the stomach, often, and sometimes in the colon."""
    rng = stream(*anatomy.key, "gas")
    size, at = rng.uniform(0.08, 0.17), anatomy.diaphragm + rng.uniform(0.10, 0.20)
    stomach = np.sqrt(ball((x - rng.uniform(0.28, 0.45)) / (1.3 * size), (y - at) / (0.6 * size)))
    colon = np.sqrt(ball((x - rng.normal(0, 0.4)) / 0.22, (y - at - 0.25) / 0.08))
    return -0.45 * stomach * (rng.random() < 0.6) - 0.3 * colon * (rng.random() < 0.4)


def _breasts(anatomy: Anatomy, x: Array, y: Array) -> Array:
    """Female breasts, or the faint shadow of the pectoral muscles."""
    rng = stream(*anatomy.key, "breast")
    if not anatomy.female:
        return 0.06 * edge(-0.05 - y, 0.5) * edge(np.abs(x) - 0.25, 0.3) * edge(y + 0.55, 0.3)
    radius, drop = 0.24 + 0.10 * anatomy.breast, 0.24 + 0.12 * anatomy.breast + rng.normal(0, 0.03)
    total = np.zeros_like(x)
    for side in (-1, 1):
        out, down = side * x - 0.42 - rng.normal(0, 0.02), y - drop
        sag = np.where(down > 0, down / (0.75 * radius), down / (1.7 * radius))
        total += (0.06 + 0.26 * anatomy.breast) * ball(out / (1.12 * radius), sag) ** 0.5
    return total
