"""The finetuning step: a task on labelled patients, from scratch or from a pretrained encoder."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np
import polars as pl
import torch
from pydantic import Field, model_validator

from medssl.augment.policy import PolicyConfig, ViewPolicy
from medssl.config import Config
from medssl.data.fraction import nested_fractions
from medssl.data.loader import Loader
from medssl.data.source import Data, DataConfig
from medssl.errors import ManifestError
from medssl.models import EncoderConfig
from medssl.models.start import open_start
from medssl.rng import torch_seed
from medssl.tasks import TASKS, LabelledModel, TaskConfig
from medssl.tasks.classify import one_sided
from medssl.train.build import labelled_model, refuse_seen, start_model, tell_account, with_origin
from medssl.train.features import mean_over_boxes
from medssl.train.launch import World, launch
from medssl.train.loop import Fitted, TrainConfig, fit
from medssl.train.pretrain import model_description
from medssl.train.run import open_run
from medssl.train.teacher import fit_with_teacher
from medssl.train.together import finish, held_by_first, is_finished, open_together
from medssl.train.tuning import AS_A_WHOLE, TuningConfig, apply_tuning

log = logging.getLogger(__name__)


class FinetuneConfig(Config):
    """A finetuning recipe: give either `encoder` (from scratch) or `init` (a run folder, or foreign weights)."""

    step: Literal["finetune"] = "finetune"
    title: str = ""
    data: DataConfig
    task: TaskConfig
    encoder: EncoderConfig | None = None
    init: Path | None = None
    decoder: bool = False
    """Take over the pretrained decoder too."""
    augment: PolicyConfig = PolicyConfig()
    train: TrainConfig = TrainConfig()
    tuning: TuningConfig = TuningConfig()
    fraction: float = Field(1.0, gt=0, le=1)
    """Share of the labelled training patients to learn from."""
    seed: int = 0

    @model_validator(mode="after")
    def _one_start(self) -> FinetuneConfig:
        if (self.encoder is None) == (self.init is None):
            raise ValueError("give either `encoder` or `init`")
        return self


def finetune(
    config: FinetuneConfig, out: Path, progress: Callable[..., None] | None = None, world: World | None = None,
    data: Data | None = None,
) -> Path:
    """Trains on a fraction of the labelled training patients and leaves a run folder; a finished one is left alone.

    world: the processes that do it together, where the caller has launched them already.
    data: the opened `config.data`, where the caller has it already.
    """
    world = world or launch(config.train.devices, config.train.strategy)
    data = data or open_together(world, config.data)
    labelled = TASKS[config.task.name].labelled(config.task, data.training)
    patients = label_fractions(config.task, labelled, [config.fraction], config.seed)[config.fraction]
    with held_by_first(world, out):
        world.first(lambda: open_run(out, config, seed=config.seed, manifest=data.manifest.digest,
                                     patients=len(patients), processes=world.size))
        if is_finished(world, out):
            return out
        start = open_start(config.init) if config.init else None
        if start:  # the same people must go by the same names in both, or nobody could judge the result
            refuse_seen(start, data, [])
        if not start and config.tuning.head == "probe" and world.is_first:
            log.warning("tuning.head=probe, and the encoder starts fresh: a probe of features that know nothing may be "
                        "a worse start than none; leave it out, or give init")
        torch.manual_seed(torch_seed(config.seed, "weights"))
        model = labelled_model(config.task, config.encoder or start.encoder_config, data, config.augment)
        if start:
            account = start_model(model, start, data, config.decoder)
            world.first(lambda: tell_account(start, account, out))
        cases = labelled.filter(pl.col("patient_id").is_in(patients))
        if config.task.name == "classify" and (same := one_sided(config.task, cases)) and world.is_first:
            log.warning(f"the {len(cases)} cases that are learnt from have no certain example of both sides of "
                        f"{', '.join(same)}: nothing can be learnt of that")
        fitted = fit_labelled(model, data, cases, config.augment, config.train, config.seed, config.tuning, out,
                              progress, world)
        description = model_description(data, config.augment, patients) | {
            "task": config.task.model_dump(mode="json"), "regions": data.manifest.regions}
        if start:
            description = with_origin(description, start)
        world.first(lambda: finish(out, fitted, model.parts(), description))
    return out


def fit_labelled(
    model: LabelledModel, data: Data, cases: pl.DataFrame, augment: PolicyConfig, train: TrainConfig, seed: int,
    tuning: TuningConfig = AS_A_WHOLE, folder: Path | None = None, progress: Callable[..., None] | None = None,
    world: World | None = None,
) -> Fitted:
    """Trains a labelled model in place on `cases`, after a teacher where its task wants one."""
    def fitted(model: LabelledModel, folder: Path | None, progress: Callable[..., None] | None) -> Fitted:
        loader = Loader(data.cache, cases["case_id"].to_list(), data.config.box, train.batch_size, seed,
                        target=model.task.prepare_targets(cases), with_mask=model.task.needs_mask)
        apply_tuning(tuning, model, data, cases, augment, train.precision)
        return fit(model, loader, ViewPolicy(augment, model.view_spec, seed), train, folder, progress, world)

    def outputs(model: LabelledModel, pupils: pl.DataFrame) -> np.ndarray:
        return mean_over_boxes(model, model.outputs, data, pupils, augment, train.precision)

    pupils = model.task.to_be_taught(cases)
    if len(pupils) == 0:
        return fitted(model, folder, progress)
    return fit_with_teacher(model, pupils, fitted, outputs, folder, progress)


def label_fractions(
    task: TaskConfig, labelled: pl.DataFrame, fractions: list[float], seed: int, name: str = "label fractions"
) -> dict[float, list[str]]:
    """Nested draws of the labelled patients, stratified as the task says; ManifestError where there is none.

    name: of the draw; another name is another draw.
    """
    if len(labelled) == 0:
        raise ManifestError(f"No training case has a label for the task {task.name!r}", expected="labelled train cases",
                            remedy="look at medssl check's counts per split and label")
    by_patient: dict[str, list] = {}
    for patient, stratum in zip(labelled["patient_id"], TASKS[task.name].strata(task, labelled), strict=True):
        by_patient.setdefault(patient, []).append(stratum)
    strata = [str(max(values, key=lambda v: (values.count(v), str(v)))) for values in by_patient.values()]
    return nested_fractions(list(by_patient), strata, fractions, seed, name)
