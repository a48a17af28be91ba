"""How well strange inputs are told from those of the kind that a model knows, and the scores that are used for it.

Every score is the higher the stranger.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import expit, logsumexp, softmax

from medssl.errors import MedsslError
from medssl.metrics.classify import sensitivity_at

ACCEPTED = 0.95
"""Share of the known inputs that a threshold is to accept."""
NEIGHBOUR = 10
"""The distance to the so manieth nearest is taken; where there are fewer, to the farthest."""

CELLS = 1 << 24
"""So many distances are held at a time, 128 MiB."""


def unsure(logits: ArrayLike, exclusive: bool) -> np.ndarray:
    """(N,): how far the largest probability is from 1 (Hendrycks & Gimpel, arXiv 1610.02136).

    Args:
        logits: (N, L).
        exclusive: of classes of which a case has one. Otherwise each label is a question of its own, present or absent,
            and the mean over the labels is taken.
    """
    logits = np.asarray(logits, dtype=np.float64)
    if exclusive:
        return 1 - softmax(logits, axis=1).max(axis=1)
    return expit(-np.abs(logits)).mean(axis=1)


def energy(logits: ArrayLike, exclusive: bool) -> np.ndarray:
    """(N,): −logsumexp of the logits (N, L) of classes that exclude each other (Liu et al., arXiv 2010.03759); or else
    −Σ log(1 + exp(logit)), the joint energy of labels (Wang et al., arXiv 2111.14797)."""
    logits = np.asarray(logits, dtype=np.float64)
    return -logsumexp(logits, axis=1) if exclusive else -np.logaddexp(0, logits).sum(axis=1)


def neighbour_distance(known: ArrayLike, features: ArrayLike, neighbour: int = NEIGHBOUR) -> np.ndarray:
    """(N,): the Euclidean distance of features (N, D) to the `neighbour`-th nearest of the known ones (M, D), all of
    length 1 (Sun et al., arXiv 2204.06507)."""
    known, features = _normalised(known), _normalised(features)
    if not len(known):
        raise MedsslError("There are no known features to be near to", expected="one or more")
    place = min(neighbour, len(known)) - 1
    rank, block = len(known) - 1 - place, max(1, CELLS // len(known))
    cosines = [np.partition(features[start : start + block] @ known.T, rank, axis=1)[:, rank]
               for start in range(0, len(features), block)]
    return np.sqrt(np.clip(2 - 2 * np.concatenate([np.empty(0), *cosines]), 0, None))


def fpr_at_95(strange: ArrayLike, score: ArrayLike, weights: ArrayLike | None = None) -> float | np.ndarray:
    """FPR95: the share of strange inputs that is accepted where at least 95 % of the known ones are.

    Args:
        strange: (N,) of 0 and 1.
        score: (N,), higher for stranger.
        weights: see the package's docstring.

    Returns:
        0 to 1, lower is better; NaN where one kind is absent or has weight 0.
    """
    return 1 - sensitivity_at(strange, score, weights, specificity=ACCEPTED)


def _normalised(features: ArrayLike) -> np.ndarray:
    features = np.asarray(features, dtype=np.float64)
    return features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
