"""The chest from its left side: x runs from the sternum (-1) to the back (1), y downwards, 1 is about 19 cm."""

from __future__ import annotations

import numpy as np

from medssl.phantom.chest.patient import Anatomy, Illness, Pose
from medssl.phantom.shapes import Array, Field, ball, bump, curve, edge, smooth_noise
from medssl.rng import stream


def lateral(anatomy: Anatomy, illness: Illness, pose: Pose, field: Field) -> Array:
    """(J, I) absorbance of a lateral view; both lungs lie over each other, so findings are fainter than in front."""
    rng = stream(*pose.key, "lateral")
    own = stream(*anatomy.key, "lateral")
    bent = [0.012 * smooth_noise(own, field.x.shape, (3, 3)) for _ in range(2)]
    x, y = field.x + bent[0], field.y + bent[1]
    deep = 0.56 + 0.05 * anatomy.build + own.normal(0, 0.03)
    front = curve(y, [(-1.5, -0.12), (-0.85, -0.10), (-0.66, -0.30), (-0.2, 0.02 - deep), (0.4, -deep - 0.03),
                      (1.5, -deep)])  # fmt: skip
    back = curve(y, [(-1.5, 0.30), (-0.8, 0.34), (-0.45, deep + 0.02), (0.0, deep + 0.05), (0.5, deep - 0.06),
                     (1.5, deep - 0.06)])  # fmt: skip
    soft = _body(anatomy, own, x, y, front, back)
    spine = curve(y, [(-1.0, 0.08), (-0.5, 0.26), (0.0, 0.36), (0.5, 0.32), (1.2, 0.20)])
    air, floor = _air(anatomy, illness, pose, rng, x, y, front, back)
    heart = _heart(anatomy, illness, x, y)
    markings = 0.06 * smooth_noise(rng, x.shape, (26, 26)) + 0.05 * smooth_noise(rng, x.shape, (12, 12))
    total = soft - 1.2 * air * (1 - 0.50 * heart) + markings * air + 0.06 * heart
    total += _spine(anatomy, own, x, y, spine) + _ribs(anatomy, own, x, y, front, back, floor)
    total += 0.16 * (1 + illness.of("Edema")) * bump(np.hypot(x - 0.03, y + 0.06), 0.075)
    total -= 0.16 * edge(0.035 - np.abs(x + 0.03 - 0.12 * (y + 0.6)), 0.03) * edge(-0.12 - y, 0.08)  # trachea
    return np.maximum(total, 0) * edge(soft, 0.12)


def _body(anatomy: Anatomy, own: np.random.Generator, x: Array, y: Array, front: Array, back: Array) -> Array:
    middle, half = (front + back) / 2, (back - front) / 2 + 0.10 + 0.05 * anatomy.build
    trunk = np.sqrt(np.clip(1 - np.square((x - middle) / half), 0, 1)) ** 0.7
    trunk = trunk * curve(y, [(-1.5, 1.1), (-0.8, 1.5), (-0.5, 2.3), (0.1, 2.15), (0.6, 2.5), (1.5, 2.6)])
    tilt = own.uniform(0.5, 0.9)
    arms = 1.0 * np.sqrt(ball((x + 0.25 + tilt * (y + 0.85)) / 0.30)) * edge(-0.55 - y, 0.2)
    bulge = ball((x - front + 0.02) / (0.10 + 0.10 * anatomy.breast), (y - 0.28) / 0.25)
    return np.maximum(np.maximum(trunk, arms), 0.5 * anatomy.breast * np.sqrt(bulge))


def _air(anatomy: Anatomy, illness: Illness, pose: Pose, rng: np.random.Generator, x: Array, y: Array, front: Array,
         back: Array) -> tuple[Array, Array]:  # fmt: skip
    """Air of both lungs, 0..1, and the height of the diaphragm."""
    dome = anatomy.diaphragm + 0.045 * pose.breath - 0.10 * illness.of("Atelectasis")
    floor = dome - 0.02 + 0.24 * np.square(np.clip(x + 0.08, 0, 1)) / 0.30 + 0.10 * np.square(np.clip(-x - 0.08, 0, 1))
    second = floor + 0.05
    wide = edge(x - front - 0.05, 0.06) * edge(back - 0.06 - x, 0.08)
    depth = 0.6 + 0.4 * np.minimum(edge(x - front - 0.12, 0.3), edge(back - 0.18 - x, 0.35))
    top = edge(y - anatomy.apex - 0.9 * np.square(x - 0.08), 0.12)
    air = wide * top * depth * (0.55 * edge(floor - y, 0.03) + 0.45 * edge(second - y, 0.03))
    fluid = illness.of("Pleural Effusion")
    if fluid > 0:
        level = dome + 0.34 - 0.55 * fluid - 0.10 * np.clip(x - 0.1, 0, 1)
        air = air * (1 - (0.35 + 0.5 * fluid) * edge(y - level, 0.08) * (0.5 + 0.5 * edge(x - 0.05, 0.5)))
    coarse, fine = smooth_noise(rng, x.shape, (5, 5)), smooth_noise(rng, x.shape, (14, 14))
    centre = rng.uniform(-0.25, 0.30), rng.choice([-0.30, 0.0, 0.28])
    cloud = edge(1.1 - np.hypot(x - centre[0], y - centre[1]) / 0.20 + 0.3 * coarse, 0.9)
    filled = 0.5 * illness.of("Consolidation") * cloud + 0.5 * illness.of("Edema") * bump(np.hypot(x - 0.03, y), 0.32)
    filled = filled * np.clip(1 + 0.3 * fine, 0.2, 2)
    filled += 0.5 * illness.of("Atelectasis") * bump(floor - y, 0.12) * edge(x, 0.3)
    radius = 0.03 + 0.07 * illness.of("Lung Lesion")
    spot = rng.uniform(-0.25, 0.30), rng.uniform(-0.4, 0.3)
    if illness.of("Lung Lesion") > 0:
        filled += 0.30 * edge(radius - np.hypot(x - spot[0], y - spot[1]), 0.03)
    return air * (1 - np.clip(filled, 0, 0.9)), floor


def _heart(anatomy: Anatomy, illness: Illness, x: Array, y: Array) -> Array:
    size = 0.30 * illness.heart_ratio / 0.46
    out, down = x + 0.17, y - 0.17
    along, across = 0.8 * out - 0.6 * down, 0.6 * out + 0.8 * down
    heart = ball(along / (1.05 * size), across / (1.35 * size))
    arch = bump(np.hypot(x - 0.06, y + 0.22) - 0.15, 0.045 + 0.02 * anatomy.aorta) * edge(-0.16 - y, 0.1)
    return np.maximum(edge(heart - 0.22, 0.44), (0.30 + 0.25 * anatomy.aorta) * arch)


def _spine(anatomy: Anatomy, own: np.random.Generator, x: Array, y: Array, spine: Array) -> Array:
    """Vertebral bodies with their end plates; osteopenia shows as a fainter body."""
    phase = (y + own.random()) / 0.125
    row = np.abs(phase - np.round(phase))
    off = np.abs(x - spine)
    body = edge(0.075 - off, 0.03) * (0.75 * edge(0.40 - row, 0.08) + 0.45 * bump(row - 0.38, 0.05))
    return anatomy.bone * (0.30 * body + 0.10 * edge(0.11 - np.abs(off - 0.10), 0.10))


def _ribs(anatomy: Anatomy, own: np.random.Generator, x: Array, y: Array, front: Array, back: Array,
          floor: Array) -> Array:  # fmt: skip
    sternum = edge(0.028 - np.abs(x - front - 0.04), 0.02) * edge(y + 0.62, 0.1) * edge(0.15 - y, 0.1)
    total = 0.16 * anatomy.bone * sternum
    cage = edge(x - front - 0.04, 0.2) * edge(back - 0.02 - x, 0.05) * edge(floor + 0.15 - y, 0.3) * edge(y + 0.62, 0.2)
    for shift in own.uniform(-0.5, 0.5, 2):
        phase = (y + 0.62 * (x - 0.4) - 0.25 * np.square(x - 0.4)) / (1.05 * anatomy.rib_gap) + shift
        row = np.abs(phase - np.round(phase))
        total += 0.11 * anatomy.bone * cage * (0.6 * edge(0.17 - row, 0.1) + 0.5 * bump(row - 0.16, 0.05))
    return total
