"""Judged cases as `evaluate.examples` kept them."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from medssl.archives import read_arrays
from medssl.errors import RunError

RANKS = ("best", "median", "worst")


@dataclass(frozen=True, eq=False)
class Examples:
    """Segmented slices. image (n, J, I) float; truth, prediction (n, J, I) uint8, where label k is regions[k - 1];
    score (n,), the mean Dice of the case, where it was kept."""

    image: np.ndarray
    truth: np.ndarray
    prediction: np.ndarray
    regions: tuple[str, ...]
    score: np.ndarray | None = None

    @property
    def ranked(self) -> list[int]:
        """Which are the RANKS."""
        order = np.argsort(-self.score, kind="stable")
        return [int(order[place]) for place in (0, (len(order) - 1) // 2, -1)]

    def only(self, chosen: Sequence[int]) -> Examples:
        score = None if self.score is None else self.score[chosen]
        return Examples(self.image[chosen], self.truth[chosen], self.prediction[chosen], self.regions, score)


@dataclass(frozen=True, eq=False)
class Ranked:
    """The RANKS among judged cases. image (3, J, I) float; told (3,): the truth and what was predicted."""

    image: np.ndarray
    told: tuple[str, ...]


def read_examples(path: Path, remedy: str) -> Examples | Ranked:
    try:
        stored = read_arrays(path)
        image = stored["image"].astype(np.float32)
        if "told" in stored:
            return Ranked(image, tuple(map(str, stored["told"])))
        return Examples(image, stored["truth"], stored["prediction"], tuple(map(str, stored["regions"])),
                        stored.get("score"))
    except (KeyError, ValueError, OSError, zipfile.BadZipFile) as error:
        raise RunError(f"{path} cannot be read: {error}", expected="image, truth, prediction and regions, or image and "
                       "told", remedy=remedy) from None
