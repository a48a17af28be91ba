"""Encoders made to measure, and started from the weights of an earlier run whose patients are known."""

from __future__ import annotations

from pathlib import Path

from medssl.augment.policy import PolicyConfig
from medssl.augment.temporal import Temporal, TemporalConfig
from medssl.data.source import Data
from medssl.errors import ConfigError, LeakageError
from medssl.models import Encoder, EncoderConfig, build_encoder
from medssl.models.weights import load_into, load_parts
from medssl.tasks import TASKS, LabelledModel, TaskConfig, build_task
from medssl.train.run import patient_digest


def fitted_encoder(config: EncoderConfig, data: Data, augment: PolicyConfig) -> Encoder:
    """A fresh encoder whose channels, axes and (for a ViT) picture size are those of the data.

    Raises ConfigError where the size is not known before a case is read, or does not fit the patches, or where views
    are to move in time that the data do not have.
    """
    _require_time(data, augment)
    known = {"channels": data.channels}
    if "dims" in type(config).model_fields:
        known["dims"] = data.dims
    if "size" in type(config).model_fields:
        known["size"] = view_size(data, augment)
    return build_encoder(type(config).model_validate(config.model_dump() | known))


def view_size(data: Data, augment: PolicyConfig) -> tuple[int, ...]:
    """Spatial size of what an encoder is given: the view's, else the box's, else the prepared case's."""
    case = data.cache.shape(data.cases["case_id"][0])[1:]
    box = Temporal(augment.temporal).output_size(data.config.box.voxels(case)[-data.dims:])
    if augment.size is None:
        return box
    return (*box[: len(box) - len(augment.size)], *augment.size)


def labelled_model(
    task: TaskConfig, encoder: EncoderConfig, data: Data, augment: PolicyConfig, init: Path | None = None,
    with_decoder: bool = False,
) -> LabelledModel:
    """An encoder with a task on it, fresh or from `init`'s weights.

    Raises ConfigError where `init` learnt from scans that were prepared differently, or has no decoder to give, or
    where a dense task's views have another resolution than the cases, over which it is slid to judge it.
    """
    if TASKS[task.name].needs_mask:
        _require_one_scale(data, augment)
    if init is None:
        return _model(task, fitted_encoder(encoder, data, augment), data)
    refuse_other_preparation(init, data)
    tensors, _ = load_parts(init)
    model = _model(task, fitted_encoder(encoder, data, augment), data)
    load_into(model.encoder, tensors, "encoder")
    if with_decoder:
        if "decoder" not in tensors or not hasattr(model.task, "decoder"):
            raise ConfigError(f"{init} and the task {task.name!r} have no decoder in common",
                              expected="a masked-reconstruction run and a segmentation task",
                              remedy="leave `decoder` out of this arm")
        load_into(model.task.decoder, tensors, "decoder")
    return model


def refuse_other_preparation(run: Path, data: Data) -> None:
    """ConfigError where `run` learnt from scans that were prepared differently."""
    theirs, ours = load_parts(run)[1]["preprocessing"], data.config.prepare.model_dump(mode="json")
    if theirs != ours:
        differing = [key for key in sorted({*ours, *theirs}) if ours.get(key) != theirs.get(key)]
        raise ConfigError(f"The scans that {run} learnt from were prepared differently ({', '.join(differing)})",
                          expected=f"data.prepare {theirs}",
                          remedy="copy these settings into this recipe, or pretrain again")


def encoder_config_of(run: Path) -> dict:
    """The encoder's config as a run's model.json has it."""
    return load_parts(run)[1]["encoder"]


def refuse_seen(run: Path, data: Data, judged: list[str]) -> None:
    """LeakageError when a model saw a patient that it is to be judged on, or when that cannot be told.

    Pseudonyms depend on the card's namespace too, so patients of other data sets are never taken for these.
    """
    description = load_parts(run)[1]
    named_by = data.manifest.card.patients_named_by
    if description["pseudonym_keys"].get(named_by, data.manifest.key_id) != data.manifest.key_id:
        raise LeakageError(f"{run} names its patients by another key than this manifest, so nobody can tell whether it "
                           "saw those it is to be judged on", expected="one pseudonym key for both",
                           remedy="build both manifests with the same key and pretrain again")
    seen = sorted(set(description["patients_seen"]) & {patient_digest(patient) for patient in judged})
    if seen:
        raise LeakageError(f"{run} was trained on {len(seen)} of the {len(judged)} patients that it is to be judged on "
                           f"(digests {', '.join(seen[:3])} …)", expected="none",
                           remedy="pretrain on the training patients of this very manifest and protocol")


def _require_time(data: Data, augment: PolicyConfig) -> None:
    kind = data.cases["kind"][0]
    if augment.temporal != TemporalConfig() and kind != "cine":
        raise ConfigError(f"augment.temporal is given, but each case is one {kind}", expected="clips",
                          remedy="leave augment.temporal out")


def _require_one_scale(data: Data, augment: PolicyConfig) -> None:
    box = view_size(data, augment.model_copy(update={"size": None}))
    if view_size(data, augment) != box:
        raise ConfigError(f"augment.size {augment.size} resamples the boxes {box} that a segmentation learns from",
                          expected="views of the boxes' own size", remedy="leave augment.size out: data.prepare sets "
                          "the resolution, and data.box.size how much is seen of it")


def _model(task: TaskConfig, encoder: Encoder, data: Data) -> LabelledModel:
    return LabelledModel(encoder, build_task(task, encoder, data.manifest.regions))
