"""One model at a time: a probe of an encoder, a finetuned run judged on a split, or its output for new cases."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import torch

from medssl.config import merge_overrides, path_override, validate
from medssl.data.source import Data, in_words, open_data
from medssl.errors import ConfigError, LeakageError, MedsslError
from medssl.evaluate.account import JUDGING, leave
from medssl.evaluate.agreement import agreement_of_one
from medssl.evaluate.by_group import require_attribute
from medssl.evaluate.calibrate import at_temperature, fit_temperature
from medssl.evaluate.examples import EXAMPLES, Drawn, Ranked, examples_of
from medssl.evaluate.failures import TABLES, failures_of_one, leave_failures
from medssl.evaluate.masks import require_writable, write_masks
from medssl.evaluate.predict import outputs, predict
from medssl.evaluate.probe import probe
from medssl.evaluate.scoring import scores_of_one, with_intervals
from medssl.evaluate.studies import to_be_judged
from medssl.evaluate.transfer import in_our_names
from medssl.files import write_table
from medssl.models.packed import recipe_of
from medssl.models.start import open_start
from medssl.rng import torch_seed
from medssl.tasks import TASKS, Classify, LabelledModel, TaskConfig
from medssl.tasks.saved import SavedModel
from medssl.train.bar import Bar
from medssl.train.build import fitted_encoder, refuse_seen, start_from, tell_account
from medssl.train.features import pooled_features
from medssl.train.finetune import FinetuneConfig, label_fractions

log = logging.getLogger(__name__)

JUDGED = "_judged"
"""Ends the name of the folder beside a model of one file."""
EVERY = "all"
"""In a split's place: the cases of every split."""
ENOUGH = 20
"""Patients of the validation split that a temperature should be fitted on."""
ANEW = {"data.manifest", "data.cache", "data.where", "data.box.judged", "data.prepare.align", "data.prepare.straighten",
        "train.precision", *(f"task.{name}" for name in JUDGING)}
"""All settings of a run's recipe that may be: which cases, where they are kept, how they are read and judged."""


def probe_run(config: FinetuneConfig, split: str) -> list[dict]:
    """Scores of a linear probe on the frozen encoder of `config.init` (or a random one), on `split`."""
    data = open_data(config.data)
    task = TASKS[config.task.name]
    labelled = task.labelled(config.task, data.training)
    chosen = label_fractions(config.task, labelled, [config.fraction], config.seed)[config.fraction]
    judged = _judged(config, data, split)
    if leaked := set(chosen) & set(judged["patient_id"]):
        raise LeakageError(f"The probe learns from {len(leaked)} of the patients of the split {split!r}",
                           expected="none", remedy="give --split validation or test")
    start = open_start(config.init) if config.init else None
    if start:
        refuse_seen(start, data, judged["patient_id"].unique().to_list())
    torch.manual_seed(torch_seed(config.seed, "weights"))
    encoder = fitted_encoder(config.encoder or start.encoder_config, data, config.augment)
    if start:
        tell_account(start, start_from(start, data, encoder))
    cases = labelled.filter(pl.col("patient_id").is_in(chosen))
    features = [pooled_features(encoder, data, part, config.augment, config.train.precision)
                for part in (cases, judged)]
    predictions = probe(config.task, features[0], cases, features[1], judged)
    return scores_of_one(config.task, predictions)


@dataclass(frozen=True)
class Judged:
    """A finetuned run as it was judged: folder/predictions.parquet, and its scores."""

    folder: Path
    task: TaskConfig
    predictions: pl.DataFrame
    scores: list[dict]


def evaluate_run(run: Path, split: str, overrides: list[str], by: str | None = None) -> Judged:
    """Judges a finetuned run on `split`; leaves predictions.parquet in it, or in <file>_judged beside its one file.

    Args:
        by: an attribute that the cases are to have.

    Raises:
        LeakageError: the run saw a patient.
        ConfigError: nobody to judge, or no such attribute.
    """
    config, model, data, judged = open_judged(run, split, overrides, by)
    examples = examples_of(model, data, judged)
    predictions = predict(model, data, judged, config.augment, config.train.precision, keep=examples.keep)
    is_calibrated = config.task.name == "classify" and split not in ("validation", EVERY)
    temperature, held_out = _temperature(run, config, model, data) if is_calibrated else (None, 0)
    if temperature:
        calibrated = at_temperature(_by_class(config.task, predictions["prediction"]), temperature)
        predictions = predictions.with_columns(calibrated=pl.Series(calibrated.ravel(), dtype=pl.Float64))
    folder = judged_folder(run)
    found = scores_of_one(config.task, predictions)
    if temperature:
        scaled = with_intervals(config.task.name, predictions.with_columns(prediction="calibrated"))
        fitted = f"at temperature {temperature:.2f} from {held_out} patients"
        found += [row | {"metric": f"{row['metric']} {fitted}"} for row in scaled if row["metric"] in ("ece", "brier")]
    return _left(folder, predictions, examples, data, split, model.task.config, found)


def evaluate_elsewhere(
    run: Path, manifest: Path, split: str, names: Mapping[str, str], overrides: list[str], by: str | None = None
) -> Judged:
    """Judges a finetuned run on another manifest, without any training; leaves predictions.parquet in
    transfer/<name of the manifest's file> of the run, or of <file>_judged beside its one file.

    Args:
        names: what the manifest calls the run's labels or regions, where it is another name.
        by: an attribute that the cases are to have.

    Raises:
        LeakageError: the run saw a patient.
        ConfigError: nothing there is called so (`in_our_names`), nobody to judge, or no such attribute.
    """
    config, model, data = open_finetuned(run, [*overrides, path_override("data.manifest", manifest)])
    data = in_our_names(model.task, data, names)
    judged = _judged(config, data, split, by)
    refuse_seen(open_start(run), data, judged["patient_id"].unique().to_list())
    examples = examples_of(model, data, judged)
    predictions = predict(model, data, judged, config.augment, config.train.precision, keep=examples.keep)
    folder, found = judged_folder(run) / "transfer" / manifest.stem, scores_of_one(model.task.config, predictions)
    return _left(folder, predictions, examples, data, split, model.task.config, found, names)


def _left(folder: Path, predictions: pl.DataFrame, examples: Drawn | Ranked, data: Data, split: str, task: TaskConfig,
          scores: list[dict], names: Mapping[str, str] | None = None) -> Judged:
    """Writes predictions.parquet, what it is of, and what a report shows of it. Tables by group go with the predictions
    that they were of."""
    path = folder / "predictions.parquet"
    for name in (*(f"{table}.parquet" for table in (*TABLES, "agreement")), EXAMPLES):
        (folder / name).unlink(missing_ok=True)  # made anew
    is_same = leave(path, predictions, predictions, data, split, task, scores, names)
    gone = [] if is_same else sorted(folder.glob("by_*.parquet"))
    gone += folder.glob("reliability.png") if "calibrated" not in predictions.columns else ()
    for one in gone:
        one.unlink()
    if gone:
        log.warning(f"{', '.join(one.name for one in gone)} went with the predictions before")
    leave_failures(folder, failures_of_one(task.name, predictions))
    if task.name == "regress":
        write_table(folder / "agreement.parquet", agreement_of_one(predictions))
    examples.save(folder / EXAMPLES, predictions)
    return Judged(folder, task, predictions, scores)


def judged_folder(run: Path) -> Path:
    """Where what was found of a run is left: its folder, or one beside its one file."""
    return run if run.is_dir() else run.with_name(f"{run.stem}{JUDGED}")


def _temperature(run: Path, config: FinetuneConfig, model: LabelledModel, data: Data) -> tuple[float | None, int]:
    """Fitted on the validation split, and on how many patients; None, and told, where it cannot be."""
    held = _labelled(config, data, "validation")
    if not len(held):
        log.warning("no temperature was fitted: the validation split has no labelled case")
        return None, 0
    refuse_seen(open_start(run), data, held["patient_id"].unique().to_list())
    predictions = predict(model, data, held, config.augment, config.train.precision)
    patients = held["patient_id"].n_unique()
    try:
        temperature = fit_temperature(*(_by_class(config.task, predictions[name]) for name in ("target", "prediction")))
    except MedsslError as error:
        log.warning(f"no temperature was fitted on the validation split: {error}")
        return None, patients
    if patients < ENOUGH:
        log.warning(f"the temperature is fitted on {patients} patients of the validation split: with fewer than "
                    f"{ENOUGH} it is little better than a guess")
    return temperature, patients


def _by_class(task: Classify.Config, values: pl.Series) -> np.ndarray:
    """A column of predictions as it is calibrated: classes, of which a case has one row each, (cases, L), by one
    softmax; findings each by its own sigmoid, (rows,)."""
    return values.to_numpy().reshape(-1, len(task.labels)) if task.kind == "single_label" else values.to_numpy()


def predict_run(run: Path, manifest: Path, masks: Path | None = None, overrides: Sequence[str] = (),
                skips: Path | None = None) -> pl.DataFrame:
    """case_id, patient_id, name and prediction for every case of a manifest that the recipe's data.where takes,
    whatever its labels; for every study, whose id is then its case_id, where the task is scored by study.

    The prediction is a probability (classify), a value in the label's unit (regress), or the region's volume in voxels
    of the prepared grid (segment).

    Args:
        masks: a folder to write what a segmentation drew into, a file a case, as `write_masks`. Cases of which it
            cannot be put back on their own voxels are named in a warning.
        skips: where the table of the cases goes that could not be prepared, of which nothing is predicted.
    """
    config, model, data = open_finetuned(run, [path_override("data.manifest", manifest), *overrides], skips)
    if others := len(data.manifest) - len(data.cases) - len(data.skipped):
        log.warning(f"the model learnt from cases with {in_words(config.data.where)} alone; {others} of "
                    f"{len(data.manifest)} cases are others, and left out (data.where of its recipe)")
    if masks:
        require_writable(config.task.name, data)
    rows = []
    for case, output, _ in outputs(model, data, data.cases, config.augment, config.train.precision):
        values = output if output.ndim == 1 else model.task.drawn(output).reshape(len(output), -1).sum(axis=1)
        rows += [(case["case_id"], case["patient_id"], name, float(value))
                 for name, value in zip(model.task.names, values, strict=True)]
        if masks:
            try:
                write_masks(masks, case["case_id"], output, model.task, data)
            except (MedsslError, OSError) as error:  # a full disk costs masks, never the table
                log.warning(f"no masks of {case['case_id']}: {error}")
    return pl.DataFrame(rows, schema=["case_id", "patient_id", "name", "prediction"], orient="row")


def open_finetuned(run: Path, overrides: list[str],
                   skips: Path | None = None) -> tuple[FinetuneConfig, LabelledModel, Data]:
    """A finished finetuning run, by its folder or its one file: its recipe (with overrides), its model, and the opened
    data; skips as `open_data` has it."""
    saved = SavedModel.open(run)
    _refuse_without_effect(run, overrides)
    recipe = merge_overrides(recipe_of(run), overrides)
    if "manifest" not in recipe["data"]:
        raise ConfigError(f"{run} holds no manifest, so that nobody knows which cases to judge it on",
                          expected="a manifest of cases", remedy="give it with --manifest theirs.parquet, or where a "
                          "command has no such option as data.manifest=theirs.parquet")
    config = validate(FinetuneConfig, recipe, f"{run}" if run.is_file() else f"{run}/recipe.yaml")
    with Bar("prepare") as progress:
        data = open_data(config.data, progress, skips)
    if saved.encoder.channels != data.channels:
        raise ConfigError(f"The cases have {data.channels} channels",
                          expected=f"{saved.encoder.channels}, as {run} learnt from",
                          remedy="use a card with the same channels")
    regions = {name: data.manifest.regions.get(name, values) for name, values
               in saved.description.get("regions", data.manifest.regions).items()}
    return config, saved.with_task(config.task.model_dump(mode="json", include=JUDGING), regions), data


def _refuse_without_effect(run: Path, overrides: list[str]) -> None:
    """ConfigError for a setting of what was trained, or of what it was trained on: it cannot be changed any more."""
    for override in overrides:
        key = override.partition("=")[0]
        if key not in ANEW and not key.startswith("data.where."):
            raise ConfigError(f"{key} cannot be given anew, since {run} is trained already",
                              expected=f"one of {', '.join(sorted(ANEW))}",
                              remedy="leave it out, or finetune anew with it")


def open_judged(run: Path, split: str, overrides: list[str],
                by: str | None = None) -> tuple[FinetuneConfig, LabelledModel, Data, pl.DataFrame]:
    """`open_finetuned`, and the labelled cases of `split`; LeakageError if the run saw one of their patients,
    ConfigError where there are none or they have no attribute `by`."""
    config, model, data = open_finetuned(run, overrides)
    judged = _judged(config, data, split, by)
    refuse_seen(open_start(run), data, judged["patient_id"].unique().to_list())
    return config, model, data, judged


def _labelled(config: FinetuneConfig, data: Data, split: str) -> pl.DataFrame:
    cases = data.cases if split == EVERY else data.cases.filter(pl.col("split") == split)
    return to_be_judged(config.task, cases)


def _judged(config: FinetuneConfig, data: Data, split: str, by: str | None = None) -> pl.DataFrame:
    judged = _labelled(config, data, split)
    if len(judged) == 0:
        counts = data.cases.group_by("split").len().sort("split").rows()
        raise ConfigError(f"No labelled case in the split {split!r}",
                          expected=f"one of {', '.join(f'{name} ({count} cases)' for name, count in counts)}",
                          remedy=f"give another --split, or --split {EVERY}")
    if by:
        require_attribute(judged, by)
    return judged
