"""Who is X-rayed: the anatomy a patient keeps, the illness of one study, the pose of one exposure."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from medssl.phantom.shapes import Array
from medssl.rng import stream

PRESENT = 0.2
"""A finding of this severity (0..1) or more is there; below it the drawing may still hint at it."""


@dataclass(frozen=True)
class Anatomy:
    """What a patient keeps through all studies. Lengths in canonical units."""

    key: tuple[int | str, ...]
    """Names the random streams of the shapes that are the patient's own."""

    female: bool
    age: int
    build: float
    """-1 slim .. 1 heavy."""

    thorax: float
    """Half the inner width of the rib cage."""

    apex: float
    diaphragm: float
    aorta: float
    breast: float
    aeration: float
    """Air in the lungs against the usual: emphysema above 1, fibrosis and obesity below."""

    rib_gap: float
    rib_slope: float
    bone: float

    @classmethod
    def draw(cls, key: tuple[int | str, ...]) -> Anatomy:
        rng = stream(*key, "anatomy")
        female = bool(rng.random() < 0.45)
        age = int(np.clip(rng.normal(60, 17), 18, 90))
        build = float(np.clip(rng.normal(0, 0.45), -1, 1))
        return cls(
            key=key,
            female=female,
            age=age,
            build=build,
            thorax=float(rng.normal(0.675 if female else 0.705, 0.035)),
            apex=float(rng.normal(-0.70, 0.035)),
            diaphragm=float(rng.normal(0.44 - 0.06 * build, 0.05)),
            aorta=float(np.clip(rng.normal((age - 40) / 50, 0.3), 0, 1.3)),
            breast=float(np.clip(rng.normal(0.5 + 0.3 * build, 0.3), 0.05, 1.1)) if female else 0.0,
            aeration=float(rng.normal(0.95 - 0.06 * build, 0.11)),
            rib_gap=float(rng.normal(0.158, 0.009)),
            rib_slope=float(rng.normal(0.42, 0.10)),
            bone=float(np.clip(rng.normal(1.15 - (age - 40) * (0.009 if female else 0.005), 0.12), 0.5, 1.4)),
        )

    def half_width(self, y: Array) -> Array:
        """Inner half width of the rib cage at height y."""
        top, widest = self.apex - 0.03, 0.22
        rise = np.clip((widest - y) / (widest - top), 0, 1)
        taper = 0.03 * np.clip(y - widest, 0, 1)
        return self.thorax * np.sqrt(np.maximum(1 - rise**2.3, 0)) - taper


@dataclass(frozen=True)
class Illness:
    """One study's findings: severity 0..1 by CheXpert's name, the side (-1 the patient's right, 1 left), the heart."""

    severity: dict[str, float]
    side: dict[str, int]
    heart_ratio: float
    """True cardiothoracic ratio, before any magnification by the projection."""

    def of(self, finding: str, side: int = 0) -> float:
        """Severity on one side (0: on any); what has no side is on both, on the left a little milder."""
        value, where = self.severity[finding], self.side.get(finding, 0)
        if side == 0 or where == side:
            return value
        return value * (0.8 if side > 0 else 1.0) if where == 0 else 0.0


@dataclass(frozen=True)
class Pose:
    """How the patient stood (or lay) at one exposure."""

    ap: bool
    breath: float
    """Depth of inspiration, about -1..1."""

    magnified: float
    """How much larger than life the heart is shown: an AP film is farther from it."""

    yaw: float
    """Turn about the long axis; shifts the mediastinum against the rib cage."""

    key: tuple[int | str, ...]
