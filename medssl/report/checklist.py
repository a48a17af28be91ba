"""CLAIM, the checklist of studies of AI in medical imaging, filled in as far as a curve's folder knows.

Items by their numbers in Mongan, Moy and Kahn, Radiology: Artificial Intelligence 2(2), 2020,
doi:10.1148/ryai.2020200029, in our words.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

import polars as pl

from medssl.evaluate.failures import UNCHOSEN
from medssl.report import words
from medssl.report.cells import Cell, Group, Table
from medssl.report.tables import Curve

YOURS = "yours to say"
"""Of what no program knows."""


def checklist(curve: Curve) -> Table:
    """A row an item: its number, what it asks, and the answer or that it is the authors'."""
    groups = {
        "Title, abstract, introduction": {"1–4": ("title, summary, background and objectives", YOURS)},
        "Study design": {"5": ("prospective or retrospective", YOURS), "6": ("goal of the study", _goal(curve))},
        "Data": _data(curve),
        "Ground truth": {"14–18": ("definition, rationale, source and tools of the labels, and how annotators agree",
                                   YOURS)},
        "Partitions": {"19": ("intended sample size", YOURS), "20": ("how data were assigned", curve.head.protocol),
                       "21": ("level at which partitions are disjoint", f"patients, in every split, fold and label "
                              f"fraction; {seen_by_pretraining(curve)}")},
        "Model and training": _model(curve),
        "Evaluation": _evaluation(curve),
        "Results": _results(curve),
        "Discussion and other information": {
            "38": ("limitations", "what the intervals do not cover is told below; the rest is " + YOURS),
            "39": ("implications for practice", YOURS), "40": ("registration", YOURS),
            "41": ("where the full protocol can be found", "the recipe and provenance on this page"),
            "42": ("funding", YOURS)},
    }
    rows = [Group(name, [[Cell(number), Cell(asked), Cell(answer)] for number, (asked, answer) in items.items()])
            for name, items in groups.items()]
    return Table("Checklist after CLAIM, filled in from what the run recorded", ["item", "asks for", "answer"], rows)


Items = dict[str, tuple[str, str]]


def seen_by_pretraining(curve: Curve) -> str:
    """What is known of whom the weights saw that the arms start from."""
    starts = curve.provenance.get("starts", {})
    strangers = [curve.label(arm) for arm, origin in starts.items() if origin.get("patients") == "unknown"]
    told = "pretraining saw no judged patient, which the digests that its models carry were looked up for"
    return f"{told}; whom the weights of {', '.join(strangers)} saw is unknown" if strangers else told


def _goal(curve: Curve) -> str:
    compared = [curve.label(arm) for arm in curve.head.baselines]
    return f"how many labels pretraining saves ({'; '.join(compared)})" if compared else "how scores grow with labels"


def _data(curve: Curve) -> Items:
    study, recipe = curve.study, curve.recipe
    where = _told(recipe.get("data", {}).get("where", {}))
    prepared, task = _told(recipe.get("data", {}).get("prepare", {})), _told(recipe.get("task", {}))
    about = f"{study.about} As the card {study.card} reads it." if study else YOURS
    left = "; ".join(f"{reason} ({count})" for reason, count in study.left_out) if study else ""
    return {
        "7": ("data sources", about),
        "8": ("eligibility", f"kept are cases with {where}; inclusion and dates are {YOURS}" if where else YOURS),
        "9": ("preprocessing", prepared or YOURS),
        "10": ("selection of data subsets", where or "none by the recipe"),
        "11": ("definitions of data elements",
               f"the task's settings are {task}; what its labels mean is {YOURS}" if task else YOURS),
        "12": ("de-identification", "people are named by keyed pseudonyms; no header field that identifies anyone is "
               "read, and no path, name or date is in this page's tables. Pictures are the patients' scans"),
        "13": ("missing data", (f"left out: {left}" if left else "no case was left out") if study else YOURS),
    }


def _model(curve: Curve) -> Items:
    recipe, provenance = curve.recipe, curve.provenance
    arms = {curve.label(arm): settings for arm, settings in recipe.get("arms", {}).items()
            if isinstance(settings, dict)}
    starts = "; ".join(f"{label}: {_start(settings)}" for label, settings in arms.items())
    tuned = "".join(f"; {label}: {told}" for label, settings in arms.items()
                    if (told := _told(_beside(settings.get("tuning", {}), 1.0, None, "fresh"))))
    rates = "".join(f"; {label} has a learning rate of its own, {settings['lr']:g}" for label, settings in arms.items()
                    if settings.get("lr"))
    chosen, unchosen = recipe.get("choice"), _unchosen(curve)
    software = _told({"medssl": provenance.get("medssl"), **provenance.get("packages", {})})
    return {
        "22": ("description of the model", "encoder, head and objective stand in the recipe on this page"),
        "23": ("software and hardware", ", ".join(filter(None, (software, provenance.get("device"))))),
        "24": ("initialisation", starts or YOURS),
        "25": ("training",
               f"{_told(recipe.get('train', {}))}; augmentation: {_told(recipe.get('augment', {}))}{tuned}"),
        "26": ("how the final model was chosen",
               "the last step's weights of each training" + (f"; learning rates within each point by {_told(chosen)}"
                                                             if chosen else "; nothing was chosen on judged patients")
               + (f"; {unchosen} of the points could choose none and took the budget's" if unchosen else "")
               + rates),
        "27": ("ensembling", "none: every trained model is judged by itself"),
    }


def _unchosen(curve: Curve) -> int:
    if curve.failures is None or curve.failures.rates is None:
        return 0
    return curve.failures.rates.filter(pl.col("what") == UNCHOSEN)["points"].sum()


def _evaluation(curve: Curve) -> Items:
    seeds = words.span(curve.summary["seeds"])
    again = curve.recipe.get("pretrainings", 1)
    repeated = f", and {again} pretrainings of the arms that are pretrained again," if again > 1 else ""
    given = (f"{words.LEVEL} t intervals over test patients and {seeds} label seeds{repeated} together; paired tests, "
             "corrected for the fractions by Holm's method")
    return {
        "28": ("metrics of performance", ", ".join(map(curve.metric_name, curve.metrics))),
        "29": ("uncertainty and significance", given if curve.has_intervals(curve.head.primary) else
               f"none of the {curve.metric_name(curve.head.primary)}, for the reason that the verdict gives"),
        "30": ("robustness", YOURS),
        "31": ("explainability", YOURS),
        "32": ("validation on external data", YOURS),
    }


def _results(curve: Curve) -> Items:
    study = curve.study
    flow = "; ".join(f"{split}: {patients} patients, {cases} cases"
                     for split, (patients, cases) in study.splits.items()) if study else YOURS
    return {
        "33": ("flow of participants", flow),
        "34": ("characteristics by partition", "the tables of this page" if study and study.groups else YOURS),
        "35–36": ("performance with its uncertainty", "the tables of this page"),
        "37": ("failure analysis",
               "the failures of the compared arms and their baselines, and their worst cases, are listed on this page"
               if curve.failures else
               "the worst cases are shown on this page" if curve.examples or curve.ranked else YOURS),
    }


def _start(settings: Mapping[str, Any]) -> str:
    if settings.get("pretrain"):
        return f"pretrained by {settings['pretrain'].get('objective', {}).get('name', 'a recipe')} within the curve"
    if settings.get("init"):
        return f"from {PurePath(str(settings['init'])).name}"
    if settings.get("weights_of"):
        return f"the weights of {settings['weights_of']}"
    return "no network" if settings.get("how") == "pixels" else "random weights"


def _beside(settings: Mapping[str, Any], *usual: Any) -> dict[str, Any]:
    """What is set to other than these."""
    return {name: value for name, value in settings.items() if value not in usual}


def _told(settings: Mapping[str, Any]) -> str:
    """`size 64 64, spatial.rotate 7`: what is set, without what is off."""
    return ", ".join(f"{key} {value}" for key, value in _leaves(settings))


def _leaves(settings: Any, key: str = "") -> list[tuple[str, str]]:
    if isinstance(settings, Mapping):
        return [leaf for name, value in settings.items() for leaf in _leaves(value, f"{key}.{name}" if key else name)]
    if isinstance(settings, list):
        if any(isinstance(each, Mapping) for each in settings):
            return [(key, "; ".join(" ".join(f"{name} {value}".strip() for name, value in _leaves(each))
                                    for each in settings))]
        return [(key, " ".join(map(str, settings)))] if settings else []
    return [] if settings in (None, False, "") else [(key, str(settings))]
