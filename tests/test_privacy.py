"""Nothing that names a person is written, whatever the files hold: canaries are planted, and every byte is searched."""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image, PngImagePlugin
from privacy_canaries import FAMILY, PROFILE, UNTRACEABLE, Canaries, contents
from privacy_hospital import ALLOWED, MESSAGES_ONLY, PLANTED, Hospital
from privacy_journey import travel
from pydicom.datadict import dictionary_VR

pytestmark = pytest.mark.filterwarnings("ignore")  # on writing files as bad as those of archives


@pytest.fixture(scope="module")
def hospital(tmp_path_factory: pytest.TempPathFactory) -> Hospital:
    return Hospital(tmp_path_factory.mktemp("hospital")).open()


@pytest.fixture(scope="module")
def journey(hospital: Hospital, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder in which every command was run, and what they said."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("desk")
        patch.setattr(os, "cpu_count", lambda: 1)
        patch.setenv("MEDSSL_KEY_FILE", str(folder / "pseudonym.key"))
        return folder, travel(hospital.folder, folder)


def leaks(folder: Path, canaries: Canaries) -> list[str]:
    """What is found in the files below, and in their names, but for the tables that are private."""
    found = []
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        name = path.relative_to(folder).as_posix()
        parts = [name.encode(), *(contents(path) if not name.endswith(".files.parquet") else ())]
        found += [f"{name}: {hit}" for part in parts for hit in canaries.found(part)]
    return sorted(set(found))


def test_no_written_byte_names_a_person(hospital: Hospital, journey: tuple[Path, str]):
    assert leaks(journey[0], hospital.canaries) == []


def test_the_terminal_names_files_and_nothing_else(hospital: Hospital, journey: tuple[Path, str]):
    said = [hit for line in journey[1].splitlines() for hit in hospital.canaries.found(line.encode())
            if not hit.startswith("the name of ")]
    assert said == []


def test_nobody_outside_of_the_group_may_read_what_is_written(journey: tuple[Path, str]):
    ours = [path for path in journey[0].rglob("*") if not (path.parent == journey[0] and path.suffix == ".yaml")]
    assert len(ours) > 100
    assert [path.name for path in ours if path.stat().st_mode & 0o007] == []
    private = [path for path in ours if path.name.endswith((".files.parquet", ".key")) or path.suffix == ".dcm"
               or path.name.startswith("archive.html")]
    assert len(private) > 4
    assert [path.name for path in private if path.stat().st_mode & 0o777 != 0o600] == []


def test_the_key_never_leaves_its_file(journey: tuple[Path, str]):
    folder, said = journey
    key = (folder / "pseudonym.key").read_bytes()
    forms = (key, key.hex().encode(), key.hex().upper().encode(), base64.b64encode(key).rstrip(b"="))
    others = [path for path in folder.rglob("*") if path.is_file() and path.name != "pseudonym.key"]
    assert [path.name for path in others for part in contents(path) if any(form in part for form in forms)] == []
    assert not any(form in said.encode() for form in forms)
    assert "pseudonym.key" not in (folder / "run/provenance.json").read_text()


def test_what_the_basic_profile_acts_on_is_planted(hospital: Hospital):
    """Whole values of the attributes stand in the files, so that silence later on means something."""
    assert len(PROFILE) == len(set(PROFILE)) > 400
    assert set(PROFILE) - set(PLANTED) <= {*ALLOWED, *MESSAGES_ONLY}
    film = next((hospital.folder / "dicom").rglob(f"{FAMILY}*.dcm"))
    found = {hit.split(" as ")[0] for hit in hospital.canaries.found(film.read_bytes())}
    told = [word for word in PLANTED if dictionary_VR(word) not in (*UNTRACEABLE, "DA", "DT", "TM", "IS")]
    assert {word for word in told if word not in found and f"an item of {word}" not in found} <= {
        "PatientID", "PatientName", "AccessionNumber", "StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID",
        "MediaStorageSOPInstanceUID"}  # these hold their patient's own
    assert any(hit.startswith("a date") for hit in hospital.canaries.found(film.read_bytes()))


@pytest.mark.parametrize("hide", [
    str.encode, lambda text: text.lower().encode(), lambda text: text.title().encode(),
    lambda text: text[::-1].encode(), lambda text: text.encode("utf-16-le"), lambda text: text.encode().hex().encode(),
    lambda text: base64.b64encode(f"ab{text}".encode()),
    lambda text: hashlib.sha256(text.encode()).hexdigest().encode(),
    lambda text: hashlib.md5(text.encode()).hexdigest()[:12].encode(),
])  # fmt: skip
def test_a_hidden_canary_is_found(hide: Callable[[str], bytes]):
    canaries = Canaries()
    for known in (canaries.text("a place"), canaries.uid("a place"), canaries.person("a place")):
        assert canaries.found(b"before " + hide(known) + b" after")
    assert not canaries.found(b"before " + hide("of nobody") + b" after")


@pytest.mark.parametrize("suffix", [".parquet", ".npz", ".gz", ".png", ".html"])
def test_a_canary_within_a_container_is_found(tmp_path: Path, suffix: str):
    canaries, path = Canaries(), tmp_path / f"file{suffix}"
    known = canaries.text("a place")
    info = PngImagePlugin.PngInfo()
    info.add_text("Title", known, zip=True)
    picture = io.BytesIO()
    Image.new("L", (4, 4)).save(picture, "PNG", pnginfo=info)
    if suffix == ".parquet":
        pl.DataFrame({"a": [known] * 9}).write_parquet(path, compression="zstd")
    elif suffix == ".npz":
        np.savez_compressed(path, a=np.array([known] * 9))
    else:
        page = b"<img src='data:image/png;base64," + base64.b64encode(picture.getvalue()) + b"'>"
        path.write_bytes({".gz": gzip.compress(known.encode()), ".png": picture.getvalue(), ".html": page}[suffix])
    assert leaks(tmp_path, canaries) == [f"{path.name}: a place as text"]
    assert leaks(tmp_path, Canaries()) == [f"{path.name}: a canary as text"]
    path.rename(tmp_path / "m.files.parquet")
    assert leaks(tmp_path, canaries) == []
