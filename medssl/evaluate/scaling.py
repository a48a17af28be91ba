"""What scale brings: arms that differ in one size of their pretraining, the smallest and the largest compared in pairs.

Nothing is measured anew: scores and intervals are the curve's own, and the two ends are compared as an arm is with its
baseline (`statistics.comparison`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import polars as pl

from medssl.evaluate.curve import Curve
from medssl.evaluate.resample import Scores
from medssl.evaluate.statistics import COMPARISON, Experiment, comparison
from medssl.evaluate.verdict import LEVEL, Teller, listed, percent
from medssl.train.build import fitted_encoder
from medssl.train.run import read_provenance

NAMES = {"model": "Model size", "patients": "Unlabelled patients", "batch": "Batch size"}
UNITS = {"model": " million parameters", "patients": " patients", "batch": " images"}
EQUAL = 0.01
"""Budgets that differ by less count as equal: a batch need not divide the images."""


@dataclass(frozen=True)
class Axis:
    """Arms from the smallest to the largest.

    sizes: millions of the encoder's parameters, unlabelled patients (mean over folds), or images a batch.
    steps, images: of each arm's pretraining.
    """

    name: str
    arms: list[str]
    sizes: list[float]
    steps: list[int]
    images: list[int]

    @property
    def budget(self) -> str:
        """What the arms' pretrainings had alike: images seen, steps, both or neither."""
        held = [f"{values[0]:,} {name}" for name, values in (("steps", self.steps), ("images seen", self.images))
                if max(values) <= min(values) * (1 + EQUAL)]
        return f"{' and '.join(held)} each" if held else "neither steps nor images seen held equal"


def axes_of(curve: Curve) -> list[Axis]:
    """The recipe's axes, once everything has been trained."""
    return [_axis(curve, name, arms) for name, arms in curve.config.scaling if arms]


def ends_compared(scores: Scores, experiment: Experiment, axes: Sequence[Axis]) -> pl.DataFrame:
    """`comparison` of each axis's largest arm with its smallest, in the primary metric; the axis's name comes first."""
    tables = [comparison(scores, _with_ends(experiment, axis)).select(pl.lit(axis.name).alias("axis"), *COMPARISON)
              for axis in axes]
    return pl.concat(tables).filter(pl.col("metric") == scores.primary)


def told_in_words(experiment: Experiment, summary: pl.DataFrame, ends: pl.DataFrame, axis: Axis) -> str:
    """Whether the largest differs from the smallest, at which fractions, and how sure that is."""
    if axis.sizes[0] == axis.sizes[-1]:
        return (f"{NAMES[axis.name]}: the arms {listed(axis.arms)} do not differ in it "
                f"({size_in_words(axis.sizes[0])}{UNITS[axis.name]} each), so nothing can be told of it.")
    teller = Teller(_with_ends(experiment, axis), summary, ends.filter(pl.col("axis") == axis.name))
    tests = teller.tests[axis.arms[-1]]
    places = {name: [f"{percent(test['fraction'])} of the labels ({teller.number(test['difference'], signed=True)}, "
                     f"{teller.surety(test)})" for test in tests if chosen(test)] for name, chosen in _OUTCOMES.items()}
    found = [name + " at " + listed(told) for name, told in places.items() if told]
    smallest, largest = (size_in_words(axis.sizes[end]) for end in (0, -1))
    return (f"{NAMES[axis.name]}, from {smallest} to {largest}{UNITS[axis.name]} ({axis.budget}): "
            f"{'; '.join(found)}. Corrected for {len(tests)} fraction{'s' if len(tests) > 1 else ''}.")


def size_in_words(size: float) -> str:
    """0.116, 6.34, 48.5, 303, 64,534: at least three digits that count."""
    return f"{size:,.0f}" if size >= 100 else f"{size:.3g}"


_OUTCOMES = {
    "larger was better": lambda test: test["p_holm"] < LEVEL and test["difference"] > 0,
    "larger was worse": lambda test: test["p_holm"] < LEVEL and test["difference"] < 0,
    "no difference could be shown": lambda test: test["p_holm"] >= LEVEL,
}


def _axis(curve: Curve, name: str, arms: Sequence[str]) -> Axis:
    size_of = {"model": _parameters, "patients": _patients_seen, "batch": _batch_size}[name]
    sizes = {arm: size_of(curve, arm) for arm in arms}
    ordered = sorted(arms, key=sizes.get)
    budgets = [curve.config.pretraining(arm).train for arm in ordered]
    return Axis(name, ordered, [sizes[arm] for arm in ordered], [train.steps for train in budgets],
                [train.steps * train.batch_size for train in budgets])


def _parameters(curve: Curve, arm: str) -> float:
    recipe = curve.config.pretraining(arm)
    encoder = fitted_encoder(curve.encoder_config(arm), curve.data.read_as(recipe.data), recipe.augment)
    return sum(parameter.numel() for parameter in encoder.parameters()) / 1e6


def _patients_seen(curve: Curve, arm: str) -> float:
    seen = [read_provenance(curve.weights(arm, fold.index))["patients"] for fold in curve.folds]
    return sum(seen) / len(seen)


def _batch_size(curve: Curve, arm: str) -> float:
    return curve.config.pretraining(arm).train.batch_size


def _with_ends(experiment: Experiment, axis: Axis) -> Experiment:
    return replace(experiment, baselines={axis.arms[-1]: axis.arms[0]})
