"""README says what is true: its five commands run, its example runs, its tables are whole."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from pages import ROOT, blocks, commands

from medssl.cli import main
from medssl.recipe import shipped_folder

README = ROOT / "README.md"

TINY = ["train.steps=2", "train.batch_size=2", "train.workers=0", "train.precision=float32"]
SMALL = ["data.prepare.size=[32,32]", "data.box.size=[4,32,32]"]
APPENDED = {
    "manifest": [],
    "check": [],
    "preview": SMALL,
    "pretrain": [*SMALL, *TINY],
    "curve": [*SMALL, *TINY, "seeds=2", "fractions=[0.5,1.0]"],
}
"""What makes each of README's commands tiny."""
STANDS_IN = {"/data/EchoNet-Dynamic": "echo"}
"""Phantoms for the folders that README names."""


def test_readme_has_the_five_commands():
    assert [words[1] for words in commands(README)] == list(APPENDED)


def test_readme_commands_run(phantoms: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, one_core: None,
                             capsys: pytest.CaptureFixture):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MEDSSL_KEY_FILE", str(tmp_path / "pseudonym.key"))
    for words in commands(README):
        arguments = [str(phantoms[STANDS_IN[word]]) if word in STANDS_IN else word for word in words]
        monkeypatch.setattr("sys.argv", [*arguments, *APPENDED[words[1]]])
        with pytest.raises(SystemExit) as done:
            main()
        assert not done.value.code, f"{' '.join(words)}: {capsys.readouterr().err}"
    assert (tmp_path / "views.png").is_file()
    assert (tmp_path / "runs/echonet_dynamic/curve/report.html").is_file()
    (example,) = [block.text for block in blocks(README) if block.language == "python"]
    names = {"clips": torch.zeros(2, 1, 4, 32, 32)}
    exec(compile(example, README.name, "exec"), names)  # what the commands have left is what it reads
    assert names["features"].pooled.shape[0] == 2


def test_map_of_folders_agrees_with_the_tree():
    text = README.read_text().split("## The folders")[1].split("\n## ")[0]
    told = set(re.findall(r"^\| \[(\S+?)/\]", text, flags=re.M))
    packages = {f"medssl/{path.parent.name}" for path in (ROOT / "medssl").glob("*/__init__.py")}
    assert told == packages | {"pipelines", "data_manifests", "docs", "benchmarks", "docker", "tests"}
    modules = {path.name for path in (ROOT / "medssl").glob("*.py")} - {"__init__.py"}
    assert set(re.findall(r"\[(\w+\.py)\]\(medssl/", text)) == modules


def test_table_of_datasets_is_complete():
    text = README.read_text()
    for card in shipped_folder("data_manifests").glob("*.yaml"):
        assert f"(data_manifests/{card.name})" in text
    for folder in shipped_folder("pipelines").iterdir():
        assert folder.name.startswith("phantom_") or f"(pipelines/{folder.name})" in text
