"""A curve in shares: side by side they do what one command does, and nobody does another's."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import polars as pl
import pytest
from small_sets import SMALL

from medssl.config import validate
from medssl.data.source import DataConfig
from medssl.errors import ConfigError, InUse
from medssl.evaluate import points
from medssl.evaluate.curve import Curve, CurveConfig, Point
from medssl.evaluate.points import run_curve, run_share
from medssl.evaluate.shares import Share
from medssl.train.bar import Bar
from medssl.train.run import held

MEDSSL = [sys.executable, "-c", "from medssl.cli import main; main()"]


def recipe(discs: DataConfig) -> dict:
    train = {**SMALL["train"], "steps": 3}
    ssl = {"step": "pretrain", **SMALL, "data": discs.model_dump(mode="json"), "train": train}
    return {"step": "curve", "data": discs.model_dump(mode="json"), "augment": SMALL["augment"], "train": train,
            "task": {"name": "classify", "labels": ["Bright"]}, "fractions": [0.25, 1.0], "seeds": 2,
            "pretrainings": 2, "arms": {"scratch": {"like": "ssl"}, "ssl": {"pretrain": ssl, "baseline": "scratch"},
                                        "frozen": {"how": "probe", "weights_of": "ssl"}, "pixels": {"how": "pixels"}}}


def table(out: Path, name: str) -> pl.DataFrame:
    return pl.read_parquet(out / f"{name}.parquet").drop("seconds", strict=False)


def test_shares_started_at_once_and_then_concluded_are_one_command(discs, tmp_path):
    (tmp_path / "curve.yaml").write_text(json.dumps(recipe(discs)))
    whole = tmp_path / "whole"
    run_curve(validate(CurveConfig, recipe(discs), "recipe"), whole, 1, Bar)
    command = [*MEDSSL, "curve", tmp_path / "curve.yaml", "--out", tmp_path / "shared", "--workers", "1"]
    shares = [subprocess.Popen([*command, "--share", f"{number}/3"], text=True, stderr=subprocess.PIPE,
                               env=os.environ | {"OMP_NUM_THREADS": "1"}) for number in (1, 2, 3)]
    for share in shares:
        _, told = share.communicate(timeout=300)
        assert share.returncode == 0, told
    assert not (tmp_path / "shared/curve.json").exists(), "shares conclude nothing"
    done = {path: path.stat().st_mtime_ns for path in (tmp_path / "shared").rglob("points/**/*.parquet")}
    assert len(done) == len(list(whole.rglob("points/**/*.parquet"))) == 2 * 2 * (1 + 2 + 2 + 1)
    run_curve(validate(CurveConfig, recipe(discs), "recipe"), tmp_path / "shared", 1, Bar)
    assert {path: path.stat().st_mtime_ns for path in done} == done, "nothing is done again"
    for name in ("predictions", "points", "summary", "comparison"):
        assert table(tmp_path / "shared", name).equals(table(whole, name)), name


def test_seconds_of_shares_add_up_also_of_one_that_was_stopped(discs, tmp_path, monkeypatch):
    config, told = validate(CurveConfig, recipe(discs), "recipe"), []

    def seconds() -> float:
        return json.loads((tmp_path / "provenance.json").read_text())["seconds"]

    def stopped(curve: Curve, todo: list[Point], *_) -> None:
        time.sleep(1.5)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(points, "_do", stopped)
        with pytest.raises(KeyboardInterrupt):
            run_share(config, tmp_path, Share(1, 2), 1, Bar)
    told.append(seconds())
    for number in (1, 2):
        run_share(config, tmp_path, Share(number, 2), 1, Bar)
        told.append(seconds())
    assert told[0] >= 1.5
    spent = [json.loads(path.read_text())["seconds"] for path in tmp_path.rglob("points/**/*.json")]
    assert told == sorted(told)
    assert told[2] - told[0] > 0.9 * sum(spent) > 0
    run_curve(config, tmp_path, 1, Bar)
    assert seconds() >= told[2]
    assert "finished" in json.loads((tmp_path / "provenance.json").read_text())


def test_a_share_does_its_own_points_and_the_pretrainings_they_need(discs, tmp_path):
    config = validate(CurveConfig, recipe(discs), "recipe")
    count = run_share(config, tmp_path, Share(2, 24), 1, Bar)
    (done,) = tmp_path.rglob("points/**/*.json")
    assert count == 1
    arm = json.loads(done.read_text())["arm"]
    assert len(list((tmp_path / "pretrain").glob("*"))) == (arm in ("ssl", "frozen"))


def test_what_another_share_pretrains_is_waited_for_and_what_is_ready_done_meanwhile(discs, tmp_path, monkeypatch):
    config, seen = validate(CurveConfig, recipe(discs), "recipe"), []
    other = held(tmp_path / "pretrain/ssl-k0")
    other.__enter__()

    def pause(_: float) -> None:
        seen.append({path.parent.name for path in tmp_path.rglob("points/**/*.json")})
        if len(seen) == 2:
            other.__exit__(None, None, None)

    monkeypatch.setattr(points, "time", SimpleNamespace(sleep=pause, monotonic=time.monotonic))
    run_share(config, tmp_path, Share(1, 1), 1, Bar)
    assert len(seen) == 2
    assert "scratch" in seen[0]
    assert len(list(tmp_path.rglob("points/**/*.json"))) == 24


def test_a_share_is_started_once_and_never_beside_the_whole(discs, tmp_path):
    config = validate(CurveConfig, recipe(discs), "recipe")
    with held(tmp_path, beside_others=True), held(tmp_path / "shares/1-of-2"):
        with pytest.raises(InUse, match="1-of-2"):
            run_share(config, tmp_path, Share(1, 2), 1, Bar)
        with pytest.raises(InUse, match="Another process works in"):
            run_curve(config, tmp_path, 1, Bar)
    with held(tmp_path), pytest.raises(InUse):
        run_share(config, tmp_path, Share(2, 2), 1, Bar)


def test_shares_cover_everything_once():
    everything = list(range(17))
    assert sorted(each for number in range(1, 6) for each in Share(number, 5).of(everything)) == everything
    assert {Share(number, 5).turned(everything)[0] for number in range(1, 6)} == {0, 3, 6, 10, 13}
    assert sorted(Share(4, 5).turned(everything)) == everything
    assert Share.read("3/16") == Share(3, 16)


@pytest.mark.parametrize("text", ["0/4", "5/4", "3", "a/b", "1/0", "-1/3", "1/2/3"])
def test_what_is_no_share_is_refused(text):
    with pytest.raises(ConfigError, match=r"--share .*such as 3/16"):
        Share.read(text)
