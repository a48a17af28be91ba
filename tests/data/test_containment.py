"""No card, table or manifest reaches outside of the data set's folder, and no id becomes a path."""

from __future__ import annotations

import logging
from pathlib import Path

import polars as pl
import pytest
from data_folders import skips, write_picture

from medssl.data.build import build
from medssl.data.card import Card
from medssl.data.manifest import Manifest
from medssl.errors import ConfigError, ManifestError
from medssl.evaluate.curve import CurveConfig
from medssl.io.walk import OUTSIDE

CARD = {
    "name": "xrays", "about": "test", "layout": "table", "kind": "image", "modality": "DX",
    "tables": [{"path": "labels.csv"}], "files": {"image": "{Path}"}, "patient": "{MRN}",
    "split": {"shares": {"train": 1.0}},
}  # fmt: skip


@pytest.fixture
def xrays(tmp_path: Path) -> Path:
    """Two pictures of a table within the folder, and one outside."""
    folder = tmp_path / "xrays"
    for number, path in enumerate(("images/a.png", "images/b.png", "../outside/c.png")):
        write_picture(folder / path, number)
    (folder / "labels.csv").write_text("Path,MRN\nimages/a.png,1\nimages/b.png,2\n")
    return folder


def changed(**changes: object) -> Card:
    return Card.model_validate(CARD | changes)


def add(folder: Path, *cells: str) -> None:
    with (folder / "labels.csv").open("a") as file:
        file.writelines(f"{cell},{number}\n" for number, cell in enumerate(cells, start=3))


def test_cells_that_lead_outside_are_refused_and_counted(xrays: Path, key: bytes):
    outside = xrays.parent / "outside" / "c.png"
    add(xrays, "../outside/c.png", str(outside), "images/../../outside/c.png", r"..\outside\c.png", "images/absent.png")
    manifest = build(changed(), xrays, key)
    assert len(manifest) == 2
    assert skips(manifest) == {
        "a path that is absolute or climbs out of a folder with `..`": 4, "no file for: image": 1}
    assert all(Path(path).is_relative_to(xrays) for path in manifest.files["path"])


def test_links_that_lead_outside_are_refused_unless_their_storage_is_named(xrays: Path, key: bytes):
    (xrays / "images" / "c.png").symlink_to(xrays.parent / "outside" / "c.png")
    (xrays / "images" / "again.png").symlink_to("a.png")
    add(xrays, "images/c.png", "images/again.png")
    manifest = build(changed(), xrays, key)
    assert len(manifest) == 3
    assert skips(manifest) == {OUTSIDE: 1, "no file for: image": 1}
    assert len(build(changed(), xrays, key, linked=[xrays.parent / "outside"])) == 4


def test_a_folder_that_is_itself_a_link_is_fine(xrays: Path, key: bytes):
    link = xrays.parent / "data"
    link.symlink_to(xrays)
    manifest = build(changed(), link, key)
    assert len(manifest) == 2
    manifest.save(xrays.parent / "m.parquet")
    assert set(Manifest.load(xrays.parent / "m.parquet").files["path"]) == {f"{link}/images/{n}.png" for n in "ab"}


@pytest.mark.parametrize("entry", [
    {"files": {"image": "../{Path}"}}, {"files": {"image": "/data/{Path}"}}, {"mask": "a/../../{Path}"},
    {"tables": [{"path": "../labels.csv"}]}, {"tables": [{"path": "/etc/passwd"}]},
    {"join": {"path": "../labels.csv", "match": {"MRN": "MRN"}}},
])  # fmt: skip
def test_a_card_that_leads_outside_is_refused(tmp_path: Path, entry: dict):
    import yaml

    (tmp_path / "card.yaml").write_text(yaml.safe_dump(CARD | entry))
    with pytest.raises(ConfigError, match="leads outside of the data set's folder"):
        Card.read(tmp_path / "card.yaml")


@pytest.mark.parametrize("which", ["tables", "join"])
def test_a_table_that_is_a_link_to_the_outside_is_refused(xrays: Path, key: bytes, which: str):
    (xrays.parent / "outside" / "far.csv").write_text("Path,MRN\nimages/a.png,1\n")
    (xrays / "far.csv").symlink_to(xrays.parent / "outside" / "far.csv")
    entry = {"tables": [{"path": "far.csv"}]} if which == "tables" else {
        "join": {"path": "far.csv", "match": {"MRN": "MRN"}}}
    with pytest.raises(ManifestError, match="Tables lie outside.*far.csv"):
        build(changed(**entry), xrays, key)
    assert len(build(changed(**entry), xrays, key, linked=[xrays.parent / "outside"])) in (1, 2)


@pytest.mark.parametrize("path", ["/etc/passwd", "{folder}/../outside/c.png", "images/a.png", "{folder}x/a.png"])
def test_a_files_table_that_leads_outside_is_refused(xrays: Path, key: bytes, path: str):
    build(changed(), xrays, key).save(xrays.parent / "m.parquet")
    table = xrays.parent / "m.files.parquet"
    files, told = pl.read_parquet(table), pl.read_parquet_metadata(table)
    files[0, "path"] = path.format(folder=xrays)
    files.write_parquet(table, metadata={name: told[name] for name in told if name.startswith("medssl")})
    with pytest.raises(ManifestError, match="1 path.* that lead outside"):
        Manifest.load(xrays.parent / "m.parquet")
    assert len(Manifest.load(xrays.parent / "m.parquet", files=False)) == 2


@pytest.mark.parametrize("column", ["case_id", "patient_id", "study_id"])
def test_an_id_that_is_no_pseudonym_is_refused(xrays: Path, key: bytes, column: str):
    from dataclasses import replace

    manifest = build(changed(), xrays, key)
    cases = manifest.cases.with_columns(pl.lit("../../elsewhere").alias(column))
    replace(manifest, cases=cases, files=manifest.files.with_columns(case_id=pl.lit("../../elsewhere"))).save(
        xrays.parent / "m.parquet")
    with pytest.raises(ManifestError, match=f"whose {column} is no pseudonym"):
        Manifest.load(xrays.parent / "m.parquet")


@pytest.mark.parametrize("name", ["..", "../up", "a/b", "/tmp/x", "a\n", ""])
def test_an_arm_s_name_is_never_a_path(name: str):
    recipe = {"data": {"manifest": "m.parquet"}, "task": {"name": "classify", "labels": ["Sick"]},
              "arms": {name: {"encoder": {"name": "resnet"}}}}
    with pytest.raises(ValueError, match="should match pattern"):
        CurveConfig.model_validate(recipe)


def test_private_tables_are_private_and_a_loose_one_is_told(xrays: Path, key: bytes, caplog: pytest.LogCaptureFixture):
    manifest, place = build(changed(), xrays, key), xrays.parent / "m.parquet"
    manifest.save(place)
    files = xrays.parent / "m.files.parquet"
    assert files.stat().st_mode & 0o777 == 0o600
    with caplog.at_level(logging.WARNING):
        Manifest.load(place)
        assert caplog.messages == []
        files.chmod(0o640)
        Manifest.load(place)
    assert "can be read by others (mode 0640): chmod 600" in caplog.text
    manifest.save(place)
    assert files.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("half", ["hdr", "img"])
def test_half_of_a_pair_may_not_lie_outside(tmp_path: Path, key: bytes, half: str):
    import nibabel
    import numpy as np

    folder, outside = tmp_path / "scans", tmp_path / "outside"
    folder.mkdir()
    outside.mkdir()
    for name in ("a", "b"):
        nibabel.save(nibabel.Nifti1Pair(np.zeros((3, 4, 5), np.int16), np.eye(4)), folder / f"{name}.hdr")
    (folder / f"b.{half}").rename(outside / f"b.{half}")
    (folder / f"b.{half}").symlink_to(outside / f"b.{half}")
    (folder / "labels.csv").write_text("Path,MRN\na.hdr,1\nb.hdr,2\nb.img,3\n")
    manifest = build(changed(kind="volume"), folder, key)
    assert len(manifest) == 1
    assert skips(manifest)[OUTSIDE] == 2
