"""Label fractions: nested, stratified draws of patients (1 % ⊂ 5 % ⊂ 10 % ...), the x-axis of every curve.

All fractions of a seed are beginnings of one ordering of the patients, so they nest whatever fractions are asked for.
The ordering keeps every stratum of share λ within one patient of λ·n in every beginning of n patients. That is
Tijdeman's chairman assignment problem (Discrete Mathematics 32, 1980): the j-th patient of a stratum may come no
earlier than place ⌊(j−1)/λ⌋+1 and no later than ⌈j/λ⌉, and taking the most urgent first meets all deadlines (Steiner &
Yeomans, Management Science 39, 1993). Within that freedom the first patient of each stratum then moves to the front.
"""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Hashable, Iterable, Sequence

import numpy as np

from medssl.data.split import shuffled_strata
from medssl.errors import ConfigError

LEAST_PATIENTS = 2


def nested_fractions(
    patients: Sequence[str], strata: Sequence[Hashable], fractions: Sequence[float], seed: int,
    name: str = "label fractions",
) -> dict[float, list[str]]:
    """Draws round(f·n) of n patients for each fraction f (halves up, at least 2), smaller draws within larger ones.

    patients, strata: of equal length, each patient once; with labels as strata, every label is represented as early as
    proportion allows. Every stratum holds its proportionate number within ±1. The same patients and seed give the same
    draws in whatever order they come, and others under another `name`. Raises ConfigError for a fraction outside (0, 1]
    or fewer than 2 patients.
    """
    wrong = [f for f in fractions if not 0 < f <= 1]
    if wrong:
        raise ConfigError(f"Label fraction {wrong[0]}", expected="a share in (0, 1]", remedy="write 0.05 for 5 %")
    if len(patients) < LEAST_PATIENTS:
        raise ConfigError(f"{len(patients)} patient(s) to draw label fractions from", expected="at least 2 patients")
    groups = shuffled_strata(patients, strata, name, seed)
    waiting = [iter(group) for group in groups]
    order = [next(waiting[stratum]) for stratum in _sequence([len(group) for group in groups])]
    return {f: order[: max(LEAST_PATIENTS, _number(f, len(order)))] for f in fractions}


def distinct_fractions(fractions: Sequence[float], patients: int) -> list[float]:
    """Those that draw at least 2 of so many patients, and more than the next smaller one, rising."""
    found, most = [], LEAST_PATIENTS - 1
    for fraction in sorted(fractions):
        if (number := _number(fraction, patients)) > most:
            found.append(fraction)
            most = number
    return found


def _number(fraction: float, patients: int) -> int:
    return int(np.floor(fraction * patients + 0.5))


def subset_digest(patients: Iterable[str]) -> str:
    """12 hex digits of a set of patients, whatever their order."""
    return hashlib.sha256("\n".join(sorted(set(patients))).encode()).hexdigest()[:12]


def _sequence(sizes: list[int]) -> list[int]:
    """Which stratum takes each of sum(sizes) places: every beginning proportionate within one, newcomers early."""
    total = sum(sizes)
    released: list[list[int]] = [[] for _ in range(total)]  # the strata whose next patient may come from this place on
    released[0].extend(range(len(sizes)))
    taken, order, slack, ready = [0] * len(sizes), [], [], []
    for place in range(total):
        for stratum in released[place]:
            heapq.heappush(ready, (_deadline(taken[stratum], sizes[stratum], total), stratum))
        deadline, stratum = heapq.heappop(ready)
        order.append(stratum)
        slack.append(deadline - place)
        taken[stratum] += 1
        if taken[stratum] < sizes[stratum]:  # 0-based place ⌊j/λ⌋ of the next one, λ = size / total
            released[max(place + 1, taken[stratum] * total // sizes[stratum])].append(stratum)
    return _newcomers_first(order, slack)


def _deadline(taken: int, size: int, total: int) -> int:
    """The last 0-based place at which a stratum's next patient may come: ⌈(taken + 1)/λ⌉ − 1."""
    return -(-(taken + 1) * total // size) - 1


def _newcomers_first(order: list[int], slack: list[int]) -> list[int]:
    """Moves the first patient of each stratum as far forward as those it passes can be put back by one place.

    Newcomers keep their own order, so that a rare stratum does not come before a common one.
    """
    then = -1
    for stratum in dict.fromkeys(order):
        front, now = then + 1, order.index(stratum)
        then = now
        while then > front and slack[then - 1] > 0:
            then -= 1
        order.insert(then, order.pop(now))
        moved = slack.pop(now) + now - then
        slack[then:now] = [room - 1 for room in slack[then:now]]
        slack.insert(then, moved)
    return order
