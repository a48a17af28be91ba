"""Encoders made to measure, fresh or started from the weights of an earlier run or of strangers."""

from __future__ import annotations

import logging
from collections.abc import Collection
from pathlib import Path
from typing import Any

from torch import nn

from medssl.augment.policy import PolicyConfig
from medssl.augment.suitable import require_drawable, require_suitable
from medssl.augment.temporal import Temporal
from medssl.config import validate
from medssl.data.decode import PrepareConfig
from medssl.data.source import Data
from medssl.errors import ConfigError, LeakageError
from medssl.files import write_whole
from medssl.models import Encoder, EncoderConfig, build_encoder
from medssl.models.adapt import fill
from medssl.models.start import Start
from medssl.objectives import OBJECTIVES
from medssl.objectives.fitting import require_tiled
from medssl.objectives.painting import Painting
from medssl.tasks import TASKS, LabelledModel, TaskConfig, build_task
from medssl.train.run import patient_digest

log = logging.getLogger(__name__)

PAINTING = [name for name, kind in OBJECTIVES.items() if issubclass(kind, Painting)]
"""The objectives that leave a decoder."""


def fitted_encoder(config: EncoderConfig, data: Data, augment: PolicyConfig) -> Encoder:
    """A fresh encoder whose channels, axes and (for a ViT) picture size are those of the data.

    Raises ConfigError where the size is not known before a case is read, or does not fit the patches, or where the
    augmentation is not for such cases.
    """
    require_suitable(augment, data)
    size = view_size(data, augment)
    require_drawable(augment, (data.channels, *size))
    known = {"channels": data.channels}
    if "dims" in type(config).model_fields:
        known["dims"] = data.dims
    if "size" in type(config).model_fields:
        known["size"] = size
        require_tiled(size, config.patch, "encoder.patch")
    return build_encoder(validate(type(config), config.model_dump() | known, "The encoder, fitted to the data,"))


def start_from(start: Start, data: Data, encoder: Encoder, decoder: nn.Module | None = None) -> str:
    """Fills an encoder, and a decoder where one is given, with `start`'s weights and returns their account.

    ConfigError where they learnt from scans that were prepared differently, RunError where they do not fit.
    """
    refuse_other_preparation(start, data)
    accounts = [start.fill_encoder(encoder)]
    if decoder is not None:
        accounts.append(fill(decoder, start.tensors["decoder"], "decoder"))
    return start.account(accounts)


def tell_account(start: Start, account: str, folder: Path | None = None) -> None:
    """Says on the terminal what became of `start`'s tensors, and leaves it in a run's folder, without the path."""
    log.warning(f"started from {start.path}: {account}")
    if folder:
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(folder / "init.txt", f"{account}\n")


def with_origin(description: dict[str, Any], start: Start) -> dict[str, Any]:
    """A model.json that says what the model came from, and counts whom that saw among the patients seen."""
    earlier = start.description or {}
    seen = {*description["patients_seen"], *earlier.get("patients_seen", ())}
    keys = earlier.get("pseudonym_keys", {}) | description["pseudonym_keys"]
    return description | {"patients_seen": sorted(seen), "pseudonym_keys": keys, "init": start.origin}


def view_size(data: Data, augment: PolicyConfig) -> tuple[int, ...]:
    """Spatial size of what an encoder is given: the view's, else the box's, else the prepared case's."""
    case = data.cache.shape(data.cases["case_id"][0])[1:]
    box = Temporal(augment.temporal).output_size(data.config.box.voxels(case)[-data.dims:])
    if augment.size is None:
        return box
    return (*box[: len(box) - len(augment.size)], *augment.size)


def labelled_model(task: TaskConfig, encoder: EncoderConfig, data: Data, augment: PolicyConfig) -> LabelledModel:
    """A fresh encoder with a task on it.

    Raises ConfigError where a dense task's views have another resolution than the cases, over which it is slid to
    judge it.
    """
    if TASKS[task.name].needs_mask:
        _require_one_scale(data, augment)
    fresh = fitted_encoder(encoder, data, augment)
    return LabelledModel(fresh, build_task(task, fresh, data.manifest.regions))


def shared_decoder(model: LabelledModel, parts: Collection[str]) -> nn.Module:
    """The task's decoder; ConfigError where it has none, or none is among the `parts` to start from."""
    if "decoder" not in parts or not hasattr(model.task, "decoder"):
        raise ConfigError("The weights and this task have no decoder in common",
                          expected=f"a run of {', '.join(PAINTING)}, and task.name=segment",
                          remedy="leave `decoder` out of the recipe, or of this arm, or start from such a run")
    return model.task.decoder


def start_model(model: LabelledModel, start: Start, data: Data, with_decoder: bool = False) -> str:
    """`start_from` for a labelled model, with its task's decoder if need be."""
    return start_from(start, data, model.encoder, shared_decoder(model, start.tensors) if with_decoder else None)


def refuse_other_preparation(start: Start, data: Data) -> None:
    """ConfigError where a run learnt from scans that were prepared differently; of strangers' weights nobody knows."""
    description, ours = start.description, data.config.prepare.model_dump(mode="json")
    if description is None:
        return
    theirs = PrepareConfig().model_dump(mode="json") | description["preprocessing"]  # it may lack later settings
    if theirs != ours:
        differing = [key for key in sorted({*ours, *theirs}) if ours.get(key) != theirs.get(key)]
        raise ConfigError(f"The scans that the weights learnt from were prepared differently ({', '.join(differing)})",
                          expected=f"data.prepare {theirs}",
                          remedy="copy these settings into this recipe, or pretrain again")


def refuse_seen(start: Start, data: Data, judged: list[str]) -> None:
    """LeakageError when a model saw a patient that it is to be judged on, or when that cannot be told.

    Weights from elsewhere name no patients at all: their account says so, and whoever takes them answers for it.
    Pseudonyms depend on the card's namespace too, so patients of other data sets are never taken for these.
    """
    description, run = start.description, start.path
    if description is None:
        return
    named_by = data.manifest.card.patients_named_by
    if description["pseudonym_keys"].get(named_by, data.manifest.key_id) != data.manifest.key_id:
        raise LeakageError(f"{run} names its patients by another key than this manifest, so nobody can tell whether it "
                           "saw those it is to be judged on", expected="one pseudonym key for both",
                           remedy="build both manifests with the same key and pretrain again")
    seen = sorted(set(description["patients_seen"]) & {patient_digest(patient) for patient in judged})
    if seen:
        raise LeakageError(f"{run} was trained on {len(seen)} of the {len(judged)} patients that it is to be judged on "
                           f"(digests {', '.join(seen[:3])} …)", expected="none",
                           remedy="judge another split, or train on the training patients of this very manifest and "
                                  "protocol; sets whose cards share a namespace take equal patient ids for one person")


def _require_one_scale(data: Data, augment: PolicyConfig) -> None:
    box = view_size(data, augment.model_copy(update={"size": None}))
    if view_size(data, augment) != box:
        raise ConfigError(f"augment.size {augment.size} resamples the boxes {box} that a segmentation learns from",
                          expected="views of the boxes' own size", remedy="leave augment.size out: data.prepare sets "
                          "the resolution, and data.box.size how much is seen of it")
