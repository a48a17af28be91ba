"""medssl.evaluate.ood: strange pictures are told from known ones, and nothing is learnt from them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from scipy.stats import binom
from small_sets import SIDE, SMALL, make, write_discs

from medssl.data.manifest import Manifest
from medssl.data.prepare import prepare
from medssl.data.source import DataConfig, open_data
from medssl.errors import ConfigError, LeakageError
from medssl.evaluate.ood import separation, strangers
from medssl.io.write import write_png
from medssl.metrics.classify import auroc
from medssl.rng import stream
from medssl.train.finetune import FinetuneConfig, finetune


def recipe(discs: DataConfig, **task) -> FinetuneConfig:
    return FinetuneConfig.model_validate({
        "encoder": SMALL["encoder"], "data": discs, "augment": SMALL["augment"], "task": task,
        "train": {**SMALL["train"], "steps": 60, "optim": {"lr": 0.02}}})


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory, discs: DataConfig) -> Path:
    return finetune(recipe(discs, name="classify", labels=["Bright"]), tmp_path_factory.mktemp("tuned"))


@pytest.fixture(scope="module")
def stripes(tmp_path_factory: pytest.TempPathFactory, discs: DataConfig) -> Path:
    """Pictures without any disc."""
    folder = tmp_path_factory.mktemp("stripes")
    for number in range(20):
        rng = stream("stripes", number)
        _, i = np.mgrid[:SIDE, :SIDE]
        picture = 100 + 90 * np.sign(np.sin(i * rng.uniform(1, 2))) + rng.normal(0, 12, (SIDE, SIDE))
        write_png(folder / f"{number}.png", np.clip(picture, 0, 255).astype(np.uint8))
    manifest = make(folder, name="stripes", kind="image", files={"image": "{case}.png"})
    manifest.save(folder / "stripes.parquet")
    prepare(manifest, discs.cache, discs.prepare, workers=0)
    return folder / "stripes.parquet"


def test_strange_pictures_are_far_from_all_known_ones(tuned, stripes, discs):
    path, rows = strangers(tuned, stripes, "test", [])
    found = {row["metric"]: row for row in rows}
    assert found["auroc by neighbours"]["mean"] > 0.95
    assert found["fpr95 by neighbours"]["mean"] < 0.2
    assert all(row["low"] <= row["mean"] <= row["high"] for row in rows)
    assert {name.split(" by ")[1] for name in found} == {"unsure", "energy", "neighbours"}
    assert path == tuned / "ood/stripes.parquet"
    account = json.loads(path.with_suffix(".json").read_text())
    assert (account["card"], account["cases"], account["scores"]) == ("stripes", 20, rows)
    table = pl.read_parquet(path)
    own = open_data(discs).cases.filter(pl.col("split") == "test")
    assert set(table.filter(~pl.col("strange"))["case_id"]) == set(own["case_id"])
    assert set(table.filter("strange")["case_id"]) == set(Manifest.load(stripes).cases["case_id"])
    assert table["unsure"].is_between(0, 0.5).all()
    assert found["auroc by energy"]["mean"] == pytest.approx(auroc(table["strange"].cast(int), table["energy"]))


def test_pictures_of_the_same_kind_are_not_strange(tuned, discs, tmp_path):
    same = write_discs(tmp_path, salt="same")
    prepare(Manifest.load(same.manifest), discs.cache, discs.prepare, workers=0)
    _, rows = strangers(tuned, same.manifest, "test", [])
    (row,) = (row for row in rows if row["metric"] == "auroc by neighbours")
    assert row["low"] < 0.5 < row["high"]


def test_what_cannot_be_told_apart_honestly_is_refused(tuned, stripes, discs, tmp_path):
    with pytest.raises(LeakageError, match="trained on 24 of the 40"):
        strangers(tuned, discs.manifest, "test", [])
    with pytest.raises(ConfigError, match="split 'dev'.*one of test, train, validation"):
        strangers(tuned, stripes, "dev", [])
    folder = tmp_path / "one"
    write_png(folder / "0.png", np.eye(SIDE, dtype=np.uint8) * 200)
    alone = make(folder, name="one", kind="image", files={"image": "{case}.png"})
    alone.save(folder / "one.parquet")
    prepare(alone, discs.cache, discs.prepare, workers=0)
    with pytest.raises(ConfigError, match="one patient in one.parquet"):
        strangers(tuned, folder / "one.parquet", "test", [])
    radius = finetune(recipe(discs, name="regress", label="Radius"), tmp_path / "radius")
    with pytest.raises(ConfigError, match="is a regress run.*finetuned classification"):
        strangers(radius, stripes, "test", [])
    third = write_discs(tmp_path, salt="third")
    prepare(Manifest.load(third.manifest), discs.cache, discs.prepare, workers=0)
    with pytest.raises(ConfigError, match="none of the patients that the run was trained on"):
        strangers(tuned, stripes, "test", [f"data.manifest={third.manifest}"])


@pytest.mark.parametrize("strangers", [4, 5])
def test_each_set_is_redrawn_at_its_own_size_where_it_has_five_patients(strangers: int):
    known = np.linspace(0, 1, 30)
    scores = [*known, *[0.7] * strangers]
    table = pl.DataFrame({"patient_id": [f"p{place}" for place in range(len(scores))],
                          "strange": [False] * len(known) + [True] * strangers,
                          **dict.fromkeys(("unsure", "energy", "neighbours"), scores)})
    (row,) = (row for row in separation(table) if row["metric"] == "auroc by unsure")
    assert row["mean"] == pytest.approx((known < 0.7).mean())
    if strangers < 5:
        assert (row["low"], row["high"]) == (None, None)
    else:  # all strangers are alike, so that only the share of the known below them varies: a binomial's of 30
        low, high = binom.ppf((0.025, 0.975), 30, row["mean"]) / 30
        assert (row["low"], row["high"]) == pytest.approx((low, high), abs=0.04)
