"""`medssl demo`, tiny, from nothing to the report; and again, when nothing is left to do."""

from __future__ import annotations

import csv
import json
import os
import re
from pathlib import Path

import polars as pl
import pytest

from medssl.cli import main
from medssl.demo import ACTS, run_demo
from medssl.errors import ConfigError

TINY = ["seeds=2", "fractions=[0.5,1.0]", "train.steps=2", "train.batch_size=4", "train.precision=float32",
        "pretrain.train.steps=2", "pretrain.train.batch_size=8", "pretrain.train.precision=float32"]


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("demo")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "cpu_count", lambda: 1)
        assert run_demo(out, 0.01, None, TINY) == out / "report.html"
    return out


def _work(demo: Path) -> dict[Path, int]:
    """When each file was written that takes time to make."""
    kept = [*demo.glob("*/points/*/*"), *demo.rglob("model.safetensors"), *(demo / "cache").rglob("*.npy"),
            *(demo / "data").rglob("*"), *(demo / "manifests").iterdir()]
    return {path: path.stat().st_mtime_ns for path in kept if path.is_file()}


def test_report_answers_for_all_three_kinds_of_label(demo: Path):
    page = (demo / "report.html").read_text()
    for act in ACTS:
        head = json.loads((demo / act.phantom / "curve.json").read_text())
        assert page.count(f">{head['title']}<") >= 1
        assert head["verdict"]
    assert {json.loads((demo / act.phantom / "curve.json").read_text())["task"] for act in ACTS} == {
        "classify", "segment", "regress"}
    assert len(re.findall(r'<section class="card answer"', page)) == len(ACTS)


def test_report_needs_nothing_from_outside(demo: Path):
    page = (demo / "report.html").read_text()
    places = re.findall(r"""(?:src|href|action|data)\s*=\s*["']([^"']{0,60})""", page)
    places += re.findall(r"url\(([^)]{0,60})", page)
    assert places
    assert [place for place in places if not place.strip("'\"").startswith(("#", "data:"))] == []
    assert "@import" not in page
    assert not re.search(r"(?<!xmlns=\")(?<!xmlns:xlink=\")https?://", page)


def test_nothing_that_is_shared_names_a_patient(demo: Path):
    names = {path.name for path in (demo / "data/xray/train").iterdir()}
    names |= {path.name for path in (demo / "data/brain").iterdir() if path.is_dir()}
    with open(demo / "data/echo/FileList.csv") as file:
        names |= {row["FileName"] for row in csv.DictReader(file)}
    assert len(names) > 60
    shared = [path for path in demo.rglob("*") if path.is_file() and demo / "data" not in path.parents
              and not path.name.endswith(".files.parquet")]
    for path in shared:
        content = path.read_bytes()
        if path.suffix == ".parquet":  # its pages are compressed
            content = f"{pl.read_parquet_metadata(path)} {pl.read_parquet(path).to_dicts()}".encode()
        found = [name for name in names if name.encode() in content]
        assert not found, f"{path.relative_to(demo)} names {found[0]}"


def test_second_run_redoes_nothing(demo: Path, one_core: None):
    before = _work(demo)
    assert len(before) > 100
    run_demo(demo, 0.01, None, TINY)
    assert _work(demo) == before


def test_one_act_alone_and_an_unknown_one(demo: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture,
                                          one_core: None):
    arguments = ["medssl", "demo", "--out", str(demo), "--patients", "0.01", "--only", "echo", *TINY]
    monkeypatch.setattr("sys.argv", arguments)
    with pytest.raises(SystemExit) as done:
        main()
    assert done.value.code == 0
    assert capsys.readouterr().out.rstrip().endswith(f"The report: {demo / 'report.html'}")
    with pytest.raises(ConfigError, match="xray, brain, echo"):
        run_demo(demo, 0.01, "knee", [])
