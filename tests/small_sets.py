"""What the tests of data, train and evaluate share: small sets written to disk, and the recipes' parts for them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from medssl.data.build import build
from medssl.data.card import Card
from medssl.data.manifest import Manifest
from medssl.data.prepare import prepare
from medssl.data.source import DataConfig
from medssl.io.write import write_png
from medssl.rng import stream

KEY = bytes(range(32))
PEOPLE = {"train": 24, "validation": 4, "test": 12}
SIDE = 24

SMALL: dict[str, Any] = {
    "encoder": {"name": "unet", "dims": 2, "widths": [4, 8]},
    "objective": {"name": "masked_reconstruction", "ratio": 0.5, "block": [8, 8], "fill": "noise"},
    "augment": {"spatial": {"scale": [0.7, 1.0], "flip": {"i": 0.5}}},
    "train": {"steps": 8, "batch_size": 8, "precision": "float32", "log_every": 2, "optim": {"lr": 0.003}},
}
"""Parts of recipes that run in seconds. The objective draws noise, so torch's own random numbers matter as well."""


def make(folder: Path, key: bytes = KEY, **entries: Any) -> Manifest:
    """The manifest of a folder, by a `pattern` card whose patient is `{case}`; `entries` are the card's."""
    card = {"name": "small", "about": "test", "layout": "pattern", "modality": "OT", "patient": "{case}",
            "split": {"shares": {"train": 1.0}}}
    return build(Card.model_validate({**card, **entries}), folder, key)


def write_discs(folder: Path, key: bytes = KEY, salt: str = "", called: Mapping[str, str] | None = None) -> DataConfig:
    """40 patients with two noisy pictures (24, 24) of a disc each, and their manifest.

    label.Bright: whether the disc is brighter than its surroundings; label.Vague: 1, 0, -1 or blank; label.Radius: its
    radius in pixels; attr.view: A or B; mask: the disc. Another `salt`, another set of people. `called`: other
    names for labels and the mask's region.
    """
    bright_, vague_, radius_, disc_ = ((called or {}).get(name, name) for name in ("Bright", "Vague", "Radius", "disc"))
    lines = [f"image,mask,patient,part,{bright_},{vague_},{radius_},view"]
    parts = [part for part, count in PEOPLE.items() for _ in range(count)]
    for number, part in enumerate(parts):
        for view in "AB":
            rng = stream("discs", salt, number, view)
            radius, bright = rng.uniform(3, 7), int(rng.random() < 0.5)
            j, i = np.mgrid[:SIDE, :SIDE] - rng.uniform(8, 16, size=(2, 1, 1))
            disc = np.hypot(j, i) < radius
            picture = rng.normal(100, 12, size=disc.shape) + disc * (80 if bright else -60)
            name = f"p{number:02d}{view}.png"
            write_png(folder / "images" / name, np.clip(picture, 0, 255).astype(np.uint8))
            write_png(folder / "masks" / name, disc.astype(np.uint8))
            vague = ("1", "0", "-1", "")[(number + (view == "B")) % 4]
            lines.append(f"images/{name},masks/{name},{number},{part},{bright},{vague},{radius:.3f},{view}")
    (folder / "table.csv").write_text("\n".join(lines) + "\n")
    card = Card.model_validate({
        "name": f"discs{salt}", "about": "test", "layout": "table", "kind": "image", "modality": "OT",
        "tables": [{"path": "table.csv"}], "files": {"image": "{image}"}, "mask": "{mask}", "regions": {disc_: [1]},
        "patient": "{patient}", "split": {"source": "{part}"},
        "labels": {"columns": [bright_, vague_, radius_]}, "attributes": {"view": "{view}"}})
    manifest = build(card, folder, key)
    manifest.save(folder / "discs.parquet")
    config = DataConfig.model_validate({"manifest": folder / "discs.parquet", "cache": folder / "cache",
                                        "prepare": {"intensity": "range"}})
    prepare(manifest, config.cache, config.prepare, workers=0)
    return config


@pytest.fixture(scope="session")
def discs(tmp_path_factory: pytest.TempPathFactory) -> DataConfig:
    """The set of discs, written once; leave it as it is."""
    return write_discs(tmp_path_factory.mktemp("discs"))


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    """As the worker processes have it, so that sums run in the same order everywhere, in shared fixtures too."""
    torch.set_num_threads(1)
