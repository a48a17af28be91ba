"""A policy taken apart, for pictures and tests: each transform, and each kind of geometry, alone at any strength."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from medssl.augment.blend import Blend
from medssl.augment.policy import TRANSFORMS, PolicyConfig
from medssl.augment.spatial import SpatialConfig
from medssl.augment.temporal import TemporalConfig
from medssl.augment.transform import TransformConfig

_GEOMETRY = {"crop": ("scale", "ratio"), "rotate": ("rotate",), "translate": ("translate",)}
_TIME = {"speed": "speed", "phase": "shift"}
_STILL = SpatialConfig()


@dataclass(frozen=True)
class Part:
    """One thing that a policy does to an image.

    place: the field of a policy that says so.
    policy: does that alone, and always.
    chance: how often the policy that it was taken from does it, 0 to 1.
    neutral: the fields of `config` that say how strong it is, each with the value at which it does nothing; empty for a
        flip, which is done or not.
    """

    name: str
    place: Literal["temporal", "spatial", "intensity"]
    policy: PolicyConfig
    chance: float
    neutral: Mapping[str, Any]

    @property
    def config(self) -> TemporalConfig | SpatialConfig | TransformConfig:
        config = getattr(self.policy, self.place)
        return config[0] if self.place == "intensity" else config

    def values(self, share: float = 1.0) -> dict[str, Any]:
        """The strengths at a share, 0 to 1, of what they are. The same draw then goes that share of the way."""
        return {name: _between(neutral, getattr(self.config, name), share) for name, neutral in self.neutral.items()}

    def at(self, share: float) -> PolicyConfig:
        """The policy at a share of its strength: 0 changes nothing, 1 is `policy`."""
        config = self.config.model_copy(update=self.values(share))
        return self.policy.model_copy(update={self.place: (config,) if self.place == "intensity" else config})


def parts(policy: PolicyConfig) -> list[Part]:
    """What `policy` does, in its order: speed, phase, crop, rotation, translation, each axis' flip, the transforms."""
    spatial, found = policy.spatial, []
    for name, field in _TIME.items():
        if value := getattr(policy.temporal, field):
            time = TemporalConfig(frames=policy.temporal.frames, **{field: value})
            found.append(Part(name, "temporal", _alone(policy).model_copy(update={"temporal": time}), 1.0,
                              {field: 0.0}))
    for name, fields in _GEOMETRY.items():
        values = {field: getattr(spatial, field) for field in fields}
        neutral = {field: getattr(_STILL, field) for field in fields if values[field] != getattr(_STILL, field)}
        if neutral:
            found.append(Part(name, "spatial", _alone(policy, **values), spatial.probability, neutral))
    found += [Part(f"flip {axis}", "spatial", _alone(policy, flip={axis: 1.0}), spatial.probability * chance, {})
              for axis, chance in spatial.flip.items() if chance]
    return found + [_transform(policy, config, config.probability) for config in policy.intensity]


def other_transforms(policy: PolicyConfig) -> list[Part]:
    """Every transform of the table that `policy` does not use, at a typical strength."""
    used = {config.name for config in policy.intensity}
    return [_transform(policy, kind.Config(**kind.Config.typical()), 0.0)
            for name, kind in TRANSFORMS.items() if name not in used]


def _alone(policy: PolicyConfig, **spatial: Any) -> PolicyConfig:
    """Views of the same size with this geometry and nothing else."""
    kept = {field: getattr(policy.spatial, field) for field in ("axes", "padding", "keep_sector")}
    return PolicyConfig(size=policy.size, temporal=TemporalConfig(frames=policy.temporal.frames),
                        spatial=SpatialConfig(**kept, **spatial))


def _transform(policy: PolicyConfig, config: TransformConfig, chance: float) -> Part:
    always = config.model_copy(update={"probability": 1.0})
    strengths = [*type(config).typical(), *(["least"] if isinstance(config, Blend.Config) and config.least else [])]
    neutral = dict.fromkeys(strengths, 0.0)
    return Part(config.name, "intensity", _alone(policy).model_copy(update={"intensity": (always,)}), chance, neutral)


def _between(neutral: Any, value: Any, share: float) -> Any:
    """Exact at either end."""
    if isinstance(value, tuple):
        return tuple(_between(n, v, share) for n, v in zip(neutral, value, strict=True))
    return (1 - share) * neutral + share * value
