from pathlib import Path

import numpy as np
import pytest
from small_sets import SMALL, discs, make, one_thread  # noqa: F401 (fixtures)
from typer.testing import CliRunner

from medssl.cli import app
from medssl.data.source import DataConfig
from medssl.errors import MedsslError
from medssl.io.write import write_nifti
from medssl.rng import stream
from medssl.train.finetune import FinetuneConfig, finetune
from medssl.train.pretrain import PretrainConfig, pretrain

TASKS = {
    "classify": {"name": "classify", "labels": ["Bright"]},
    "regress": {"name": "regress", "label": "Radius"},
    "segment": {"name": "segment"},
}
"""A task of each kind on the discs."""


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory, discs: DataConfig) -> dict[str, Path]:  # noqa: F811
    """{classify, regress, segment, pretrain: a run folder of a few steps}."""
    root, train = tmp_path_factory.mktemp("runs"), {**SMALL["train"], "steps": 3}
    parts = {"encoder": SMALL["encoder"], "augment": SMALL["augment"], "data": discs, "train": train}
    made = {name: finetune(FinetuneConfig.model_validate({**parts, "task": task}), root / name)
            for name, task in TASKS.items()}
    config = PretrainConfig.model_validate({**parts, "objective": SMALL["objective"]})
    return made | {"pretrain": pretrain(config, root / "pretrain")}


@pytest.fixture(scope="session")
def volumes(tmp_path_factory: pytest.TempPathFactory) -> DataConfig:
    """Six people with two channels on one oblique, unturned grid, in the middle of nothing, and a mask."""
    root = tmp_path_factory.mktemp("volumes")
    affine = np.array([[-1.2, 0, 0, 3], [0, 1.5, 0, 4], [0, 0, -2.0, 5], [0, 0, 0, 1]])
    for number in range(6):
        rng = stream("volumes", number)
        inside = np.zeros((14, 20, 22), dtype=np.float32)
        inside[2:12, 3:17, 4:20] = 1
        for name in ("a", "b"):
            grey = inside * rng.normal(100, 20, inside.shape).astype("f4")
            write_nifti(root / f"p{number}_{name}.nii.gz", grey, affine)
        write_nifti(root / f"p{number}_seg.nii.gz", (inside * (rng.random(inside.shape) < 0.5)).astype("u1"), affine)
    make(root, kind="volume", files={name: f"{{case}}_{name}.nii.gz" for name in "ab"}, mask="{case}_seg.nii.gz",
         regions={"whole": [1, 2], "core": [1]}).save(root / "volumes.parquet")
    return DataConfig.model_validate({
        "manifest": root / "volumes.parquet", "cache": root / "cache", "box": {"size": [8, 8, 8]},
        "prepare": {"intensity": "zscore_nonzero", "margin": 1, "spacing": [1.6, 1.5, 1.5]}})


@pytest.fixture(scope="session")
def volume_run(volumes: DataConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A segmentation of the volumes, of one step."""
    return finetune(FinetuneConfig.model_validate({
        "data": volumes, "encoder": {"name": "unet", "dims": 3, "widths": [4, 8]}, "task": {"name": "segment"},
        "train": {**SMALL["train"], "steps": 1, "batch_size": 2}}), tmp_path_factory.mktemp("volume_run") / "run")


@pytest.fixture
def medssl(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Runs the command in an empty folder with a key of its own; returns what it printed, or raises its error."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MEDSSL_KEY_FILE", str(tmp_path / "pseudonym.key"))

    def run(*arguments: str | Path) -> str:
        done = CliRunner().invoke(app, [str(argument) for argument in arguments])
        if isinstance(done.exception, MedsslError):
            raise done.exception
        assert done.exit_code == 0, done.output
        return done.output

    return run
