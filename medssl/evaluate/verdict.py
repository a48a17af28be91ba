"""The last page's sentences: how many labels pretraining saved, and how sure that is. Written from the tables alone.

A saving is claimed only where the paired difference survives Holm's correction over the fractions, and is told at the
smallest such fraction, so that no one picks the best-looking.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import polars as pl

from medssl.evaluate.scoring import FEWEST_FOR_INTERVAL, PRIMARY, higher_is_better

if TYPE_CHECKING:
    from medssl.evaluate.statistics import Experiment

LEVEL = 0.05
ENOUGH_SEEDS = 10
NAMES = {"auroc": "AUROC", "dice": "Dice", "mae": "a mean absolute error of"}


def verdict(experiment: Experiment, summary: pl.DataFrame, comparison: pl.DataFrame) -> list[str]:
    """Sentences on the primary metric: the protocol, each arm against its baseline, the trivial arms, warnings."""
    teller = Teller(experiment, summary, comparison)
    return [*(line for arm in experiment.baselines for line in teller.against_baseline(arm)), *teller.trivial_arms(),
            teller.protocol(), *teller.warnings()]


class Teller:
    """Says in words what an experiment's tables hold of the primary metric."""

    def __init__(self, experiment: Experiment, summary: pl.DataFrame, comparison: pl.DataFrame) -> None:
        self.experiment = experiment
        self.metric = PRIMARY[experiment.task]
        mine = summary.filter(pl.col("metric") == self.metric)
        self.points = {(row["arm"], row["fraction"]): row for row in mine.iter_rows(named=True)}
        self.arms = mine["arm"].unique(maintain_order=True).to_list()
        self.fractions = sorted(mine["fraction"].unique().to_list())
        self.tests = {arm: list(comparison.filter(pl.col("metric") == self.metric, pl.col("arm") == arm)
                                .sort("fraction").iter_rows(named=True)) for arm in experiment.baselines}
        self.any_row = next(iter(self.points.values()))
        self.unit = f" {experiment.unit}" if experiment.unit else ""

    def protocol(self) -> str:
        row = self.any_row
        tested = f"{_count(row['test_patients'], 'test patient')} ({_count(row['test_cases'], 'case')})"
        folds = f" in {row['folds']} folds" if row["folds"] > 1 else ""
        covers = self._covered() if row["low"] is not None else "No interval is given."
        return (f"Every point is the mean over {_count(row['seeds'], 'label seed')}{self._pretrained()}, "
                f"judged on {tested}{folds}. {covers}")

    def _pretrained(self) -> str:
        """How many pretrainings stand behind which arms, where anything was pretrained again."""
        often = [arm for arm in self.arms if self.points[arm, self.fractions[0]]["pretrainings"] > 1]
        if not often:
            return ""
        number = self.points[often[0], self.fractions[0]]["pretrainings"]
        return f" (and over {number} pretrainings of {listed([self.experiment.label(arm) for arm in often])})"

    def _covered(self) -> str:
        if self._pretrained():
            return "The 95 % intervals cover new patients, new label seeds and new pretrainings of these."
        return "The 95 % intervals cover new patients and new label seeds, not a second pretraining run."

    def against_baseline(self, arm: str) -> list[str]:
        shown = [test for test in self.tests[arm] if test["p_holm"] < LEVEL]
        better, worse = ([t for t in shown if t["difference"] > 0], [t for t in shown if t["difference"] < 0])
        lines = [self._saved(better)] if better else []
        if not better:
            lines.append(self._saved_nothing(arm))
        if worse:
            lines.append(self._hurt(worse))
        return lines

    def trivial_arms(self) -> list[str]:
        """At the smallest fraction where a gain was shown, otherwise the smallest of all."""
        compared = {*self.experiment.baselines, *self.experiment.baselines.values()}
        gains = [test["fraction"] for tests in self.tests.values() for test in tests
                 if test["p_holm"] < LEVEL and test["difference"] > 0]
        fraction = min(gains, default=self.fractions[0])
        sign = 1 if higher_is_better(self.metric) else -1
        best = max((self.points[arm, fraction] for arm in self.experiment.baselines),
                   key=lambda row: sign * row["mean"], default=None)
        lines = []
        for arm in (arm for arm in self.arms if arm not in compared):
            row = self.points[arm, fraction]
            line = f"For scale: {self._with(fraction)}, {self.experiment.label(arm)} reached {self._score(row)}"
            if best is not None and sign * row["mean"] >= sign * best["mean"]:
                any_fresh = any(each in self.experiment.fresh for each in self.experiment.baselines)
                kind = "compared" if any_fresh else "pretrained"
                line += f"; no {kind} arm did better ({self.experiment.label(best['arm'])}: {self._score(best)})"
            lines.append(line + ".")
        return lines

    def warnings(self) -> list[str]:
        return [*self._strangers(), *self._few_seeds(), *self._few_patients()]

    def _strangers(self) -> list[str]:
        if not self.experiment.strangers:
            return []
        names = listed([self.experiment.label(arm) for arm in self.experiment.strangers])
        return [f"Whom the weights that {names} started from had seen is unknown: judged patients cannot be excluded, "
                "and would flatter these figures."]

    def _few_seeds(self) -> list[str]:
        seeds = self.any_row["seeds"]
        if seeds == 1:
            return ["One label seed cannot tell luck from gain: no interval is given and nothing is claimed. "
                    f"Run {ENOUGH_SEEDS} label seeds."]
        if seeds < ENOUGH_SEEDS:
            return [f"Only {seeds} label seeds stand behind this. Three or four seeds can mislead, whatever their "
                    f"intervals say: run {ENOUGH_SEEDS} before a claim."]
        return []

    def _few_patients(self) -> list[str]:
        if self.any_row["seeds"] == 1 or self.any_row["low"] is not None:
            return []
        if self.any_row["test_patients"] < FEWEST_FOR_INTERVAL or self.experiment.task != "classify":
            return [f"Fewer than {FEWEST_FOR_INTERVAL} patients (of a fold) were judged: no interval is given and "
                    "nothing is claimed. Judge more."]
        return [f"Fewer than {FEWEST_FOR_INTERVAL} judged patients (of a fold) have some finding, or lack it: no "
                "interval is given and nothing is claimed. Judge more patients, or leave that finding out."]

    def _saved(self, better: list[dict]) -> str:
        test = better[0]
        arm, baseline = (self.experiment.label(test[key]) for key in ("arm", "baseline"))
        fraction, last = test["fraction"], self.fractions[-1]
        line = f"{self._with(fraction)}, {arm} reached {self._score(self.points[test['arm'], fraction])}"
        if fraction == last:
            line += f", {self._difference(test)} better than {baseline}; there are no more labels to compare with"
        elif math.isinf(test["multiplier"]):
            line += (f", which {baseline} did not reach with {_times(last / fraction)} as many "
                     f"(label multiplier {self._multiplier(test)})")
        elif test["multiplier"] > 1:
            line += (f", which {baseline} reached only with {_times(test['multiplier'])} as many "
                     f"({self._multiplier_interval(test)})")
        else:
            line += (f", {self._difference(test)} better than {baseline}, whose curve is so flat there that no saving "
                     "of labels can be put on it")
        return _sentence(line) + self._elsewhere(better)

    def _elsewhere(self, better: list[dict]) -> str:
        proven = {test["fraction"] for test in better}
        others, unproven = ([percent(f) for f in self.fractions if (f in proven) is known] for known in (True, False))
        text = f" The gain was shown at {listed(others)} of the labels (corrected for {len(self.fractions)} fractions)"
        return text + (f", and could not be shown at {listed(unproven)}." if unproven else ".")

    def _saved_nothing(self, arm: str) -> str:
        largest = max(self.tests[arm], key=lambda test: test["difference"])
        ours, theirs = (self.experiment.label(largest[key]) for key in ("arm", "baseline"))
        return (f"{self._what(arm)} saved no labels that this experiment could show: at its best, the difference of "
                f"{ours} to {theirs} was {self.number(largest['difference'], signed=True)} "
                f"at {percent(largest['fraction'])} of the labels ({self.surety(largest)}).")

    def _hurt(self, worse: list[dict]) -> str:
        places = listed([f"{percent(t['fraction'])} of the labels ({self.number(t['difference'], signed=True)}, "
                          f"{self.interval(t, signed=True)})" for t in worse])
        ours, theirs = (self.experiment.label(worse[0][key]) for key in ("arm", "baseline"))
        return f"{self._what(worse[0]['arm'])} hurt at {places}: there {ours} was worse than {theirs}."

    def _what(self, arm: str) -> str:
        """What sets a compared arm apart."""
        label = self.experiment.label(arm)
        return label[0].upper() + label[1:] if arm in self.experiment.fresh else "Pretraining"

    def _with(self, fraction: float) -> str:
        patients = self.points[self.arms[0], fraction]["train_patients"]
        labels = "all the labels" if fraction == 1 else f"{percent(fraction)} of the labels"
        return f"with {labels}" + (f" ({_count(patients, 'patient')})" if patients is not None else "")

    def _score(self, row: dict) -> str:
        interval = f" ({self.interval(row)})" if row["low"] is not None else ""
        return f"{NAMES[self.metric]} {self.number(row['mean'])}{self.unit}{interval}"

    def _difference(self, test: dict) -> str:
        low, difference, high = (self.number(test[name], exact=True) for name in ("low", "difference", "high"))
        return f"{difference}{self.unit} (95 % interval {low} to {high})"

    def interval(self, row: dict, signed: bool = False) -> str:
        return f"95 % interval {self.number(row['low'], signed)} to {self.number(row['high'], signed)}"

    def surety(self, test: dict) -> str:
        """A difference's interval and p, for brackets."""
        interval = "no interval" if test["low"] is None else self.interval(test, signed=True)
        return f"{interval}; corrected p {_p(test['p_holm'])}"

    def number(self, value: float, signed: bool = False, exact: bool = False) -> str:
        """Differences, signed or not, are told more exactly than scores."""
        digits = (3 if signed or exact else 2) if self.metric in ("auroc", "dice") else (2 if abs(value) < 10 else 1)
        return f"{value:{'+' if signed else ''}.{digits}f}".replace("-", "−")

    def _multiplier(self, test: dict) -> str:
        return f"{self._bounded(test, 'multiplier')}, {self._multiplier_interval(test)}"

    def _multiplier_interval(self, test: dict) -> str:
        return f"interval {self._bounded(test, 'multiplier_low')} to {self._bounded(test, 'multiplier_high')}"

    def _bounded(self, test: dict, key: str) -> str:
        """A multiplier in words: the two ends of the curve are bounds."""
        value, fraction = test[key], test["fraction"]
        if math.isinf(value):
            return f"more than {_times(self.fractions[-1] / fraction)}"
        least = self.fractions[0] / fraction
        return f"at most {_times(least)}" if value <= least * (1 + 1e-9) else _times(value)


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:] + "."


def percent(fraction: float) -> str:
    return f"{100 * fraction:.3g} %"


def _times(value: float) -> str:
    if value < 1:
        return f"{value:.2g}×"
    return f"{value:.0f}×" if value >= 10 or value == round(value) else f"{value:.1f}×"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def listed(items: list[str]) -> str:
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"= {value:.2g}"
