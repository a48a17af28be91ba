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
from medssl.data.checks import Finding, gather
from medssl.data.manifest import Manifest
from medssl.errors import ConfigError
from medssl.report.findings import SHOWN, require_free_name, write_findings

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
    page, table = write_findings(tmp_path / "out" / "check.html", manifest, findings, gather(manifest))
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
    page, _ = write_findings(tmp_path / "check.html", manifest, [])
    text = page.read_text()
    assert "Nothing was found wrong" in text
    assert "--deep opens every file" in text
    pictures = [np.asarray(Image.open(io.BytesIO(base64.b64decode(content))).convert("L"))
                for content in re.findall(r'img src="data:image/png;base64,([^"]+)"', text)]
    assert len(pictures) == 8
    assert pictures[0].shape == (96, 144)
    assert pictures[0][:, :70].max() == 0
    assert pictures[0][:, 74:].min() == 255


def test_a_long_list_stands_below_its_heading_and_notes_are_one_list(tmp_path: Path, manifest: Manifest) -> None:
    listed = ", ".join(f"label{number} 0.1" for number in range(9))
    case = manifest.cases["case_id"].to_list()[:1]
    page, table = write_findings(tmp_path / "check.html", manifest, [
        Finding("warning", f"too few positives: {listed}"), Finding("warning", f"1 case(s): {'long ' * 20}"),
        Finding("note", "train 9 patients"), Finding("note", "1 of 9 cases have no mask", cases=case)])
    text = page.read_text()
    assert f"<h3>Too few positives</h3>\n      <p>L{listed[1:]}</p>" in text
    assert f"<h3>1 case(s): {'long ' * 20}</h3>" in text
    assert text.count('class="card finding') == 2
    assert re.findall(r"<li>(Train 9 patients|1 of 9 cases have no mask)\.", text) == [
        "Train 9 patients", "1 of 9 cases have no mask"]
    assert "1 of 1 cases; finding 4 of check.csv lists them all" in text
    assert f"too few positives: {listed}" in table.read_text()


def test_the_page_draws_the_set(tmp_path: Path, manifest: Manifest) -> None:
    facts = gather(manifest)
    page, _ = write_findings(tmp_path / "check.html", manifest, [], facts)
    assert "300 in all 8 cases" in page.read_text()
    known = pl.col("middle").is_not_null().cum_sum()
    varied = facts.with_columns(middle=pl.when(known == 8).then(900.0).otherwise(known))
    page, _ = write_findings(tmp_path / "check.html", manifest, [], varied)
    (drawn,) = re.findall(r"<svg.*?</svg>", page.read_text(), re.DOTALL)
    assert 'aria-label="image from 1 to 900: median 4.5, 8 cases, bins growing in ratio"' in drawn
    bars = re.findall(r'height="([\d.]+)"><title>(\d+)</title>', drawn)
    assert sum(int(count) for _, count in bars) == 8
    assert max(float(height) for height, _ in bars) == 58
    plain, _ = write_findings(tmp_path / "check.html", manifest, [])
    assert "<svg" not in plain.read_text()


def test_another_ending_is_refused_before_anything_is_read(tmp_path: Path, manifest: Manifest) -> None:
    with pytest.raises(ConfigError, match="no page"):
        write_findings(tmp_path / "check.pdf", manifest, [])


def test_the_table_of_findings_does_not_overwrite_the_manifest(tmp_path: Path) -> None:
    require_free_name(tmp_path / "ours.html", tmp_path / "ours.parquet")
    with pytest.raises(ConfigError, match="the manifest's own name") as caught:
        require_free_name(tmp_path / "sub" / ".." / "ours.html", tmp_path / "ours.csv")
    assert "ours-check.html" in caught.value.remedy
    with pytest.raises(ConfigError, match="no page"):
        require_free_name(tmp_path / "check.pdf", tmp_path / "ours.csv")
