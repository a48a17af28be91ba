"""A dump of an archive, told nothing else, as somebody new would try it: what the terminal says is done, and works."""

from __future__ import annotations

import csv
import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
from dicom_masks import positions, write_image
from pydicom import dcmread
from test_cli import TINY, Terminal

from medssl.io.write import write_dicom
from medssl.rng import stream

CARD, RECIPE = "data_manifests/dicom_folder.yaml", "pipelines/dicom_folder/simsiam.yaml"
SMALL = ["data.prepare.size=[32,32]", "augment.size=[32,32]", *TINY]


@pytest.fixture
def medssl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture,
           caplog: pytest.LogCaptureFixture, one_core: None) -> Terminal:
    return Terminal(tmp_path, monkeypatch, capsys, caplog)


def write(path: Path, pixels: np.ndarray, **attributes: object) -> None:
    """What `write_dicom`, which writes single grey images, leaves out."""
    write_dicom(path, np.zeros((40, 40), np.uint8), modality="CR", patient_id="P", study_uid="1.2", series_uid="1.2.3",
                instance_uid=f"{attributes['SeriesInstanceUID']}.1")
    data = dcmread(path)
    data.update(attributes)
    data.PixelData = pixels.tobytes()
    data.save_as(path)


@pytest.fixture
def dump(tmp_path: Path) -> Path:
    """Grey and colour images, a tilted CT, a clip, and what else lies about; umlauts and spaces in the names."""
    folder, rng = tmp_path / "Über Größe" / "Müller, Anna", stream("newcomer")
    for n in range(6):
        write_dicom(folder / f"röntgen {n}.dcm", rng.integers(0, 4096, (40, 40), np.uint16), modality="CR",
                    patient_id=f"P{n}", study_uid="1.2", series_uid="1.2.3", instance_uid=f"1.2.3.{n}")
    write(folder / "colour", rng.integers(0, 256, (40, 40, 3), np.uint8), PatientID="C", SeriesInstanceUID="1.3",
          SamplesPerPixel=3, PlanarConfiguration=0, PhotometricInterpretation="RGB")
    write(folder / "clip", rng.integers(0, 256, (5, 40, 40), np.uint8), PatientID="U", SeriesInstanceUID="1.4",
          Modality="US", NumberOfFrames=5, FrameTime=40)
    write_image(folder / "ct", rng.integers(0, 100, (5, 9, 8)), positions(5, 2.0, tilt=0.7))
    shutil.copy(folder / "colour", folder / "colour again")
    (folder / "notes.txt").write_text("no scan")
    (folder / "report.txt").write_text("no scan either")
    return folder.parent


def test_every_file_is_in_a_case_or_in_the_list_of_what_was_left_out(medssl: Terminal, dump: Path):
    import polars as pl

    status, out, error = medssl("manifest", CARD, dump, "--out", "m.parquet", "--skipped", "skipped.csv")
    assert status == 0
    assert re.search(r"image +CR +7 cases of 7 patients\n +cine +US +1 cases of 1 patients\n +volume +CT +1 cases", out)
    assert "3 skipped, listed in skipped.csv:" in error
    assert "2 × Content of no format that medssl reads. Remedy: if it is a scan" in error
    table = medssl.folder / "skipped.csv"
    assert table.stat().st_mode & 0o777 == 0o600
    with table.open() as file:
        skipped = [row["what"] for row in csv.DictReader(file)]
    used = pl.read_parquet(medssl.folder / "m.files.parquet")["path"].to_list()
    assert sorted([*used, *skipped]) == sorted(str(path) for path in dump.rglob("*") if path.is_file())


def test_the_remedies_lead_from_a_mixed_dump_to_a_model(medssl: Terminal, dump: Path):
    _, out, _ = medssl("manifest", CARD, dump, "--out", "m.parquet", "split.shares={train: 1}")
    advised = shlex.split(out.split("e.g. ")[1])[0]
    error = medssl.refused("prepare", RECIPE, "data.manifest=m.parquet", *SMALL)
    assert "image in 7 case(s), " in error
    (choice,) = shlex.split(error.split("e.g. ")[1].rstrip(".\n"))
    assert medssl("prepare", RECIPE, "data.manifest=m.parquet", choice, *SMALL)[0] == 0
    for command in ("preview", "pretrain"):
        assert medssl(command, RECIPE, "data.manifest=m.parquet", advised, *SMALL)[0] == 0
    absent = medssl.refused("prepare", RECIPE, "data.manifest=m.parquet", "data.where={modality: [DX]}")
    assert "Expected one of CR, CT, US" in absent



def test_a_tilted_series_is_straightened_as_the_messages_say(medssl: Terminal, dump: Path):
    medssl("manifest", CARD, dump, "--out", "ct.parquet", "kind=volume", "split.shares={train: 1}")
    command = ("preview", RECIPE, "data.manifest=ct.parquet", *SMALL)
    _, out, _ = medssl("check", "ct.parquet", "--deep")
    for told in (out, medssl.refused(*command)):
        (advised,) = set(re.findall(r"data\.prepare\.straighten=true", told))
        assert medssl(*command, advised)[0] == 0
