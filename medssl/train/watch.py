"""Stops a run that can come to nothing: an embedding that has collapsed, a loss that climbs and stays."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from statistics import fmean

from medssl.errors import TrainingError

SPREAD = 0.1
"""A feature_std below this is a collapse to a point. SimSiam's paper (figure 2) has 0 after a collapse and nearly 1 in
health. Measured on phantom X-rays and discs: 0.68 or more in SimSiam and SimCLR that learn, 0.11 or more in an exemplar
run before it begins to; in SimSiam without stop-gradient and last norm 0.03 to 0.09, after 40 to 150 steps."""
RANK = 1.05
"""An effective_rank below this is a collapse to a line, which holds all but 2.5 % of the variance. SimSiam's last norm
blows a collapsed embedding up again: without stop-gradient feature_std stays at 0.26 to 0.8, and the rank goes to 1.00
to 1.04. Runs that learn had 1.1 or more, even on discs of which little is to be known but whether they are bright, and
1.03 in single looks at 8 cases."""
BEST_RANK = 3.0
"""A rank that never was above this tells nothing: of two samples it is 1, of four at most 3, by chance near 1."""
LOOKS, STEPS = 5, 50
"""A collapse is so many looks old, and so many steps; ten times as many where the embedding never was sound: features
of an untrained network may be all alike."""
START, SMOOTHED, SUSTAINED = 20, 20, 100
"""Steps: the mean loss of the first is its start; later losses are smoothed over so many, and must stay too high for so
many: an AdamW run at a rate of 1 rose to 7 times its start, and was below it again 20 steps later."""
GO_ON = "under another --out; train.watch=false goes on regardless, in this folder"


@dataclass
class Watch:
    """What was seen so far, in plain numbers: stored with a checkpoint, a resumed run stops where a whole one would.

    first: the first losses; lowest: the least loss; level: the loss, smoothed; risen: steps in a row that it was too
    high; rank: the greatest effective rank; sound: whether any look at the embedding was good; looks: bad looks in a
    row; since: the step of the first of them.
    """

    first: list[float] = field(default_factory=list)
    lowest: float = 0.0
    level: float = 0.0
    risen: int = 0
    rank: float = 0.0
    sound: bool = False
    looks: int = 0
    since: int = 0

    def see(self, step: int, loss: float, health: Mapping[str, float]) -> None:
        """A step's finite loss, and its health figures where they were read. TrainingError for a run to be stopped."""
        self._see_loss(step, loss)
        self._see_embedding(step, health.get("feature_std"), health.get("effective_rank"))

    def _see_loss(self, step: int, loss: float) -> None:
        if len(self.first) < START:
            self.first.append(loss)
            self.lowest, self.level = min(self.first), fmean(self.first)
            return
        start, self.lowest = fmean(self.first), min(self.lowest, loss)
        allowed = max(2 * abs(start), 1.0 if self.lowest <= 0 else 0.0)  # near 0, as a cosine is, three times is noise
        self.level += (min(loss, start + 5 * allowed) - self.level) / SMOOTHED
        self.risen = self.risen + 1 if self.level > start + allowed else 0
        if self.risen >= SUSTAINED:
            raise TrainingError(
                f"The loss diverges: {loss:.3g} at step {step}, and far above its start, {start:.3g}, for the last "
                f"{self.risen} steps", expected="a loss that falls",
                remedy=f"lower train.optim.lr, lengthen train.optim.warmup or set train.clip=1.0, {GO_ON}")

    def _see_embedding(self, step: int, spread: float | None, rank: float | None) -> None:
        if spread is None and rank is None:
            return
        self.rank = max(self.rank, rank or 0.0)
        to_a_point = spread is not None and spread < SPREAD
        to_a_line = rank is not None and rank < RANK and self.rank > BEST_RANK
        if not (to_a_point or to_a_line):
            self.sound, self.looks = True, 0
            return
        self.since = self.since if self.looks else step
        self.looks += 1
        patience = 1 if self.sound else 10
        if self.looks >= patience * LOOKS and step - self.since >= patience * STEPS:
            raise TrainingError(
                f"The embedding has collapsed to a {'point' if to_a_point else 'line'}: "
                f"{_told(spread, rank)} at step {step}, and no better since step {self.since}",
                expected=f"a feature_std near 1 (at least {SPREAD:g}), and an effective_rank above {RANK:g}",
                remedy="try a larger train.batch_size, a lower train.optim.lr, stronger augmentation (augment.spatial, "
                       f"augment.intensity) and, with SimSiam, objective.fix_predictor_lr=true, {GO_ON}")


def _told(spread: float | None, rank: float | None) -> str:
    figures = {"feature_std": spread, "effective_rank": rank}
    return " and ".join(f"{name} {value:.3g}" for name, value in figures.items() if value is not None)
