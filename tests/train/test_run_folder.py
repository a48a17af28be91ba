"""medssl.train.run: one folder, one recipe, one manifest; and a provenance that names no place and nobody."""

from __future__ import annotations

import getpass
import json
import platform
import subprocess
import sys
from pathlib import Path
from typing import Literal

import pytest
from small_disks import ROOM, disk

from medssl.config import Config
from medssl.errors import RunError
from medssl.evaluate.growth import may_change
from medssl.train.how import HowConfig
from medssl.train.run import begin_run, finish_run, held, open_run


class Inner(Config):
    lr: float = 0.1
    steps: int = 5


class Recipe(Config):
    title: str = "a"
    train: Inner = Inner()


def test_the_same_recipe_finds_its_folder_again(tmp_path):
    open_run(tmp_path / "run", Recipe(), manifest="m1", cases=3)
    learn(tmp_path / "run")
    before = (tmp_path / "run/provenance.json").read_text()
    open_run(tmp_path / "run", Recipe(), manifest="m1", cases=3)
    assert (tmp_path / "run/provenance.json").read_text() == before


def learn(folder: Path) -> None:
    (folder / "metrics.jsonl").write_text("{}\n")


def test_a_recipe_may_be_mended_until_something_is_learnt(tmp_path):
    open_run(tmp_path, Recipe(), manifest="m1")
    (tmp_path / "init.txt").write_text("of the first recipe")
    (tmp_path / "metrics.jsonl").touch()
    open_run(tmp_path, Recipe(title="b"), manifest="m2")
    assert "title: b" in (tmp_path / "recipe.yaml").read_text()
    assert json.loads((tmp_path / "provenance.json").read_text())["manifest"] == "m2"
    assert not (tmp_path / "init.txt").exists()


def test_a_recipe_that_a_person_wrote_and_other_runs_accounts_are_left_alone(tmp_path):
    (tmp_path / "recipe.yaml").write_text("title: mine  # and my comment\n")
    with pytest.raises(RunError, match="another recipe"):
        open_run(tmp_path, Recipe())
    assert (tmp_path / "recipe.yaml").read_text() == "title: mine  # and my comment\n"
    (tmp_path / "recipe.yaml").unlink()
    (tmp_path / "other").mkdir()
    (tmp_path / "other/init.txt").write_text("another run's")
    open_run(tmp_path, Recipe())
    open_run(tmp_path, Recipe(title="b"))
    assert (tmp_path / "other/init.txt").is_file()


def test_a_run_that_has_begun_keeps_its_recipe_before_it_has_learnt(tmp_path):
    open_run(tmp_path, Recipe())
    begin_run(tmp_path, starts={})
    with pytest.raises(RunError, match="another recipe"):
        open_run(tmp_path, Recipe(title="b"))


@pytest.mark.parametrize("trace", ["metrics.jsonl", "checkpoints/last.ckpt", "model.json", "points/ssl/k0-f1-s0.json",
                                   "pretrain/ssl-k0/checkpoints/last.ckpt"])
def test_what_is_learnt_keeps_its_recipe(tmp_path, trace):
    open_run(tmp_path, Recipe())
    (tmp_path / trace).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / trace).write_text("{}")
    with pytest.raises(RunError, match="another recipe"):
        open_run(tmp_path, Recipe(title="b"))


class Curve(Recipe):
    step: Literal["curve"] = "curve"
    train: HowConfig = HowConfig()


def test_a_curve_s_points_are_all_done_at_one_precision(tmp_path):
    open_run(tmp_path, Curve(), may_change)
    learn(tmp_path)
    open_run(tmp_path, Curve(train=HowConfig(workers=2)), may_change)
    with pytest.raises(RunError, match=r"differs in train.accumulate, train.precision\)"):
        open_run(tmp_path, Curve(train=HowConfig(precision="bf16", accumulate=2)), may_change)


def test_what_a_run_goes_on_with_is_recorded_once_and_not_once_it_is_finished(tmp_path):
    def moves() -> list[dict]:
        return json.loads((tmp_path / "provenance.json").read_text()).get("went_on", [])

    for processes in (1, 1, 2, 2, 1):
        open_run(tmp_path, Recipe(), processes=processes)
        learn(tmp_path)
    assert [move["processes"] for move in moves()] == [2, 1]
    (tmp_path / "model.json").write_text("{}")
    open_run(tmp_path, Recipe(), processes=8)
    assert len(moves()) == 2


def test_a_finished_run_is_found_on_a_disk_that_is_read_only(tmp_path):
    with disk(tmp_path, ROOM):
        (tmp_path / "model.json").write_text("{}")
        subprocess.run(["mount", "-o", "remount,ro", str(tmp_path)], check=True)
        with held(tmp_path):
            pass
        subprocess.run(["mount", "-o", "remount,rw", str(tmp_path)], check=True)
        (tmp_path / "model.json").unlink()
        subprocess.run(["mount", "-o", "remount,ro", str(tmp_path)], check=True)
        with pytest.raises(OSError, match="Read-only"), held(tmp_path):
            pass


def test_another_recipe_is_refused_with_the_keys_that_differ(tmp_path):
    open_run(tmp_path, Recipe(), manifest="m1")
    learn(tmp_path)
    with pytest.raises(RunError, match=r"another recipe \(differs in title, train.lr\).*another --out"):
        open_run(tmp_path, Recipe(title="b", train=Inner(lr=0.2)), manifest="m1")
    assert "title: a" in (tmp_path / "recipe.yaml").read_text()


def test_a_recipe_of_an_earlier_version_lacks_what_is_at_its_default(tmp_path):
    open_run(tmp_path, Recipe(), manifest="m1")
    learn(tmp_path)
    (tmp_path / "recipe.yaml").write_text("title: a\ntrain: {lr: 0.1}\n")
    open_run(tmp_path, Recipe(), manifest="m1")
    with pytest.raises(RunError, match=r"differs in train.steps\)"):
        open_run(tmp_path, Recipe(train=Inner(steps=6)), manifest="m1")
    (tmp_path / "recipe.yaml").write_text("title: a\nold: 1\n")
    with pytest.raises(RunError, match=r"differs in old, train\)"):
        open_run(tmp_path, Recipe(), manifest="m1")


def test_another_manifest_is_refused(tmp_path):
    open_run(tmp_path, Recipe(), manifest="m1")
    learn(tmp_path)
    with pytest.raises(RunError, match="another manifest .digest m1, now m2"):
        open_run(tmp_path, Recipe(), manifest="m2")


@pytest.mark.parametrize(("argument", "kept"), [
    ("--out=/data/smith/runs", "--out=runs"), ("data.manifest=/data/smith/m.parquet", "data.manifest=m.parquet"),
    ("/data/smith/curve.yaml", "curve.yaml"), ("data.where={a: [/data/smith/x, /data/smith/y]}", None),
    ("~/smith/x.yaml", "x.yaml"), ("../smith/x.yaml", "x.yaml"), ("pipelines/chexpert/mae.yaml", ...),
    ("smith/x.yaml", "x.yaml"), ("init=weights/smith/x.pth", "init=x.pth"), ("--out=runs/smith, j/a", "--out=a"),
    ("train.optim.lr=0.1", ...),
    ("pipelines/../../smith/x.yaml", "x.yaml"), ("init=pipelines/smith/x.pth", "init=x.pth"),
])
def test_the_command_keeps_no_folder_from_outside(tmp_path, monkeypatch, argument, kept):
    monkeypatch.setattr(sys, "argv", ["/usr/local/bin/medssl", "pretrain", argument])
    open_run(tmp_path, Recipe())
    command = json.loads((tmp_path / "provenance.json").read_text())["command"]
    if kept is not None:
        assert command == f"medssl pretrain {argument if kept is ... else kept}"
    assert "smith" not in command


def test_provenance_tells_versions_and_neither_place_nor_person(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", [str(tmp_path / "medssl"), f"--out={tmp_path}/run"])
    open_run(tmp_path / "run", Recipe(), manifest="m1", seed=3)
    finish_run(tmp_path / "run", seconds=1.5)
    text = (tmp_path / "run/provenance.json").read_text()
    told = json.loads(text)
    assert {"medssl", "revision", "python", "packages", "device", "command", "started", "finished"} <= told.keys()
    assert (told["seed"], told["manifest"], told["seconds"]) == (3, "m1", 1.5)
    assert told["packages"]["torch"]
    for secret in (platform.node(), str(tmp_path), str(Path.home()), str(Path(sys.prefix))):
        assert secret not in text
    assert getpass.getuser() not in json.dumps({key: told[key] for key in ("command", "device", "revision")})
