"""Uncompressed CT slices to a volume: medssl against SimpleITK's series reader and MONAI's PydicomReader."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from harness import Peer, Row, Settings, compare, evict, main, temperature
from volumes import CHEST, TINY, head

from medssl import open_scan
from medssl.io.write import write_dicom

INTERCEPT = -1024
ROOT = "1.2.826.0.1.3680043.8.498.1"
"""The UIDs begin with it."""


def measure(settings: Settings) -> list[Row]:
    volume = head(TINY if settings.tiny else CHEST)
    paths = write_series(settings.scratch / "series", volume)
    folder, rows = paths[0].parent, []
    name = f"series of {len(volume)} slices, {volume.shape[2]} × {volume.shape[1]} int16, to a float32 tensor in HU"
    for state, before in (("warm", None), (temperature(paths), lambda: evict(paths))):
        rows += compare(f"{state} {name}", lambda: torch.from_numpy(open_scan(folder).array), peers(folder),
                        settings.repeats, before)
    return rows


def write_series(folder: Path, volume: np.ndarray) -> list[Path]:
    """One explicit little-endian file a slice, with the attributes of a CT scanner's that readers look at."""
    header = {"RescaleIntercept": INTERCEPT, "SliceThickness": "1.5", "KVP": "120", "BodyPartExamined": "CHEST",
              "WindowCenter": "40", "WindowWidth": "400", "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"],
              "FrameOfReferenceUID": f"{ROOT}.2"}
    paths = [folder / f"{number:04d}.dcm" for number in range(len(volume))]
    for k, (path, plane) in enumerate(zip(paths, volume, strict=True)):
        write_dicom(path, plane, patient_id="1", study_uid=ROOT, series_uid=f"{ROOT}.1", header=header,
                    instance_uid=f"{ROOT}.1.{k + 1}", instance_number=k + 1, modality="CT", bits_stored=16,
                    spacing=(0.75, 0.75), position=(-190.0, -190.0, 1.5 * k), orientation=(1, 0, 0, 0, 1, 0))
    return paths


def peers(folder: Path) -> list[Peer]:
    import SimpleITK
    from monai.data import PydicomReader
    from monai.transforms import LoadImage

    def simpleitk() -> torch.Tensor:
        reader = SimpleITK.ImageSeriesReader()
        reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
        return torch.from_numpy(SimpleITK.GetArrayFromImage(reader.Execute()).astype(np.float32))

    load = LoadImage(reader=PydicomReader, image_only=True)
    return [
        Peer("SimpleITK ImageSeriesReader", simpleitk, "SimpleITK", 3.0, lambda a, b: torch.equal(a[0], b)),
        Peer("MONAI PydicomReader", lambda: load(folder), "monai", 3.0,
             lambda a, b: torch.equal(a[0], torch.as_tensor(b).permute(2, 1, 0))),
    ]


if __name__ == "__main__":
    main("series", __doc__, measure)
