"""The pretraining step: an objective on the unlabelled training patients, and nothing of anyone else."""

from __future__ import annotations

from collections.abc import Callable, Collection
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
from medssl.data.source import Data, DataConfig, open_data
from medssl.errors import ConfigError
from medssl.models import EncoderConfig
from medssl.models.start import Start, open_start
from medssl.models.weights import save_model
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
from medssl.train.loop import TrainConfig, fit
from medssl.train.run import finish_run, open_run, patient_digest


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
    progress: Callable[..., None] | None = None,
) -> Path:
    """Trains without labels, and leaves a run folder with model.safetensors; a finished folder is left as it is.

    Args:
        patients: pseudonyms of those who may be seen, of whom `config.share` are; by default the train split's.
        data: the opened `config.data`, where the caller has it already.
    """
    data = data or open_data(config.data)
    cases = data.of(patients) if patients is not None else data.cases.filter(data.cases["split"] == "train")
    cases = _shared(cases, config.share, config.seed)
    open_run(out, config, seed=config.seed, manifest=data.manifest.digest, cases=len(cases),
             patients=cases["patient_id"].n_unique())
    if (out / "model.json").is_file():
        return out
    start = open_start(config.init) if config.init else None
    if start:  # the same people must go by the same names in both, or nobody could judge the result
        refuse_seen(start, data, [])
    loader = Loader(data.cache, cases["case_id"].to_list(), config.data.box, config.train.batch_size, config.seed)
    torch.manual_seed(torch_seed(config.seed, "weights"))
    module, account = fitted_objective(config, data, start)
    if start:
        tell_account(start, account, out)
    policy = ViewPolicy(config.augment, module.view_spec, config.seed)
    fitted = fit(module, loader, policy, config.train, out, progress)
    finish_run(out, seconds=round(fitted.seconds, 1), loss=fitted.loss)
    description = model_description(data, cases["patient_id"].unique().to_list())
    if start:
        description = with_origin(description, start)
    save_model(out, module.parts(), description | {"objective": config.objective.model_dump(mode="json")})
    return out


def _shared(cases: pl.DataFrame, share: float, seed: int) -> pl.DataFrame:
    """The cases of a share of their patients."""
    if share == 1:
        return cases
    patients = cases["patient_id"].unique().to_list()
    drawn = nested_fractions(patients, [""] * len(patients), [share], seed, "unlabelled patients")[share]
    return cases.filter(pl.col("patient_id").is_in(drawn))


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


def model_description(data: Data, patients: list[str]) -> dict[str, Any]:
    """What model.json says of the data: how to prepare a scan, and whom the model has seen, as digests."""
    return {
        "preprocessing": data.config.prepare.model_dump(mode="json"),
        "box": data.config.box.model_dump(mode="json"),
        "channels": data.manifest.channels,
        "patients_seen": sorted(patient_digest(patient) for patient in patients),
        "pseudonym_keys": {data.manifest.card.patients_named_by: data.manifest.key_id},
        "manifest": data.manifest.digest,
    }
