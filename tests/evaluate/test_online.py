"""medssl.evaluate.online: neighbours by hand, what can be judged and what cannot, and nobody but training patients."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest
import torch
from safetensors.torch import load_file
from small_sets import SMALL
from torch import Tensor, nn

from medssl.augment.policy import PolicyConfig
from medssl.data.source import DataConfig, open_data
from medssl.errors import ConfigError
from medssl.evaluate import online
from medssl.evaluate.online import Half, Label, neighbours_score, online_probe
from medssl.metrics.classify import auroc
from medssl.recipe import load_recipe
from medssl.rng import stream
from medssl.train.onlook import OnlineConfig, Sight
from medssl.train.pretrain import PretrainConfig, fitted_objective, pretrain

COUNT = 80


def table(**labels: list) -> pl.DataFrame:
    """80 cases of 40 patients, in no order."""
    cases = {"case_id": [f"c{n}" for n in range(COUNT)], "patient_id": [f"p{n // 2}" for n in range(COUNT)]}
    cases = pl.DataFrame(cases | {f"label.{name}": values for name, values in labels.items()})
    return cases.sample(fraction=1, shuffle=True, seed=3)


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch):
    """(cases, a feature vector of each case's number) -> what an onlooker sees; and `.shown`, whom it looked at."""

    def look(table: pl.DataFrame, feature=lambda n: [1.0, n], **config) -> Sight | None:
        def features(encoder, data, part: pl.DataFrame, augment, precision) -> np.ndarray:
            look.shown.append(part)
            return np.array([feature(int(case_id[1:])) for case_id in part["case_id"]])

        monkeypatch.setattr(online, "pooled_features", features)
        look.shown = []
        onlooker = online_probe(None, table, PolicyConfig(), "float32", OnlineConfig(**config))
        return onlooker and onlooker(SimpleNamespace(encoder=None), 0)

    return look


def angle(share: float) -> list[float]:
    return [np.cos(share), np.sin(share)]


@pytest.mark.parametrize("how", ["knn", "linear"])
def test_features_that_tell_a_label_apart_and_features_that_do_not(given, how):
    edema = [float(n % 3 == 0) for n in range(COUNT)]
    rng = stream("features")
    told = given(table(Edema=edema), lambda n: angle(edema[n] + 0.1 * rng.normal()), how=how)
    assert told.figures == {how: 1.0, f"{how}.Edema": 1.0}
    untold = given(table(Edema=edema), lambda n: angle(rng.normal()), how=how)
    assert 0.3 < untold.figures[how] < 0.7


@pytest.mark.parametrize("how", ["knn", "linear"])
def test_a_quantity_is_explained_and_the_mean_is_over_all_labels(given, how):
    ef = [float(n) for n in range(COUNT)]
    coin = stream("coin").integers(0, 2, COUNT).astype(float).tolist()
    figures = given(table(EF=ef, Coin=coin), lambda n: angle(n / COUNT), how=how).figures
    assert figures[f"{how}.EF"] > 0.9
    assert figures[how] == pytest.approx((figures[f"{how}.EF"] + figures[f"{how}.Coin"]) / 2)


@pytest.mark.parametrize("how", ["knn", "linear"])
def test_uncertain_and_blank_labels_neither_teach_nor_count(given, how):
    edema = [(1.0, 0.0, -1.0, None)[n % 4] for n in range(COUNT)]
    misleading = [angle(1.0), angle(0.0), angle(1.0), angle(0.0)]
    assert given(table(Edema=edema), lambda n: misleading[n % 4], how=how).figures[f"{how}.Edema"] == 1.0


def test_neighbours_weigh_by_their_cosine():
    rng = stream("by hand")
    x, judged = rng.normal(size=(50, 4)), rng.normal(size=(30, 4))
    y, truth = rng.integers(0, 2, 50).astype(float), rng.integers(0, 2, 30).astype(float)
    predicted = []
    for row in judged:
        cosine = x @ row / np.linalg.norm(x, axis=1) / np.linalg.norm(row)
        near = np.argsort(-cosine)[:20]
        weight = np.exp(cosine[near] / 0.07)
        predicted.append((weight * y[near]).sum() / weight.sum())
    halves = [Half(pl.DataFrame({"label.Edema": labels}), features) for labels, features in ((y, x), (truth, judged))]
    assert neighbours_score(Label("Edema", True), *halves) == pytest.approx(auroc(truth, predicted))


def test_each_half_is_judged_by_the_other_and_no_patient_is_in_both(given):
    given(table(Edema=[float(n % 2) for n in range(COUNT)]))
    one, other = (set(part["patient_id"]) for part in given.shown)
    assert not one & other
    assert len(one) == len(other) == 20


def test_no_more_cases_are_looked_at_than_asked_for_and_the_same_at_every_look(given):
    cases = table(Edema=[float(n % 2) for n in range(COUNT)], Rare=[1.0] * COUNT)
    given(cases, cases=41)
    first = given.shown
    given(cases, cases=41)
    assert sum(map(len, first)) == 41
    assert [part["case_id"].to_list() for part in first] == [part["case_id"].to_list() for part in given.shown]
    given(cases, cases=41, seed=1)
    assert first[0]["case_id"].to_list() != given.shown[0]["case_id"].to_list()


@pytest.mark.parametrize("labels", [
    {}, {"Report": ["no findings"] * COUNT}, {"Same": [1.0] * COUNT}, {"Same": [3.5] * COUNT},
    {"Blank": pl.Series([None] * COUNT, dtype=pl.Float64)}, {"Rare": [float(n < 4) for n in range(COUNT)]},
    {"Few": [float(n) if n < 12 else None for n in range(COUNT)]}, {"Vague": [n % 2 - 1.0 for n in range(COUNT)]},
], ids=["none", "text", "one class", "constant", "blank", "rare", "few", "uncertain"])
def test_where_nothing_can_be_judged_nobody_looks(given, labels, caplog):
    assert given(table(**labels)) is None
    assert caplog.messages == []
    if labels:
        with pytest.raises(ConfigError, match="there are none.*online.how=off"):
            given(table(**labels), labels=tuple(labels))


def test_too_few_cases_are_told_of(given, caplog):
    edema = [float(n % 3 == 0) for n in range(COUNT)]
    assert given(table(Edema=edema), cases=20) is None
    assert caplog.messages == ["no online probe: online.cases=20 are too few to judge Edema by; give more"]


def test_off_may_be_said_in_a_recipe():
    recipe = load_recipe("pipelines/phantom_xray/simsiam.yaml", "pretrain", ["online.how=off"])
    assert recipe.online.how == "off"


def test_off_is_off_and_labels_are_chosen_by_name(given):
    cases = table(Edema=[float(n % 2) for n in range(COUNT)], EF=[float(n) for n in range(COUNT)])
    assert given(cases, how="off") is None
    assert set(given(cases, labels=("EF",)).figures) == {"knn", "knn.EF"}
    with pytest.raises(ConfigError, match="online.labels 'Edem' cannot.*have: Edema, EF"):
        given(cases, labels=("EF", "Edem"))


class Pixels(nn.Module):
    """Coarse pixels, less their mean, as features."""

    def forward(self, images: Tensor) -> SimpleNamespace:
        coarse = nn.functional.adaptive_avg_pool2d(images, 4).flatten(1)
        return SimpleNamespace(pooled=coarse - coarse.mean(dim=1, keepdim=True))


def test_on_real_cases(discs: DataConfig):
    data = open_data(discs)
    train = data.cases.filter(pl.col("split") == "train")
    onlooker = online_probe(data, train, PolicyConfig(), "float32", OnlineConfig(labels=("Bright", "Radius")))
    figures = onlooker(SimpleNamespace(encoder=Pixels()), 0).figures
    assert figures["knn.Bright"] > 0.95
    assert figures["knn.Radius"] < figures["knn.Bright"]


def test_it_leaves_the_module_and_the_random_numbers_as_they_are(discs: DataConfig):
    config = PretrainConfig.model_validate({**SMALL, "data": discs})
    data = open_data(discs)
    module, _ = fitted_objective(config, data, None)
    module.eval()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    random = torch.get_rng_state()
    train = data.cases.filter(pl.col("split") == "train")
    online_probe(data, train, config.augment, "float32", OnlineConfig())(module, 3)
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random)


@pytest.mark.parametrize("how", ["knn", "linear"])
def test_a_run_that_is_probed_learns_what_it_would_have_learnt(discs: DataConfig, tmp_path: Path, how: str):
    config = PretrainConfig.model_validate({**SMALL, "data": discs, "online": {"how": how}})
    data = open_data(discs)
    train = data.cases.filter(pl.col("split") == "train")
    onlooker = online_probe(data, train, config.augment, config.train.precision, config.online)
    for name, onlookers in (("probed", [onlooker]), ("alone", [])):
        pretrain(config, tmp_path / name, data=data, onlookers=onlookers)
    told = [json.loads(line) for line in (tmp_path / "probed/metrics.jsonl").read_text().splitlines()]
    assert all({how, f"{how}.Bright", f"{how}.Radius"} <= line.keys() for line in told)
    probed, alone = (load_file(tmp_path / name / "model.safetensors") for name in ("probed", "alone"))
    assert all(torch.equal(probed[key], alone[key]) for key in alone)
