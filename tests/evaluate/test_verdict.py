"""The verdict's sentences, from tables made by hand: what is claimed, and what must not be."""

import math
from dataclasses import replace

import polars as pl
import pytest

from medssl.evaluate.statistics import COMPARISON, SUMMARY, Experiment
from medssl.evaluate.verdict import verdict

FRACTIONS = (0.05, 0.1, 1.0)
EXPERIMENT = Experiment("classify", baselines={"simsiam": "scratch"},
                        labels={"simsiam": "the SimSiam encoder", "scratch": "the same network from scratch",
                                "pixels": "a logistic regression on 16×16 pixels"})


def points(arms, seeds=10, folds=1, low=-0.05, high=0.05, again=None):
    rows = [(arm, fraction, round(340 * fraction), "auroc", mean, mean + low if low else None,
             mean + high if high else None, seeds, folds, 120, 236, 3 if arm == again else 1)
            for arm, means in arms.items() for fraction, mean in zip(FRACTIONS, means, strict=True)]
    return pl.DataFrame(rows, schema=SUMMARY, orient="row")


def compared(*rows):
    """Rows of difference, p_holm, and (multiplier, low, high), a fraction each."""
    filled = [("simsiam", "scratch", fraction, "auroc", difference, difference - 0.03, difference + 0.03, p, p, *times)
              for fraction, (difference, p, times) in zip(FRACTIONS, rows, strict=True)]
    return pl.DataFrame(filled, schema=COMPARISON, orient="row")


ARMS = {"scratch": (0.6, 0.7, 0.8), "simsiam": (0.61, 0.79, 0.81)}
NONE = (0.01, 0.9, (1.1, 0.5, 3.0))
GAIN = (0.09, 0.004, (2.6, 1.4, math.inf))


def test_a_gain_is_told_with_the_labels_it_saves():
    lines = verdict(EXPERIMENT, points(ARMS), compared(NONE, GAIN, NONE))
    assert lines == [
        "With 10 % of the labels (34 patients), the SimSiam encoder reached AUROC 0.79 (95 % interval 0.74 to 0.84), "
        "which the same network from scratch reached only with 2.6× as many (interval 1.4× to more than 10×). The gain "
        "was shown at 10 % of the labels (corrected for 3 fractions), and could not be shown at 5 % and 100 %.",
        "Every point is the mean over 10 label seeds, judged on 120 test patients (236 cases). The 95 % intervals "
        "cover new patients and new label seeds, not a second pretraining run.",
    ]


def test_whom_strangers_weights_saw_is_said_to_be_unknown():
    lines = verdict(replace(EXPERIMENT, strangers=["simsiam"]), points(ARMS), compared(NONE, GAIN, NONE))
    assert lines[-1].startswith("Whom the weights that the SimSiam encoder started from had seen is unknown")


def test_no_saving_is_claimed_without_the_corrected_test():
    lines = verdict(EXPERIMENT, points(ARMS), compared(NONE, (0.09, 0.06, (2.6, 1.4, 5.0)), NONE))
    assert lines[0] == ("Pretraining saved no labels that this experiment could show: at its best, the difference of "
                        "the SimSiam encoder to the same network from scratch was +0.090 at 10 % of the labels (95 % "
                        "interval +0.060 to +0.120; corrected p = 0.06).")
    assert not any("×" in line for line in lines)


def test_harm_is_told():
    lines = verdict(EXPERIMENT, points(ARMS), compared((-0.05, 0.01, (1.0, 1.0, 1.0)), NONE, NONE))
    assert lines[0].startswith("Pretraining saved no labels")
    assert lines[1] == ("Pretraining hurt at 5 % of the labels (−0.050, 95 % interval −0.080 to −0.020): there the "
                        "SimSiam encoder was worse than the same network from scratch.")


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ((0.2, 0.001, (math.inf, 4.0, math.inf)),
         "from scratch did not reach with 20× as many (label multiplier more than 20×, interval 4× to more than 20×)"),
        ((0.02, 0.001, (1.0, 1.0, 3.2)),
         "0.020 (95 % interval −0.010 to 0.050) better than the same network from scratch, whose curve is so flat"),
        ((0.1, 0.001, (3.0, 1.0, 3.4)), "with 3× as many (interval at most 1× to 3.4×)"),
    ],
)
def test_the_ends_of_the_curve_are_told_as_bounds(row, words):
    assert words in verdict(EXPERIMENT, points(ARMS), compared(row, NONE, NONE))[0]


def test_what_was_not_pretrained_is_not_said_to_have_been():
    arm = next(iter(EXPERIMENT.baselines))
    fresh = replace(EXPERIMENT, labels={**EXPERIMENT.labels, arm: "the deeper network"}, fresh=[arm])
    lines = verdict(fresh, points(ARMS), compared(NONE, NONE, NONE))
    assert lines[0].startswith("The deeper network saved no labels")
    assert "retrain" not in " ".join(lines).replace("second pretraining run", "")


def test_a_small_gain_is_not_rounded_to_none():
    line = verdict(EXPERIMENT, points(ARMS), compared(NONE, NONE, (0.004, 0.01, (math.inf, 1.0, math.inf))))[0]
    assert "0.004 (95 % interval" in line


def test_with_all_labels_a_gain_saves_none():
    line = verdict(EXPERIMENT, points(ARMS), compared(NONE, NONE, (0.05, 0.01, (math.inf, 1.0, math.inf))))[0]
    assert line.startswith("With all the labels (340 patients), the SimSiam encoder reached AUROC 0.81")
    assert "there are no more labels to compare with" in line


@pytest.mark.parametrize(("seeds", "words"), [(1, "One label seed cannot tell"), (3, "Only 3 label seeds stand behind"),
                                              (9, "Only 9 label seeds stand behind"), (10, None)])
def test_few_seeds_are_warned_of(seeds, words):
    lines = verdict(EXPERIMENT, points(ARMS, seeds=seeds), compared(NONE, GAIN, NONE))
    assert lines[-1].startswith(words) if words else "seeds stand behind" not in lines[-1]


def test_one_seed_has_no_interval_to_tell():
    lines = verdict(EXPERIMENT, points(ARMS, seeds=1, low=None, high=None),
                    compared(*[(0.1, 1.0, (2.0, None, None))] * 3).with_columns(low=pl.lit(None, pl.Float64)))
    assert "No interval is given." in lines[1]
    assert "(no interval; corrected p = 1)" in lines[0]


def test_trivial_arms_are_told_for_scale_where_the_gain_is():
    arms = ARMS | {"pixels": (0.7, 0.75, 0.76)}
    line = verdict(EXPERIMENT, points(arms), compared(NONE, GAIN, NONE))[-2]
    assert line == ("For scale: with 10 % of the labels (34 patients), a logistic regression on 16×16 pixels reached "
                    "AUROC 0.75 (95 % interval 0.70 to 0.80).")
    beaten = verdict(EXPERIMENT, points(arms | {"pixels": (0.7, 0.8, 0.9)}), compared(NONE, GAIN, NONE))[-2]
    assert "no pretrained arm did better (the SimSiam encoder: AUROC 0.79" in beaten


def test_folds_are_named():
    assert "(236 cases) in 5 folds." in verdict(EXPERIMENT, points(ARMS, folds=5), compared(NONE, NONE, NONE))[-1]


def test_how_many_pretrainings_stand_behind_an_arm_is_said():
    line = verdict(EXPERIMENT, points(ARMS, again="simsiam"), compared(NONE, GAIN, NONE))[-1]
    assert line == ("Every point is the mean over 10 label seeds (and over 3 pretrainings of the SimSiam encoder), "
                    "judged on 120 test patients (236 cases). The 95 % intervals cover new patients, new label seeds "
                    "and new pretrainings of these.")
