"""Many linear models on one table of features at once: each learns from rows of its own, under a penalty of its own.

A step of all of them is one product of the table with all their weights, which a processor does at its full rate. The
optimum is that of scikit-learn's LogisticRegression and Ridge, one at a time.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from scipy.linalg import solve
from torch import Tensor

TOLERANCE = 2e-6
"""Greatest gradient of a solved problem, per row; scikit-learn stops at 1e-4."""
STEPS, MEMORY, HALVINGS = 500, 10, 20
BLOCK = 128
"""Problems that are solved at a time: each holds some numbers for every row."""
SUFFICIENT = 1e-4
"""Share of the decrease that the slope promises with which a step is content (Armijo)."""


@dataclass(frozen=True)
class Problems:
    """B linear models of features x (n, D).

    rows: (B, n) bool, which each learns from; mean, scale: (B, D), by which each standardises; strength: (B,), the
    inverse of its penalty, as scikit-learn's C and 1 / alpha.
    """

    rows: np.ndarray
    mean: np.ndarray
    scale: np.ndarray
    strength: np.ndarray

    def __len__(self) -> int:
        return len(self.strength)

    def only(self, chosen: np.ndarray) -> Problems:
        return Problems(self.rows[chosen], self.mean[chosen], self.scale[chosen], self.strength[chosen])


@dataclass(frozen=True)
class Solved:
    """weight (B, D) and bias (B,) on features as they are, not standardised."""

    weight: np.ndarray
    bias: np.ndarray

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """(m, D) -> (B, m): logits, or the quantity."""
        return self.weight @ x.T + self.bias[:, None]


def ridge(x: np.ndarray, y: np.ndarray, problems: Problems) -> Solved:
    """Least squares with squared weights penalised, y (n,): in closed form, by the products that all strengths of the
    same rows share."""
    weight, bias = np.empty(problems.mean.shape), np.empty(len(problems))
    groups: dict[bytes, list[int]] = {}
    for number in range(len(problems)):
        groups.setdefault(problems.rows[number].tobytes() + problems.mean[number].tobytes(), []).append(number)
    for numbers in groups.values():
        first = numbers[0]
        rows, scale = problems.rows[first], problems.scale[first]
        standard = (x[rows] - problems.mean[first]) / scale
        centre, middle = standard.mean(axis=0), y[rows].mean()
        table, residual = standard - centre, y[rows] - middle
        is_tall = len(table) > table.shape[1]
        products = table.T @ table if is_tall else table @ table.T
        for number in numbers:
            penalised = products + np.eye(len(products)) / problems.strength[number]
            if is_tall:
                found = solve(penalised, table.T @ residual, assume_a="pos")
            else:
                found = table.T @ solve(penalised, residual, assume_a="pos")
            weight[number] = found / scale
            bias[number] = middle - found @ (centre + problems.mean[first] / scale)
    return Solved(weight, bias)


def logistic(x: np.ndarray, y: np.ndarray, problems: Problems) -> Solved:
    """Logistic regression with squared weights penalised, y (n,) of 0 and 1; every problem's rows hold both.

    L-BFGS (Liu & Nocedal, Mathematical Programming 45, 1989) with a backtracking search, for all problems at once;
    those that are solved drop out.
    """
    centre, spread = x.mean(axis=0), np.where(x.std(axis=0) > 0, x.std(axis=0), 1.0)  # so that float32 suffices
    shown = _float((x - centre) / spread)
    inside = replace(problems, mean=(problems.mean - centre) / spread, scale=problems.scale / spread)
    blocks = np.array_split(np.arange(len(problems)), -(-len(problems) // BLOCK))
    found = torch.cat([_minimum(_Table(shown, y, inside.only(block))) for block in blocks]).double().numpy()
    weight = found[:, :-1] / problems.scale
    return Solved(weight, found[:, -1] - (weight * problems.mean).sum(axis=1))


class _Table:
    """The loss of each problem, the mean over its rows and the penalty, by its standardised weights and bias."""

    def __init__(self, x: Tensor, y: np.ndarray, problems: Problems) -> None:
        self._x, self._sign = x, _float(1 - 2 * y)
        count = problems.rows.sum(axis=1, keepdims=True)
        self._share = _float(problems.rows / count)
        self._mean, self._scale = _float(problems.mean), _float(problems.scale)
        self._penalty = _float(1 / (problems.strength[:, None] * count))

    @property
    def start(self) -> Tensor:
        """(B, D + 1) of zeros."""
        return self._x.new_zeros(len(self._share), self._x.shape[1] + 1)

    def loss(self, found: Tensor, chosen: Tensor) -> tuple[Tensor, Tensor]:
        """(b,) of the chosen problems' losses, and what `gradient` needs of them."""
        weight, bias = found[:, :-1], found[:, -1:]
        raw = weight / self._scale[chosen]
        against = (raw @ self._x.T + bias - (raw * self._mean[chosen]).sum(1, keepdim=True)) * self._sign
        loss = (F.softplus(against) * self._share[chosen]).sum(1)
        return loss + (self._penalty[chosen] * weight.square()).sum(1) / 2, against

    def gradient(self, found: Tensor, against: Tensor, chosen: Tensor) -> Tensor:
        """(b, D + 1)."""
        error = torch.sigmoid(against) * self._sign * self._share[chosen]
        total = error.sum(1, keepdim=True)
        weight = (error @ self._x - total * self._mean[chosen]) / self._scale[chosen]
        return torch.cat([weight + self._penalty[chosen] * found[:, :-1], total], 1)


def _minimum(table: _Table) -> Tensor:
    """(B, D + 1)."""
    solution = table.start
    chosen = torch.arange(len(solution))
    found = solution.clone()
    loss, against = table.loss(found, chosen)
    slope = table.gradient(found, against, chosen)
    history: list[tuple[Tensor, Tensor, Tensor]] = []
    for _ in range(STEPS):
        open_ = slope.abs().amax(1) > TOLERANCE
        if not open_.all():
            solution[chosen[~open_]] = found[~open_]
            chosen, found, loss, slope = chosen[open_], found[open_], loss[open_], slope[open_]
            history = [tuple(each[open_] for each in kept) for kept in history]
        if not len(chosen):
            break
        step = _direction(slope, history)
        moved, new_loss, against = _searched(table, found, loss, slope, step, chosen)
        new_slope = table.gradient(moved, against, chosen)
        history = [*history, _pair(moved - found, new_slope - slope)][-MEMORY:]
        found, loss, slope = moved, new_loss, new_slope
    solution[chosen] = found
    return solution


def _pair(moved: Tensor, turned: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """What L-BFGS remembers of a step; nothing (a factor of 0) where the slope did not rise along it."""
    product = (moved * turned).sum(1, keepdim=True)
    return moved, turned, torch.where(product > 1e-12, 1 / product.clamp(min=1e-12), 0.0)


def _direction(slope: Tensor, history: list[tuple[Tensor, Tensor, Tensor]]) -> Tensor:
    """The two loops: minus the slope times what is known of the inverse curvature."""
    direction, shares = -slope, []
    for moved, turned, factor in reversed(history):
        share = factor * (moved * direction).sum(1, keepdim=True)
        direction = direction - share * turned
        shares.append(share)
    if history:
        _, turned, factor = history[-1]
        square = turned.square().sum(1, keepdim=True)
        direction = direction * torch.where(factor > 0, 1 / (factor * square).clamp(min=1e-12), 1.0)
    for (moved, turned, factor), share in zip(history, reversed(shares), strict=True):
        direction = direction + moved * (share - factor * (turned * direction).sum(1, keepdim=True))
    return direction


def _searched(table: _Table, found: Tensor, loss: Tensor, slope: Tensor, step: Tensor,
              chosen: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Where a step leads, halved for each problem until its loss falls enough; the losses there, and `against`."""
    promised = (slope * step).sum(1)
    rounding = 1e-6 * loss.abs()
    moved = found + step
    new_loss, against = table.loss(moved, chosen)
    length = torch.ones_like(loss)
    for _ in range(HALVINGS):
        short = torch.nonzero(~(new_loss <= loss + SUFFICIENT * length * promised + rounding))[:, 0]
        if not len(short):
            break
        length[short] /= 2
        moved[short] = found[short] + length[short, None] * step[short]
        new_loss[short], against[short] = table.loss(moved[short], chosen[short])
    return moved, new_loss, against


def _float(values: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32))
