"""What the tests of medssl.data share: small files, and questions asked of a manifest."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import polars as pl
import yaml
from PIL import Image

from medssl.data.card import Card
from medssl.data.checks import Finding
from medssl.data.manifest import Manifest
from medssl.rng import stream

CARDS_FOLDER = Path(__file__).parents[2] / "data_manifests"


def write_picture(path: Path, number: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = stream("test picture", number).integers(0, 256, size=(8, 8))
    Image.fromarray(pixels.astype(np.uint8)).save(path)


def write_volume(path: Path, array: np.ndarray, offset: float = 0.0, spacing: float = 1.0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    affine = np.diag([spacing] * 3 + [1.0])
    affine[:3, 3] = offset
    nibabel.save(nibabel.Nifti1Image(array.astype(np.float32), affine), path)


def changed(card: Card, **changes: object) -> Card:
    """The card with other top-level entries."""
    return Card.from_yaml(yaml.safe_dump({**yaml.safe_load(card.to_yaml()), **changes}))


def skips(manifest: Manifest) -> dict[str, int]:
    return dict(manifest.skipped.group_by("reason").agg(pl.col("count").sum()).rows())


def told_by(folder: Path, text: str) -> bool:
    """Whether any file that may be shared holds the text: as bytes, or within what Parquet compresses."""
    for path in folder.iterdir():
        if path.is_dir() or path.name.endswith(".files.parquet"):
            continue
        content = path.read_bytes().decode(errors="replace")
        if path.suffix == ".parquet":
            content += pl.read_parquet(path).write_csv() + str(pl.read_parquet_metadata(path))
        if text in content:
            return True
    return False


def found(findings: list[Finding], text: str) -> Finding:
    """The one finding that says `text`."""
    hits = [finding for finding in findings if text in finding.what]
    assert len(hits) == 1, [finding.what for finding in findings]
    return hits[0]


def case_of(manifest: Manifest, name: str) -> str:
    """The case whose first file's path holds `name`."""
    return manifest.files.filter(pl.col("path").str.contains(name, literal=True))["case_id"][0]
