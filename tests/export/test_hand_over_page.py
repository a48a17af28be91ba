"""docs/hand_over.md: its notebook examples run, on files of the names that it gives."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from small_sets import SIDE

from medssl.data.source import open_data
from medssl.export.handed import Handed
from medssl.export.one_file import write_file
from medssl.export.onnx import write_onnx

PAGE = Path(__file__).parents[2] / "docs/hand_over.md"


def test_the_notebook_examples_run(runs, discs, tmp_path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    write_file(runs["pretrain"], "encoder.medssl")
    write_onnx(Handed.open(runs["classify"]), "chexpert.onnx")
    manifest = open_data(discs).manifest
    (picture,) = manifest.all_paths(manifest.cases["case_id"][0])["image"]
    Path("scan.png").write_bytes(picture.read_bytes())
    notebook, onnx = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), flags=re.M | re.S)
    assert len([line for line in notebook.splitlines() if line]) == 5
    names: dict = {}
    exec(notebook, names)
    assert names["case"].shape == (1, SIDE, SIDE)
    assert names["pooled"].shape == (1, 8)
    exec(onnx, names)
    assert 0 < names["probability"].item() < 1
