"""Cold .nii.gz to tensor: medssl against MONAI, nibabel and SimpleITK, and against inflating the bytes and no more."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import torch
from harness import Peer, Row, Settings, compare, evict, main, temperature
from volumes import HEAD, TINY, head

from medssl import open_scan
from medssl.io.write import write_nifti

AFFINE = np.diag([-1.0, -1.0, 1.0, 1.0])


def measure(settings: Settings) -> list[Row]:
    shape = TINY if settings.tiny else HEAD
    rows = []
    for dtype in (np.int16, np.float32):
        path = settings.scratch / f"{np.dtype(dtype).name}.nii.gz"
        write_nifti(path, head(shape).astype(dtype), AFFINE)
        name = (f"{temperature([path])} .nii.gz, {' × '.join(map(str, reversed(shape)))} {np.dtype(dtype).name},"
                f" {path.stat().st_size / 2**20:.1f} MiB, to a float32 tensor")
        rows += compare(name, partial(ours, path), peers(path), settings.repeats, partial(evict, [path]))
    return rows


def ours(path: Path) -> torch.Tensor:
    return torch.from_numpy(open_scan(path).array.astype(np.float32, copy=False))


def peers(path: Path) -> list[Peer]:
    import nibabel
    import SimpleITK
    from isal import igzip
    from monai.transforms import LoadImage

    load = LoadImage(image_only=True)
    return [
        Peer("MONAI LoadImage", lambda: load(path), "monai", 3.0, _transposed),
        Peer("nibabel", lambda: torch.from_numpy(nibabel.load(path).get_fdata(dtype=np.float32)), "nibabel",
             same=_transposed),
        Peer("SimpleITK", lambda: torch.from_numpy(
            SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(path, SimpleITK.sitkFloat32))), "SimpleITK",
            same=lambda a, b: torch.equal(a[0], b)),
        Peer("inflating alone (isal)", lambda: igzip.decompress(path.read_bytes()), "isal", 1 / 1.3),
    ]


def _transposed(ours: torch.Tensor, theirs: torch.Tensor) -> bool:
    """Theirs is (I, J, K)."""
    return torch.equal(ours[0], torch.as_tensor(theirs).permute(2, 1, 0))


if __name__ == "__main__":
    main("loading", __doc__, measure)
