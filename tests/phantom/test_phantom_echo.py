"""The echo phantom: EchoNet-Dynamic's layout, and an ejection fraction that follows from what was drawn."""

from __future__ import annotations

import csv
from collections import defaultdict
from pathlib import Path

import av
import numpy as np
import pytest

from medssl.phantom import write_echo
from medssl.phantom.echo import draw_patient
from medssl.phantom.heart.ventricle import beat, draw_ventricle
from medssl.rng import stream

PATIENTS = 6


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("echo")
    write_echo(folder, PATIENTS, seed=2)
    return folder


def rows(folder: Path, name: str) -> list[dict[str, str]]:
    with (folder / name).open() as file:
        return list(csv.DictReader(file))


def tracings(folder: Path) -> dict[str, dict[int, np.ndarray]]:
    """Clip -> frame -> (21, 4), frames in the order of the file."""
    lines: dict[str, dict[int, list]] = defaultdict(lambda: defaultdict(list))
    for row in rows(folder, "VolumeTracings.csv"):
        lines[row["FileName"]][int(row["Frame"])].append([float(row[key]) for key in ("X1", "Y1", "X2", "Y2")])
    return {name: {frame: np.array(found) for frame, found in frames.items()} for name, frames in lines.items()}


def discs(lines: np.ndarray) -> float:
    lengths = np.hypot(lines[:, 0] - lines[:, 2], lines[:, 1] - lines[:, 3])
    return float(np.sum(lengths[1:] ** 2) * lengths[0])


def test_tables_have_echonets_columns(folder: Path) -> None:
    first = (folder / "FileList.csv").read_text().splitlines()[0]
    assert first == "FileName,EF,ESV,EDV,FrameHeight,FrameWidth,FPS,NumberOfFrames,Split"
    assert (folder / "VolumeTracings.csv").read_text().splitlines()[0] == "FileName,X1,Y1,X2,Y2,Frame"
    assert {row["Split"] for row in rows(folder, "FileList.csv")} == {"TRAIN", "VAL", "TEST"}


def test_clips_are_as_the_list_says(folder: Path) -> None:
    listed = rows(folder, "FileList.csv")
    assert {path.stem for path in (folder / "Videos").iterdir()} == {row["FileName"] for row in listed}
    for row in listed:
        with av.open(str(folder / "Videos" / f"{row['FileName']}.avi")) as container:
            stream = container.streams.video[0]
            frames = [frame.to_ndarray(format="gray") for frame in container.decode(stream)]
            assert stream.codec_context.name == "mjpeg"
            assert float(stream.average_rate) == float(row["FPS"]) == 50
        assert len(frames) == int(row["NumberOfFrames"])
        assert 32 <= len(frames) <= 68
        assert frames[0].shape == (int(row["FrameHeight"]), int(row["FrameWidth"])) == (112, 112)
        assert frames[0][-8:, :8].max() < 20  # outside the fan


def test_two_traced_frames_systole_first(folder: Path) -> None:
    listed = {f"{row['FileName']}.avi": row for row in rows(folder, "FileList.csv")}
    traced = tracings(folder)
    assert list(traced) == list(listed)
    for name, frames in traced.items():
        assert len(frames) == 2
        assert all(0 <= frame < int(listed[name]["NumberOfFrames"]) for frame in frames)
        systole, diastole = frames.values()
        assert systole.shape == diastole.shape == (21, 4)
        assert discs(systole) < discs(diastole)
        axis = systole[0, 2:] - systole[0, :2]
        chords = systole[1:, 2:] - systole[1:, :2]
        assert np.abs(chords @ axis).max() < 1e-2  # perpendicular to the long axis


def test_fraction_from_the_tracings_is_that_of_the_list(folder: Path) -> None:
    traced = tracings(folder)
    for row in rows(folder, "FileList.csv"):
        systole, diastole = (discs(lines) for lines in traced[f"{row['FileName']}.avi"].values())
        assert 100 * (1 - systole / diastole) == pytest.approx(float(row["EF"]), abs=0.05)
        assert 100 * (1 - float(row["ESV"]) / float(row["EDV"])) == pytest.approx(float(row["EF"]), abs=0.001)


@pytest.mark.parametrize("index", range(4))
def test_fraction_is_that_of_the_drawn_cavity(index: int) -> None:
    """Discs of the rasterised cavity: widths counted in half pixels, so a tolerance of 2 points."""
    clip = draw_patient(2, index)
    volumes = []
    for frame in (clip.systole, clip.diastole):
        squeeze = float(clip.squeeze[frame])
        u, v = np.meshgrid(np.arange(0.25, 110, 0.5), np.arange(-50, 50, 0.5), indexing="ij")
        widths = clip.heart.cavity(u, v, squeeze).sum(1) * 0.5
        volumes.append(float(np.sum(widths**2)))
    assert 100 * (1 - volumes[0] / volumes[1]) == pytest.approx(clip.fraction, abs=2)


@pytest.mark.parametrize("index", range(4))
def test_the_cavity_is_dark_where_it_was_traced(index: int) -> None:
    """The picture agrees with the tracing: blood is darker than the muscle around it, at both frames."""
    clip = draw_patient(2, index)
    j, i = np.mgrid[:112, :112]
    contrast = []
    for frame in (clip.systole, clip.diastole):
        u, v = clip.heart.to_heart(i - clip.drift[frame, 0], j - clip.drift[frame, 1])
        blood = clip.heart.cavity(u, v, float(clip.squeeze[frame]))
        muscle = clip.heart.cavity(u * 0.92 + 1, v / 1.35, float(clip.squeeze[frame])) & ~blood
        contrast.append(clip.frames[frame][muscle].mean() - clip.frames[frame][blood].mean())
    assert min(contrast) > 8


@pytest.mark.parametrize("fraction", [0.12, 0.35, 0.6, 0.78])
def test_a_drawn_ventricle_ejects_what_was_asked(fraction: float) -> None:
    for seed in range(5):
        heart = draw_ventricle(stream(seed), fraction, (50, 15), 0.1, 55.0, 0.29)
        full, empty = (discs(heart.tracing(squeeze, (0, 0))) for squeeze in (0.0, 1.0))
        assert 1 - empty / full == pytest.approx(fraction, abs=0.005)


def test_tissue_at_end_diastole_is_where_it_is() -> None:
    heart = draw_ventricle(stream(0), 0.6, (50, 15), 0.1, 55.0, 0.29)
    u, v = np.meshgrid(np.linspace(-10, 90, 41), np.linspace(-50, 50, 41))
    assert np.allclose(heart.at_rest(u, v, np.zeros(1)), (u, v), atol=1e-3)


def test_valve_opens_only_while_the_ventricle_fills() -> None:
    phase = np.linspace(0, 1, 200)
    squeeze, opening = beat(phase, 0.35)
    ejecting = np.gradient(squeeze) > 0.005
    assert opening[ejecting].max() < 0.15
    assert opening.max() == pytest.approx(1, abs=0.02)


def test_fractions_are_distributed_as_in_echonet(monkeypatch: pytest.MonkeyPatch) -> None:
    """EchoNet-Dynamic: mean 55.7, sd 12.4, a tail of weak hearts."""
    monkeypatch.setattr("medssl.phantom.echo.film", lambda *_: np.zeros((1, 112, 112), np.uint8))
    found = np.array([draw_patient(0, index).fraction for index in range(250)])
    assert found.mean() == pytest.approx(55.7, abs=2.5)
    assert found.std() == pytest.approx(12, abs=2)
    assert (found < 40).mean() > 0.06
    assert found.min() > 9
    assert found.max() < 81
