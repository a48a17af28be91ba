"""Whether a finetuned classification notices that it is shown what it does not know: another body part, another device.

The medical counterpart of ImageNet-O (Hendrycks et al., arXiv 1907.07174). Nothing is fitted on what is strange.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import torch
from torch import Tensor

from medssl.data.source import Data, open_data
from medssl.errors import ConfigError
from medssl.evaluate.account import leave
from medssl.evaluate.scoring import DRAWS, FEWEST_FOR_INTERVAL
from medssl.evaluate.single import judged_folder, open_finetuned
from medssl.metrics.classify import auprc, auroc
from medssl.metrics.intervals import patient_weights, percentiles
from medssl.metrics.ood import energy, fpr_at_95, neighbour_distance, unsure
from medssl.models.start import open_start
from medssl.rng import stream
from medssl.tasks import LabelledModel
from medssl.train.bar import Bar
from medssl.train.build import refuse_seen
from medssl.train.features import mean_over_boxes
from medssl.train.finetune import FinetuneConfig
from medssl.train.run import patient_digest

SCORES = ("unsure", "energy", "neighbours")
METRICS = {"auroc": auroc, "auprc": auprc, "auprc of the known": lambda strange, score, weights: auprc(
    1 - strange, -score, weights), "fpr95": fpr_at_95}


def strangers(run: Path, manifest: Path, split: str, overrides: list[str]) -> tuple[Path, list[dict]]:
    """How well each of SCORES tells the cases of another manifest from the run's own of `split`, as it was trained to
    know neither.

    Returns:
        The table of every case's scores that was written into ood/ of `judged_folder`, named as the manifest's file;
        and a row a score and metric, strange being the positive: mean, and low and high of a bootstrap over the
        patients of both sets.

    Raises:
        ConfigError: the run is no classification, or a set has no case for this.
        LeakageError: the run saw one of the patients.
    """
    config, model, data = open_finetuned(run, overrides)
    if config.task.name != "classify":
        raise ConfigError(f"{run} is a {config.task.name} run, which gives no probabilities of classes",
                          expected="a finetuned classification", remedy="finetune one with task.name=classify")
    with Bar("prepare") as progress:
        other = open_data(config.data.model_copy(update={"manifest": manifest, "where": {}}), progress)
    if other.channels != data.channels or other.dims != data.dims:
        raise ConfigError(f"The cases of {manifest} have {other.channels} channels and {other.dims} axes",
                          expected=f"{data.channels} and {data.dims}, as {run} learnt from",
                          remedy="what a model cannot take in needs no score to be told apart")
    known = data.cases.filter(pl.col("split") == split)
    if not len(known):
        raise ConfigError(f"No case of the run's own in the split {split!r}", remedy="give another --split",
                          expected=f"one of {', '.join(sorted(set(data.cases['split'])))}")
    for name, cases in ((f"the run's split {split!r}", known), (manifest.name, other.cases)):
        if cases["patient_id"].n_unique() < 2:
            raise ConfigError(f"There is one patient in {name}", expected="two or more, for an interval over patients",
                              remedy="give another --split, or a larger set")
    for which, cases in ((data, known), (other, other.cases)):
        refuse_seen(open_start(run), which, cases["patient_id"].unique().to_list())
    _, bank = _told(config, model, data, _learnt_from(run, data))
    table = pl.concat([_scored(config, model, which, cases, bank, strange)
                       for which, cases, strange in ((data, known, False), (other, other.cases, True))])
    path, found = judged_folder(run) / "ood" / f"{manifest.stem}.parquet", separation(table)
    leave(path, table, other.cases, other, split, model.task.config, found)
    return path, found


def separation(table: pl.DataFrame) -> list[dict]:
    """A row a score and metric from case_id, patient_id, strange and SCORES, with its interval over patients, where
    each set has FEWEST_FOR_INTERVAL of them."""
    strange = table["strange"].to_numpy()
    weights = np.zeros((DRAWS, len(table)))
    for kind in (False, True):  # each set keeps its size
        weights[:, strange == kind] = patient_weights(table["patient_id"].to_numpy()[strange == kind],
                                                      stream("bootstrap", str(kind)), DRAWS)
    is_told = min(table.filter(strange=kind)["patient_id"].n_unique() for kind in (False, True)) >= FEWEST_FOR_INTERVAL
    rows = []
    for score in SCORES:
        values = table[score].to_numpy()
        for name, metric in METRICS.items():
            low, high = percentiles(metric(strange.astype(float), values, weights)) if is_told else (None, None)
            rows.append({"metric": f"{name} by {score}", "mean": float(metric(strange.astype(float), values, None)),
                         "low": low, "high": high})
    return rows


def _learnt_from(run: Path, data: Data) -> pl.DataFrame:
    """The run's own training cases, as far as this manifest has them."""
    seen = set(open_start(run).description["patients_seen"])
    patients = [patient for patient in data.training["patient_id"].unique() if patient_digest(patient) in seen]
    if not patients:
        raise ConfigError("The manifest holds none of the patients that the run was trained on, whose neighbours are "
                          "looked for", expected="the manifest of the run's recipe",
                          remedy="give it as data.manifest=…, built with the same pseudonym key")
    return data.training.filter(pl.col("patient_id").is_in(patients))


def _scored(config: FinetuneConfig, model: LabelledModel, data: Data, cases: pl.DataFrame, bank: np.ndarray,
            strange: bool) -> pl.DataFrame:
    logits, features = _told(config, model, data, cases)
    exclusive = config.task.kind == "single_label"
    return cases.select("case_id", "patient_id").with_columns(
        pl.lit(strange).alias("strange"), pl.Series("unsure", unsure(logits, exclusive)),
        pl.Series("energy", energy(logits, exclusive)), pl.Series("neighbours", neighbour_distance(bank, features)))


def _told(config: FinetuneConfig, model: LabelledModel, data: Data, cases: pl.DataFrame) -> tuple[np.ndarray, ...]:
    """Logits (cases, L) and pooled features (cases, D)."""
    def both(images: Tensor) -> Tensor:
        features = model.encoder(images)
        return torch.cat([model.task.logits(features), features.pooled.float()], dim=1)

    found = mean_over_boxes(model, both, data, cases, config.augment, config.train.precision)
    return np.split(found, [len(model.task.names)], axis=1)
