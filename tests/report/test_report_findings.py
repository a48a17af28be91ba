"""The page of `medssl check`: what was found, with pictures of the cases, for its owner's eyes only."""

from __future__ import annotations

import base64
import io
import re
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image

from medssl.data.build import build
from medssl.data.card import Card
from medssl.data.checks import Finding
from medssl.data.manifest import Manifest
from medssl.errors import ConfigError
from medssl.report.findings import SHOWN, write_findings

CARD = Card.model_validate({
    "name": "films", "about": "A test.", "layout": "pattern", "kind": "image", "modality": "DX",
    "files": {"image": "{case}.png"}, "patient": "{case}", "split": {"shares": {"train": 1.0}}})


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    """Nine films, 300 × 200, each of one half black and one half white; the first is no picture at all."""
    folder = tmp_path / "MEIER_ANNA"
    folder.mkdir()
    for number in range(9):
        pixels = np.zeros((200, 300), np.uint8)
        pixels[:, 150:] = 200
        Image.fromarray(pixels).save(folder / f"SECRET{number}.png")
    (folder / "SECRET0.png").write_bytes(b"no picture")
    return build(CARD, folder, bytes(32))


def broken(manifest: Manifest) -> str:
    return manifest.files.filter(pl.col("path").str.ends_with("SECRET0.png"))["case_id"].item()


def test_page_and_table_tell_everything_and_are_private(tmp_path: Path, manifest: Manifest) -> None:
    cases = manifest.cases["case_id"].to_list()
    findings = [Finding("error", "1 case(s): <image> cannot be read", "a file", "mend it", [broken(manifest)]),
                Finding("warning", "9 case(s) are odd", cases=cases), Finding("note", "train 9 patients")]
    page, table = write_findings(tmp_path / "out" / "check.html", manifest, findings, opened=True)
    assert [path.stat().st_mode & 0o777 for path in (page, table)] == [0o600, 0o600]
    text = page.read_text()
    assert "1 error, 1 warning and 1 note" in " ".join(text.split())
    assert "1 case(s): &lt;image&gt; cannot be read" in text
    assert f"{SHOWN} of 9 cases; finding 2 of check.csv lists them all" in text
    assert text.count("no file can be opened") == (2 + (broken(manifest) in cases[:SHOWN]))
    rows = pl.read_csv(table)
    assert rows["finding"].to_list() == [1, *[2] * 9, 3]
    assert rows["case_id"].to_list() == [broken(manifest), *cases, None]
    for secret in ("SECRET", "MEIER", str(tmp_path)):
        assert secret not in text + table.read_text()
    assert "http" not in text.replace("http-equiv", "")
    assert "<script" not in text


def test_thumbnails_show_the_pixels(tmp_path: Path, manifest: Manifest) -> None:
    page, _ = write_findings(tmp_path / "check.html", manifest, [], opened=False)
    text = page.read_text()
    assert "Nothing was found wrong" in text
    assert "--deep opens every file" in text
    pictures = [np.asarray(Image.open(io.BytesIO(base64.b64decode(content))).convert("L"))
                for content in re.findall(r'img src="data:image/png;base64,([^"]+)"', text)]
    assert len(pictures) == 8
    assert pictures[0].shape == (96, 144)
    assert pictures[0][:, :70].max() == 0
    assert pictures[0][:, 74:].min() == 255


def test_another_ending_is_refused_before_anything_is_read(tmp_path: Path, manifest: Manifest) -> None:
    with pytest.raises(ConfigError, match="no page"):
        write_findings(tmp_path / "check.pdf", manifest, [], opened=False)
