"""Echo clips in the layout of EchoNet-Dynamic: `Videos/0X<hex>.avi`, `FileList.csv`, `VolumeTracings.csv`.

The ejection fraction is that of the ventricle that was drawn: both volumes come from its contours in the two traced
frames by the method of discs, systole first. FileList names a clip without `.avi`, VolumeTracings with it, as there.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from medssl.io.write import write_avi
from medssl.phantom.heart.sector import SIZE, Sector, film
from medssl.phantom.heart.ventricle import Ventricle, beat, disc_volume, draw_ventricle
from medssl.phantom.shapes import Array
from medssl.phantom.studio import Progress, draw_patients, signed
from medssl.rng import stream

FPS = 50
COLUMNS = ("FileName", "EF", "ESV", "EDV", "FrameHeight", "FrameWidth", "FPS", "NumberOfFrames", "Split")
TRACING_COLUMNS = ("FileName", "X1", "Y1", "X2", "Y2", "Frame")
SPLITS = {2: "TEST", 4: "VAL", 8: "TEST", 12: "VAL", 14: "TEST"}
"""By patient number modulo 17, the rest TRAIN: 70, 12 and 18 %."""

Row = tuple[str, ...]


@dataclass(frozen=True)
class Clip:
    """A filmed beat or more and its truth. Volumes in mL, fraction in percent, tracings (21, 4) in pixels."""

    name: str
    frames: Array
    heart: Ventricle
    squeeze: Array
    """(T,) contraction, 0 at end-diastole."""

    drift: Array
    """(T, 2) the heart's way from its place, pixels (x, y)."""

    systole: int
    diastole: int
    esv: float
    edv: float

    @property
    def fraction(self) -> float:
        return 100 * (self.edv - self.esv) / self.edv

    def tracing(self, frame: int) -> Array:
        return self.heart.tracing(float(self.squeeze[frame]), tuple(self.drift[frame]))


def write_echo(folder: str | Path, patients: int, seed: int = 0, progress: Progress | None = None) -> None:
    """Writes `patients` synthetic clips, one a patient, under `folder`: 112 x 112 pixels, 50 frames a second, MJPEG.

    Patient k is the same for a seed, however many patients there are. Returns at once where they are all there;
    RunError where the folder holds something else.
    """
    folder = Path(folder)
    with signed(folder, "echo", patients, seed, ("Videos", "FileList.csv", "VolumeTracings.csv")) as needed:
        if needed:
            written = draw_patients(_write_patient, folder, patients, seed, progress)
            _write_table(folder / "FileList.csv", COLUMNS, (row for row, _ in written))
            _write_table(folder / "VolumeTracings.csv", TRACING_COLUMNS, (row for _, rows in written for row in rows))


def draw_patient(seed: int, index: int) -> Clip:
    """Patient number `index` of a seed."""
    rng = stream(seed, "phantom", "echo", index)
    name = f"0X{int(rng.integers(2**60, 2**61)):X}"
    healthy = rng.random() < 0.78
    target = float(np.clip(rng.normal(60.5, 5.5) if healthy else rng.normal(39, 12), 11, 79)) / 100
    sector = Sector((55.5 + rng.normal(0, 2), rng.uniform(1, 5)), rng.uniform(100, 107), rng.uniform(0.60, 0.80))
    heart, mm = _place(rng, target, sector)
    squeeze, opening = _beats(rng)
    drift = _drift(rng, len(squeeze))
    systole = int(np.argmax(squeeze))
    diastole = systole + int(np.argmin(squeeze[systole:]))
    if squeeze[diastole] > 0.06:  # the film ends before the ventricle is full again: take the beginning of the beat
        diastole = int(np.argmin(squeeze))
    esv, edv = (disc_volume(heart.tracing(float(squeeze[at]), (0, 0)), mm) for at in (systole, diastole))
    frames = film(heart, sector, squeeze, opening, drift, rng)
    return Clip(name, frames, heart, squeeze, drift, systole, diastole, esv, edv)


def _place(rng: np.random.Generator, target: float, sector: Sector) -> tuple[Ventricle, float]:
    """The ventricle in the fan, and millimetres to a pixel. Weak ventricles are larger and rounder, on average."""
    weak = np.clip((0.55 - target) / 0.35, 0, 1.2)
    volume = float(np.clip(rng.lognormal(np.log(92), 0.26) * (1 + 0.55 * weak * rng.random()), 40, 300))
    ratio = float(np.clip(rng.normal(0.285 + 0.035 * weak, 0.022), 0.23, 0.37))
    length = (volume * 1000 / (np.pi * ratio**2 * 0.70)) ** (1 / 3)  # mm; 0.70: a bullet's share of its cylinder
    seen = length * (1 - abs(rng.normal(0, 0.06)))  # foreshortened
    mm = max(float(rng.normal(1.42, 0.14)), seen / 0.62 / sector.reach)
    angle = float(rng.normal(0.10, 0.13))
    start = rng.uniform(0.10, 0.17) * sector.reach
    bearing = float(np.clip(rng.normal(0.05, 0.12), -0.3, 0.3))
    apex = (sector.tip[0] + start * np.sin(bearing) + rng.normal(2, 3), sector.tip[1] + start * np.cos(bearing))
    return draw_ventricle(rng, target, apex, angle, seen / mm, ratio * length / seen), mm


def _beats(rng: np.random.Generator) -> tuple[Array, Array]:
    """Squeeze and opening of the mitral valve, (T,), of a beat at least, from any phase on."""
    period = 60 / float(np.clip(rng.normal(74, 14), 50, 110)) * FPS
    count = int(np.clip(1.08 * period + rng.integers(0, 13), 32, 68))
    phase = (np.arange(count) / period + rng.random()) % 1
    return beat(phase, float(np.clip(0.33 * np.sqrt(41 / period), 0.27, 0.42)))


def _drift(rng: np.random.Generator, count: int) -> Array:
    """Breathing and an unsteady hand move the heart by a pixel or two; (T, 2)."""
    time = np.arange(count)[:, None] / FPS
    way = rng.normal(0, 0.9, 2) * np.sin(2 * np.pi * (rng.uniform(0.2, 0.8, 2) * time + rng.random(2)))
    return way.astype(np.float32)


def _write_patient(folder: Path, seed: int, index: int) -> tuple[Row, list[Row]]:
    """Writes one clip; returns its row of the file list and its rows of the tracings."""
    clip = draw_patient(seed, index)
    write_avi(folder / "Videos" / f"{clip.name}.avi", clip.frames, FPS, codec="mjpeg")
    split = SPLITS.get(index % 17, "TRAIN")
    sizes = (SIZE, SIZE, FPS, len(clip.frames))
    row = (clip.name, f"{clip.fraction:.6f}", f"{clip.esv:.6f}", f"{clip.edv:.6f}", *map(str, sizes), split)
    traced = [(f"{clip.name}.avi", *(f"{value:.6f}" for value in line), str(frame))
              for frame in (clip.systole, clip.diastole) for line in clip.tracing(frame)]  # fmt: skip
    return row, traced


def _write_table(path: Path, columns: Row, rows: Iterable[Row]) -> None:
    with path.open("w", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(columns)
        table.writerows(rows)
