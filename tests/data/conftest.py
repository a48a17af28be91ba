"""Small folders in the real data sets' own layouts, and the real sets where $MEDSSL_DATA names them."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from data_folders import CARDS_FOLDER, write_picture, write_volume

from medssl.data.card import Card
from medssl.rng import stream

FINDINGS = Card.read(CARDS_FOLDER / "chexpert.yaml").labels.columns


@pytest.fixture
def key() -> bytes:
    return bytes(range(32))


@pytest.fixture
def card() -> Callable[[str], Card]:
    return lambda name: Card.read(CARDS_FOLDER / f"{name}.yaml")


@pytest.fixture
def chexpert(tmp_path: Path) -> Path:
    """12 train patients with 2 images each, 3 patients in valid.csv; Edema blank, -1, 0, 1 in turn."""
    folder = tmp_path / "CheXpert-v1.0-small"
    for part, first, count in (("train", 1, 12), ("valid", 64541, 3)):
        lines = ["Path,Sex,Age,Frontal/Lateral,AP/PA," + ",".join(FINDINGS)]
        for i in range(count):
            for view in (1, 2):
                path = f"{part}/patient{first + i:05d}/study1/view{view}_frontal.jpg"
                write_picture(folder / path, 2 * (first + i) + view)
                edema = ["", "-1.0", "0.0", "1.0"][(i + view) % 4]
                cells = [edema if name == "Edema" else "1.0" if i % 2 else "" for name in FINDINGS]
                sex, projection = ("Male", "Frontal,AP") if i % 2 else ("Female", "Lateral,")
                lines.append(f"CheXpert-v1.0-small/{path},{sex},{70 + 2 * i},{projection}," + ",".join(cells))
        (folder / f"{part}.csv").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture
def brats(tmp_path: Path) -> Path:
    """4 patients with all channels; the last one without a mask."""
    folder = tmp_path / "brats"
    for number in range(4):
        case = f"BraTS2021_{number:05d}"
        for channel in ("t1", "t1ce", "t2", "flair"):
            voxels = stream("test", case, channel).normal(size=(5, 4, 3))
            write_volume(folder / case / f"{case}_{channel}.nii.gz", voxels)
        if number < 3:
            mask = np.zeros((5, 4, 3))
            mask[0, 0], mask[1, 0], mask[2, 0] = 1, 2, 4
            write_volume(folder / case / f"{case}_seg.nii.gz", mask)
    return folder


@pytest.fixture
def echonet(tmp_path: Path) -> Path:
    """6 clips (empty of content, for tables only), their names with and without `.avi`, splits in mixed case."""
    folder = tmp_path / "EchoNet-Dynamic"
    (folder / "Videos").mkdir(parents=True)
    lines = ["FileName,EF,ESV,EDV,FrameHeight,FrameWidth,FPS,NumberOfFrames,Split"]
    for i, split in enumerate(["TRAIN", "train", "Train", "VAL", "val", "TEST"]):
        (folder / "Videos" / f"0X{i:04d}.avi").write_bytes(b"RIFF")
        lines.append(f"0X{i:04d}{'.avi' if i % 2 else ''},{50.5 + i},40,90,112,112,50,175,{split}")
    (folder / "FileList.csv").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture
def real() -> Callable[[str], Path]:
    """The folder of a real set; skips where $MEDSSL_DATA is not set or lacks it."""

    def find(name: str) -> Path:
        root = os.environ.get("MEDSSL_DATA")
        if not root or not (Path(root) / name).is_dir():
            pytest.skip(f"real scans are not at hand: set MEDSSL_DATA to the folder that holds {name}")
        return Path(root) / name

    return find
