"""Each tutorial as its reader would paste it, on fewer synthetic patients and in two steps a training."""

from __future__ import annotations

from pathlib import Path

import pytest
from pages import ROOT, commands, written

from medssl.cli import main
from medssl.demo import KEY
from medssl.recipe import shipped_folder

TINY = ["train.steps=2", "train.batch_size=4", "train.precision=float32"]
APPENDED = {
    "phantom": ["--patients", "40"],
    "pretrain": TINY,
    "finetune": TINY,
    "curve": [*TINY, *(f"pretrain.{setting}" for setting in TINY), "seeds=2", "fractions=[0.5,1.0]"],
}
LEFT = {
    "classification": ["runs/mine/findings/predictions.parquet", "runs/mine/findings_curve/report.html",
                       "predictions.csv"],
    "segmentation": ["runs/mine/outline/predictions.parquet", "runs/mine/outline_curve/report.html", "volumes.csv",
                     "masks"],
    "ejection_fraction": ["runs/mine/ef/predictions.parquet", "runs/mine/ef_curve/report.html", "predictions.csv"],
}
ALWAYS_LEFT = ["check.html", "views.png", "report.html"]
"""What its reader has in the end."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where they are pasted one after the other."""
    folder = tmp_path_factory.mktemp("tutorials")
    key = folder / "pseudonym.key"
    key.write_bytes(KEY)  # the same people in each split every time
    key.chmod(0o600)
    (folder / "pipelines").symlink_to(shipped_folder("pipelines"))
    (folder / "mine").mkdir()
    return folder


@pytest.mark.parametrize("name", LEFT)
def test_a_tutorial_leads_from_scans_to_predictions(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch,
                                                    one_core: None, capsys: pytest.CaptureFixture):
    page = ROOT / f"docs/tutorial_{name}.md"
    monkeypatch.chdir(folder)
    monkeypatch.setenv("MEDSSL_KEY_FILE", str(folder / "pseudonym.key"))
    for file, text in written(page).items():
        (folder / file).write_text(text)
    for words in commands(page):
        monkeypatch.setattr("sys.argv", [*words, *APPENDED.get(words[1], [])])
        with pytest.raises(SystemExit) as done:
            main()
        assert not done.value.code, f"{' '.join(words)}: {capsys.readouterr().err}"
    assert not [each for each in [*ALWAYS_LEFT, *LEFT[name]] if not (folder / each).exists()]
