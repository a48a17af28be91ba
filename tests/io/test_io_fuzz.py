"""Changed bytes never end the program, hang it or fill memory."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest
import SimpleITK as sitk
from PIL import Image
from test_io_bombs import IDS, write_deflated

from medssl.io.write import write_avi, write_dicom, write_jpeg, write_nifti, write_png

SECONDS = float(os.environ.get("MEDSSL_FUZZ_SECONDS", 2))
"""Of computing; MEDSSL_FUZZ_SECONDS=3600 fuzzes for an hour, with other bytes each time."""


def write_mp4(path: Path, clip: np.ndarray) -> None:
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("mpeg4", rate=30)
        stream.height, stream.width, stream.pix_fmt = *clip.shape[1:], "yuv420p"
        for frame in clip:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="gray")))
        container.mux(stream.encode())


@pytest.fixture
def seeds(tmp_path, noise) -> Path:
    """A folder with one small whole file of each format."""
    folder = tmp_path / "seeds"
    image = noise(32, 32, bits=8, dtype=np.uint8)
    for syntax in ("explicit", "rle", "jpeg2000", "jpegls"):
        write_dicom(folder / syntax, image, **IDS, transfer_syntax=syntax)
    write_deflated(folder / "deflated", image)
    write_nifti(folder / "a.nii", image[None], np.eye(4))
    write_nifti(folder / "a.nii.gz", image[None], np.eye(4))
    write_png(folder / "a.png", image)
    write_jpeg(folder / "a.jpg", image)
    Image.fromarray(image).save(folder / "a.tif", compression="tiff_lzw")
    write_avi(folder / "a.avi", np.stack([image] * 3), 30)
    write_mp4(folder / "a.mp4", np.stack([image] * 3))
    for name in ("a.mha", "a.nrrd"):
        sitk.WriteImage(sitk.GetImageFromArray(image[None]), str(folder / name), useCompression=True)
    return folder


def test_changed_bytes_end_in_a_scan_or_an_error_of_ours(seeds):
    command = [sys.executable, Path(__file__).with_name("fuzz.py"), seeds, str(SECONDS)]
    limited = os.environ | {"MEDSSL_MAX_SCAN_GIB": "0.1"}
    ended = subprocess.run(command, env=limited, capture_output=True, text=True, timeout=300 + 2 * SECONDS, check=False)
    assert ended.returncode == 0, f"{ended.stdout[-500:]}\n{ended.stderr[-3000:]}"
    assert {"read", "refused"} <= set(ended.stdout.split("\n")[-2].split())
