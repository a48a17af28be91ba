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
    "classification": ["runs/mine/findings/predictions.parquet", "predictions.csv"],
    "segmentation": ["runs/mine/outline/predictions.parquet", "volumes.csv", "masks"],
    "ejection_fraction": ["runs/mine/ef/predictions.parquet", "predictions.csv"],
}
ALWAYS_LEFT = ["check.html", "views.png", "runs/mine/curve/report.html", "report.html"]
"""What its reader has in the end."""


@pytest.mark.parametrize("name", LEFT)
def test_a_tutorial_leads_from_scans_to_predictions(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                    one_core: None, capsys: pytest.CaptureFixture):
    page = ROOT / f"docs/tutorial_{name}.md"
    monkeypatch.chdir(tmp_path)
    key = tmp_path / "pseudonym.key"
    key.write_bytes(KEY)  # the same people in each split every time
    key.chmod(0o600)
    monkeypatch.setenv("MEDSSL_KEY_FILE", str(key))
    (tmp_path / "pipelines").symlink_to(shipped_folder("pipelines"))
    (tmp_path / "mine").mkdir()
    for file, text in written(page).items():
        (tmp_path / file).write_text(text)
    for words in commands(page):
        monkeypatch.setattr("sys.argv", [*words, *APPENDED.get(words[1], [])])
        with pytest.raises(SystemExit) as done:
            main()
        assert not done.value.code, f"{' '.join(words)}: {capsys.readouterr().err}"
    assert not [each for each in [*ALWAYS_LEFT, *LEFT[name]] if not (tmp_path / each).exists()]
