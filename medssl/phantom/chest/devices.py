"""Lines, tubes and leads, as strokes of metal and plastic."""

from __future__ import annotations

import numpy as np

from medssl.phantom.chest.patient import PRESENT, Anatomy, Illness, Pose
from medssl.phantom.shapes import Array, Field, bend
from medssl.rng import stream


def devices(anatomy: Anatomy, illness: Illness, pose: Pose, field: Field) -> Array:
    """Lines and tubes where there are any; adhesive leads, which are no finding, on many who lie."""
    rng = stream(*pose.key, "devices")
    lines: list[tuple[Array, float, float]] = []
    kinds = rng.permutation(["central", "central", "tube", "gastric", "pacemaker", "drain"])
    severity = illness.of("Support Devices")
    for kind in kinds[: 1 + int(2.2 * severity)] if severity >= PRESENT else []:
        lines += _device(str(kind), rng)
    if rng.random() < (0.6 if pose.ap else 0.06):
        for _ in range(int(rng.integers(2, 5))):
            at = np.array([rng.uniform(-0.7, 0.7), rng.uniform(-0.5, 0.5)])
            lines += [(bend([at, at + rng.normal(0, 0.25, 2), (rng.uniform(-1, 1), 1.3)]), 0.008, 0.35)]
            lines += [(np.array([at - (0.015, 0), at + (0.015, 0)]), 0.04, 0.7)]
    return 0.75 * field.strokes(lines)


def _device(kind: str, rng: np.random.Generator) -> list[tuple[Array, float, float]]:
    """One device as strokes; where it runs is known, and no two run quite alike."""

    def jitter(x: float, y: float) -> tuple[float, float]:
        return x + rng.normal(0, 0.02), y + rng.normal(0, 0.03)

    side = rng.choice([-1, -1, 1])
    end = jitter(-0.10, rng.uniform(-0.22, 0.08))
    if kind == "central":
        start = [jitter(side * 0.16, -1.1), jitter(side * 0.13, -0.75)] if rng.random() < 0.5 else [
            jitter(side * 0.85, -0.35), jitter(side * 0.55, -0.52)]  # fmt: skip
        return [(bend([*start, jitter(-0.04 + 0.05 * side, -0.52), end]), 0.016, rng.uniform(0.5, 0.8))]
    if kind == "tube":
        return [(bend([jitter(0.01, -1.2), jitter(0.01, -0.8), jitter(0.01, rng.uniform(-0.5, -0.32))]), 0.035, 0.45)]
    if kind == "gastric":
        return [(bend([jitter(0.02, -1.2), jitter(0.02, -0.3), jitter(0.04, 0.3), jitter(0.25, 0.62)]), 0.016, 0.55)]
    if kind == "drain":
        side = rng.choice([-1, 1])
        return [(bend([jitter(side * 0.95, 0.35), jitter(side * 0.55, 0.2), jitter(side * 0.3, -0.35)]), 0.03, 0.5)]
    box = np.array(jitter(0.50, -0.42))
    lead = bend([box, box + (-0.15, -0.10), jitter(-0.02, -0.45), jitter(-0.12, 0.05), jitter(0.12, 0.36)])
    return [(np.array([box - (0.06, 0), box + (0.06, 0)]), 0.12, 1.0), (lead, 0.014, 0.8)]
