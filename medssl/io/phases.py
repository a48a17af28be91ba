"""4-D series: slices that come several times at every place, told apart by contrast and time.

What tells them apart is found, not told: the fewest marks (io/marks.py) that differ among all the slices of every
place. Contrasts must have the same values at every place; times may differ from place to place, as trigger times do
with the heart rate, and then count by their order.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, combinations

import numpy as np

from medssl.errors import GeometryError
from medssl.io.dicom import Instance
from medssl.io.marks import CONTRASTS, MILLISECONDS, TIMES

_EVEN_TIME = 0.05
"""Frames may come this share of their distance (or 1 ms) early or late and still count as evenly timed."""

Places = Sequence[Sequence[Instance]]
Key = tuple[tuple, float | None]


@dataclass(frozen=True)
class Phases:
    """Slices by what tells them apart.

    by_place: for every place, in order, {(contrasts, time): slice} in the order of the keys. The time is None where
        contrasts alone tell the slices apart.
    """

    by_place: list[dict[Key, Instance]]

    def volumes(self) -> list[list[Instance]]:
        """For every contrast and time, its slices in the order of the places; some places may lack it."""
        keys = sorted(set(chain(*self.by_place)))
        return [[place[key] for place in self.by_place if key in place] for key in keys]

    def clips(self) -> list[tuple[int, list[Instance]]]:
        """For every place, as its number from 1, and every contrast, its slices in the order of time."""
        clips: dict[tuple[int, tuple], list[Instance]] = {}
        for number, place in enumerate(self.by_place, start=1):
            for (contrast, _), one in place.items():
                clips.setdefault((number, contrast), []).append(one)
        return [(number, clip) for (number, _), clip in clips.items()]

    @property
    def timed(self) -> bool:
        """Whether slices of one place follow each other in time, and do not only differ in contrast."""
        return any(time is not None for place in self.by_place for _, time in place)


def phases_of(places: Places) -> Phases:
    """How the slices of several places, each with several, are told apart; GeometryError where nothing does so.

    Some places may lack some phases.
    """
    counts = sorted({len(place) for place in places})
    contrasts, times = ([mark for mark in marks if _varies(mark, places)] for marks in (CONTRASTS, TIMES))
    for some_contrasts, time in _choices(contrasts, times):
        keyed = _keyed(places, some_contrasts, time)
        if keyed is not None:
            return keyed
    often = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    raise GeometryError(
        f"Slices come {often} times at each of {len(places)} place(s), and nothing tells consistently which belong"
        " together",
        expected="one slice a place, or a time or contrast that tells them apart",
        remedy="export phases, echoes or repeats as series of their own",
    )


def frame_time(clip: Sequence[Instance]) -> float | None:
    """ms between the slices of a clip, from the first measured time that rises evenly; None where there is none."""
    for mark, ms in MILLISECONDS.items():
        if all(mark in one.marks for one in clip):
            steps = np.diff([one.marks[mark] for one in clip]) * ms
            if steps.min() > 0 and np.abs(steps - steps.mean()).max() <= max(1.0, _EVEN_TIME * steps.mean()):
                return float(steps.mean())
    return None


def _varies(mark: str, places: Places) -> bool:
    """Whether every slice has the mark, and two of one place differ in it."""
    return all(mark in one.marks for one in chain(*places)) and any(
        len({one.marks[mark] for one in place}) > 1 for place in places
    )


def _choices(contrasts: list[str], times: list[str]) -> Iterator[tuple[tuple[str, ...], str | None]]:
    """Sets of marks, the smallest first, and of one size those without a time first."""
    for size in range(1, 4):
        for some in combinations(contrasts, size):
            yield some, None
        for some in combinations(contrasts, size - 1):
            for time in times:
                yield some, time


def _keyed(places: Places, contrasts: tuple[str, ...], time: str | None) -> Phases | None:
    """The phases by these marks, or None where they do not tell all slices of a place apart, or not consistently."""
    by_place = []
    for place in places:
        keys = [(tuple(one.marks[mark] for mark in contrasts), one.marks[time] if time else None) for one in place]
        if len(set(keys)) < len(keys):
            return None
        by_place.append(dict(sorted(zip(keys, place, strict=True), key=lambda pair: pair[0])))
    if len(set(chain(*by_place))) > max(map(len, by_place)):  # a value that one place has alone: only order is left
        by_place = [_ranked(place) for place in by_place]
        if time is None or len({tuple(place) for place in by_place}) > 1:
            return None
    return Phases(by_place)


def _ranked(place: dict[Key, Instance]) -> dict[Key, Instance]:
    """The same slices with the rank of their time among those of one contrast in place of the time itself."""
    ranks: dict[tuple, int] = {}
    ranked = {}
    for (contrast, _), one in place.items():
        ranks[contrast] = ranks.get(contrast, 0) + 1
        ranked[contrast, ranks[contrast]] = one
    return ranked
