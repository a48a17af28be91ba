"""The pretraining step: an objective on the unlabelled training patients, and nothing of anyone else."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any, Literal

import polars as pl
import torch
from pydantic import Field, model_validator
from torch import nn

from medssl.augment.policy import PolicyConfig, ViewPolicy
from medssl.config import Config
from medssl.data.fraction import nested_fractions
from medssl.data.loader import Loader
from medssl.data.source import Data, DataConfig
from medssl.errors import ConfigError
from medssl.models import EncoderConfig
from medssl.models.start import Start, open_start
from medssl.objectives import Objective, ObjectiveConfig, build_objective
from medssl.rng import stream, torch_seed
from medssl.train.build import (
    fitted_encoder,
    refuse_other_preparation,
    refuse_seen,
    tell_account,
    view_size,
    with_origin,
)
from medssl.train.launch import World, launch
from medssl.train.loop import TrainConfig, fit
from medssl.train.onlook import OnlineConfig, Onlooker
from medssl.train.run import open_run, patient_digest
from medssl.train.together import finish, held_by_first, is_finished, open_together


class PretrainConfig(Config):
    """A pretraining recipe."""

    step: Literal["pretrain"] = "pretrain"
    title: str = ""
    data: DataConfig
    encoder: EncoderConfig | None = None
    """Channels and spatial axes are taken from the data. Left out, it is the encoder that `init` has."""
    init: Path | None = None
    """What to start from: a run folder, or a local file of foreign weights."""
    objective: ObjectiveConfig
    augment: PolicyConfig = PolicyConfig()
    train: TrainConfig = TrainConfig()
    online: OnlineConfig = OnlineConfig()
    share: float = Field(1.0, gt=0, le=1)
    """Share of the training patients to learn from; with the same seed, a smaller one lies within a larger."""
    seed: int = 0

    @model_validator(mode="after")
    def _has_encoder(self) -> PretrainConfig:
        if self.encoder is None and self.init is None:
            raise ValueError("give `encoder`, or `init`, whose encoder it then is")
        return self


def pretrain(
    config: PretrainConfig, out: Path, patients: Collection[str] | None = None, data: Data | None = None,
    progress: Callable[..., None] | None = None, world: World | None = None, onlookers: Sequence[Onlooker] = (),
) -> Path:
    """Trains without labels, and leaves a run folder with model.safetensors; a finished folder is left as it is.

    Args:
        patients: pseudonyms of those who may be seen, of whom `config.share` are; by default the train split's.
        data: the opened `config.data`, where the caller has it already.
        world: the processes that do it together, where the caller has launched them already.
        onlookers: asked now and then what they see of the objective.
    """
    world = world or launch(config.train.devices, config.train.strategy)
    data = data or open_together(world, config.data)
    cases = learnt_from(config, data, patients)
    with held_by_first(world, out):
        world.first(lambda: open_run(out, config, seed=config.seed, manifest=data.manifest.digest, cases=len(cases),
                                     patients=cases["patient_id"].n_unique(), processes=world.size))
        if is_finished(world, out):
            return out
        start = open_start(config.init) if config.init else None
        if start:  # the same people must go by the same names in both, or nobody could judge the result
            refuse_seen(start, data, [])
        loader = Loader(data.cache, cases["case_id"].to_list(), config.data.box, config.train.batch_size, config.seed)
        torch.manual_seed(torch_seed(config.seed, "weights"))
        module, account = fitted_objective(config, data, start)
        if start:
            world.first(lambda: tell_account(start, account, out))
        policy = ViewPolicy(config.augment, module.view_spec, config.seed)
        fitted = fit(module, loader, policy, config.train, out, progress, world, onlookers)
        description = model_description(data, config.augment, cases["patient_id"].unique().to_list())
        if start:
            description = with_origin(description, start)
        described = description | {"objective": config.objective.model_dump(mode="json")}
        world.first(lambda: finish(out, fitted, module.parts(), described))
    return out


def learnt_from(config: PretrainConfig, data: Data, patients: Collection[str] | None = None) -> pl.DataFrame:
    """The cases of the share of these patients, by default the train split's, that a recipe learns from."""
    cases = data.of(patients) if patients is not None else data.training
    if config.share == 1:
        return cases
    people = cases["patient_id"].unique().to_list()
    drawn = nested_fractions(people, [""] * len(people), [config.share], config.seed, "unlabelled patients")
    return cases.filter(pl.col("patient_id").is_in(drawn[config.share]))


def fitted_objective(config: PretrainConfig, data: Data, start: Start | None) -> tuple[Objective, str]:
    """The objective on an encoder made for the data, filled with `start`'s weights, and their account.

    Raises ConfigError where recipe, network and views do not fit each other, RunError where the weights do not.
    """
    encoder = fitted_encoder(config.encoder or start.encoder_config, data, config.augment)
    module, account = build_objective(config.objective, encoder), ""
    if start:
        refuse_other_preparation(start, data)
        account = start.account([start.fill_encoder(encoder), *start.fill_others(module)])
    if config.train.batch_size < 2 and any(isinstance(m, nn.BatchNorm1d) for m in module.modules()):
        raise ConfigError(f"train.batch_size is {config.train.batch_size}, and {config.objective.name} normalises over "
                          "the batch", expected="at least 2", remedy="give train.batch_size=64 or more")
    if module.view_spec.draw:  # what it refuses of a view's shape, before any is made
        module.view_spec.draw(stream("a trial"), (data.channels, *view_size(data, config.augment)))
    return module, account


def model_description(data: Data, augment: PolicyConfig, patients: list[str]) -> dict[str, Any]:
    """What model.json says of the data: of which kind, how to prepare a scan, and whom the model saw, as digests."""
    return {
        "kind": data.cases["kind"][0],
        "modalities": data.cases["modality"].unique().sort().to_list(),
        "size": view_size(data, augment),
        "views": augment.still().model_dump(mode="json"),
        "preprocessing": data.config.prepare.model_dump(mode="json"),
        "box": data.config.box.model_dump(mode="json"),
        "channels": data.manifest.channels,
        "patients_seen": sorted(patient_digest(patient) for patient in patients),
        "pseudonym_keys": {data.manifest.card.patients_named_by: data.manifest.key_id},
        "manifest": data.manifest.digest,
    }
