"""medssl.train.tuning: what stays, what learns at which rate, and a head that starts as a probe."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import torch
from sklearn.linear_model import LogisticRegression, Ridge
from small_sets import SMALL

from medssl.data.source import Data, DataConfig, open_data
from medssl.errors import ConfigError
from medssl.tasks import LabelledModel
from medssl.train.build import labelled_model
from medssl.train.features import pooled_features
from medssl.train.finetune import FinetuneConfig, fit_labelled
from medssl.train.optim import OptimConfig, build_optimizer, set_lr
from medssl.train.tuning import PROBE, TuningConfig, apply_tuning

VIT = {"name": "vit", "size": [24, 24], "patch": [8, 8], "width": 24, "depth": 3, "heads": 2}
RESNET = {"name": "resnet", "dims": 2, "blocks": [1, 1, 1, 1], "widths": [4, 4, 6, 8], "zero_init_residual": False}
BRIGHT = {"name": "classify", "labels": ["Bright"]}


@pytest.fixture(scope="module")
def data(discs: DataConfig) -> Data:
    return open_data(discs)


def recipe(data: Data, **changes) -> FinetuneConfig:
    return FinetuneConfig.model_validate({"data": data.config, "task": BRIGHT, "encoder": VIT, "augment": {},
                                          "train": SMALL["train"], **changes})


def fresh(data: Data, config: FinetuneConfig) -> LabelledModel:
    torch.manual_seed(0)
    return labelled_model(config.task, config.encoder, data, config.augment)


def tuned(data: Data, config: FinetuneConfig, **tuning) -> LabelledModel:
    model = fresh(data, config)
    model.task.prepare_targets(data.training)
    apply_tuning(TuningConfig(**tuning), model, data, data.training, config.augment, "float32")
    return model


def test_the_rate_decays_from_layer_to_layer(data):
    model = tuned(data, recipe(data), layer_decay=0.5)
    optimizer = build_optimizer(model, OptimConfig(lr=0.4, warmup=0))
    assert set_lr(optimizer, OptimConfig(lr=0.4, warmup=0), 0, 10) == 0.4
    rate = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    rates = {name: rate[id(p)] for name, p in model.named_parameters()}
    assert rates["encoder.embedding.weight"] == pytest.approx(0.4 / 16)
    assert [rates[f"encoder.blocks.{number}.qkv.weight"] for number in range(3)] == pytest.approx([0.05, 0.1, 0.2])
    assert rates["encoder.norm.weight"] == rates["task.head.linear.weight"] == 0.4


@pytest.mark.parametrize(("encoder", "thawed", "learns", "stays"), [
    (VIT, 1, {"blocks.2", "norm"}, {"embedding", "blocks.0", "blocks.1"}),
    (VIT, 0, set(), {"embedding", "blocks.0", "blocks.1", "blocks.2", "norm"}),
    (RESNET, 2, {"net.layer3", "net.layer4"}, {"net.conv1", "net.bn1", "net.layer1", "net.layer2"}),
])
def test_only_the_last_layers_are_trained_and_the_others_keep_all_they_have(data, encoder, thawed, learns, stays):
    config = recipe(data, encoder=encoder)
    before = fresh(data, config).encoder.state_dict()
    model = fresh(data, config)
    fit_labelled(model, data, data.training, config.augment, config.train, 0, TuningConfig(thawed=thawed))
    for name, value in model.encoder.state_dict().items():
        same = torch.equal(value, before[name])
        if any(f"{name}.".startswith(f"{part}.") for part in stays):
            assert same, name  # running statistics too
        elif any(f"{name}.".startswith(f"{part}.") for part in learns) and value.is_floating_point():
            assert not same, name
    assert not torch.equal(model.task.head.linear.weight, fresh(data, config).task.head.linear.weight)


def test_more_layers_than_there_are(data):
    with pytest.raises(ConfigError, match=r"tuning.thawed is 9.*at most 4, the encoder's layers"):
        tuned(data, recipe(data), thawed=9)


def test_a_head_starts_as_the_probe_of_its_labels(data):
    config = recipe(data)
    model = tuned(data, config, head="probe")
    features = pooled_features(model.encoder, data, data.training, config.augment, "float32")
    x = (features - features.mean(axis=0)) / features.std(axis=0)
    bright = data.training["label.Bright"].to_numpy()
    expected = LogisticRegression(C=PROBE, max_iter=1000, tol=1e-8).fit(x, bright).predict_proba(x)[:, 1]
    with torch.no_grad():
        found = torch.sigmoid(model.task.head(torch.from_numpy(features))[:, 0]).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-3)
    assert np.ptp(found) > 0.02
    assert all(p.requires_grad and p.grad is None for p in model.parameters())


def test_several_labels_are_penalised_as_one_is(data):
    config = recipe(data, task={"name": "classify", "labels": ["Bright", "Vague"], "uncertain": "ignore"})
    both, one = tuned(data, config, head="probe"), tuned(data, recipe(data), head="probe")
    known = np.isin(data.training["label.Vague"].fill_null(-1).to_numpy(), (0, 1)).mean()
    weights = [model.task.head.linear.weight[0].detach() for model in (both, one)]
    assert 0.3 < known < 0.8
    torch.testing.assert_close(weights[0], weights[1], atol=2e-3, rtol=0.05)


def test_a_quantity_s_head_starts_as_the_probe_too(data):
    config = recipe(data, task={"name": "regress", "label": "Radius"})
    model = tuned(data, config, head="probe")
    features = pooled_features(model.encoder, data, data.training, config.augment, "float32")
    x, radius = (features - features.mean(axis=0)) / features.std(axis=0), data.training["label.Radius"].to_numpy()
    expected = Ridge(alpha=1 / PROBE).fit(x, radius).predict(x)
    with torch.no_grad():
        found = (model.task.head(torch.from_numpy(features))[:, 0] * model.task.sd + model.task.mean).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-3 * radius.std())


def test_classes_head_starts_as_their_softmax_probe_weighed(data):
    names = ["Bright", "Vague", "Radius"]
    place = np.digitize(data.cases["label.Radius"].to_numpy(), [3.5, 5])
    thirds = [pl.Series(f"label.{name}", (place == number).astype(float)) for number, name in enumerate(names)]
    data = replace(data, cases=data.cases.with_columns(thirds))
    config = recipe(data, task={"name": "classify", "labels": names, "kind": "single_label", "balance": True})
    model = tuned(data, config, head="probe")
    features = pooled_features(model.encoder, data, data.training, config.augment, "float32")
    x = (features - features.mean(axis=0)) / features.std(axis=0)
    truth = data.training.select(f"label.{name}" for name in names).to_numpy().argmax(axis=1)
    expected = LogisticRegression(C=PROBE, max_iter=1000, tol=1e-8, class_weight="balanced").fit(x, truth)
    with torch.no_grad():
        found = model.task.head(torch.from_numpy(features)).softmax(dim=1).numpy()
    np.testing.assert_allclose(found, expected.predict_proba(x), atol=1e-3)
    assert np.ptp(found, axis=0).min() > 0.005


def test_masks_have_no_probe(data):
    with pytest.raises(ConfigError, match="has no linear last layer.*leave tuning.head out"):
        tuned(data, recipe(data, task={"name": "segment"}, encoder=SMALL["encoder"]), head="probe")
