"""What all phantoms promise: patients that do not depend on each other, and folders that are safe to write again."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from medssl.errors import RunError
from medssl.phantom import GENERATOR_VERSION, PHANTOMS, brain, echo, xray


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", sorted(PHANTOMS))
def test_same_seed_same_bytes_and_patients_do_not_depend_on_their_number(name: str, tmp_path: Path) -> None:
    """Eight patients are drawn by a pool, two without."""
    for folder, patients in (("a", 8), ("b", 2), ("c", 2)):
        PHANTOMS[name](tmp_path / folder, patients, 5)
    many, few, again = (contents(tmp_path / folder) for folder in "abc")
    assert few == again
    pictures = [path for path in few if not path.endswith((".csv", ".json"))]
    assert len(pictures) >= 2
    assert all(few[path] == many[path] for path in pictures)


@pytest.mark.parametrize("name", sorted(PHANTOMS))
def test_another_seed_gives_other_patients(name: str, tmp_path: Path) -> None:
    for seed in (0, 1):
        PHANTOMS[name](tmp_path / str(seed), 1, seed)
    assert contents(tmp_path / "0") != contents(tmp_path / "1")


def test_a_finished_folder_is_left_alone(tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    PHANTOMS["brain"](tmp_path, 2, 0, lambda done, total: calls.append((done, total)))
    assert calls == [(1, 2), (2, 2)]
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    PHANTOMS["brain"](tmp_path, 2, 0, lambda done, total: calls.append((done, total)))
    assert len(calls) == 2
    assert before == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}


def test_the_signature_says_what_the_folder_holds(tmp_path: Path) -> None:
    PHANTOMS["brain"](tmp_path, 1, 4)
    assert json.loads((tmp_path / "phantom.json").read_text()) == {
        "phantom": "brain", "patients": 1, "seed": 4, "generator": GENERATOR_VERSION, "finished": True}  # fmt: skip


def test_fewer_patients_leave_none_of_the_old_ones_and_nothing_else_is_touched(tmp_path: Path) -> None:
    PHANTOMS["brain"](tmp_path, 3)
    (tmp_path / "my_notes.txt").write_text("keep me")
    PHANTOMS["brain"](tmp_path, 1)
    assert [path.name for path in tmp_path.glob("BraTS2021_*")] == ["BraTS2021_00000"]
    assert (tmp_path / "my_notes.txt").exists()


def test_an_interrupted_folder_is_drawn_again(tmp_path: Path) -> None:
    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        PHANTOMS["echo"](tmp_path, 2, 0, interrupt)
    assert not (tmp_path / "FileList.csv").exists()
    PHANTOMS["echo"](tmp_path, 2)
    assert len((tmp_path / "FileList.csv").read_text().splitlines()) == 3


def test_a_folder_of_somebodys_data_is_refused(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("precious")
    with pytest.raises(RunError, match="something else"):
        PHANTOMS["xray"](tmp_path, 1)
    assert (tmp_path / "train.csv").read_text() == "precious"


def test_no_patients_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="at least 1"):
        PHANTOMS["xray"](tmp_path / "new", 0)


def test_a_changed_drawing_has_a_new_version() -> None:
    """Mean and spread of patient 0. Whoever changes a drawing raises GENERATOR_VERSION, then these numbers."""
    pictures = {
        "xray": 255 * xray.draw_patient(0, 0)[1][0].views[0].picture,
        "brain": brain.draw_patient(0, 0)[0]["t1ce"],
        "echo": echo.draw_patient(0, 0).frames,
    }
    found = {name: (float(np.mean(array)), float(np.std(array))) for name, array in pictures.items()}
    expected = {"xray": (149.703, 60.259), "brain": (39.541, 60.215), "echo": (31.338, 44.749)}
    assert GENERATOR_VERSION == 1
    assert found == {name: pytest.approx(pair, abs=0.02) for name, pair in expected.items()}
