from pathlib import Path

import pytest
from small_sets import SMALL, discs, one_thread  # noqa: F401 (fixtures)

from medssl.data.source import DataConfig
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
