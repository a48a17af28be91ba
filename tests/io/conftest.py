from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from medssl.io.write import write_dicom
from medssl.rng import stream

AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)


@pytest.fixture
def noise() -> Callable[..., np.ndarray]:
    """Integers of a shape over the whole range of `bits`, the same on every run."""

    def make(*shape: int, bits: int = 12, dtype: type = np.uint16, name: str = "noise") -> np.ndarray:
        low = -(1 << bits - 1) if np.dtype(dtype).kind == "i" else 0
        return stream("test", "io", name).integers(low, low + (1 << bits), shape).astype(dtype)

    return make


@pytest.fixture
def write_slices() -> Callable[..., None]:
    """Write a CT series: slice k of the volume (K, J, I) goes to positions[k], in files named in `order`.

    header: for all slices, or a list with one for each.
    """

    def write(
        folder: Path,
        volume: np.ndarray,
        positions: np.ndarray,
        order: list[int] | None = None,
        series: str = "1.2.3",
        orientation: tuple[float, ...] = AXIAL,
        header: dict | list[dict] | None = None,
        modality: str = "CT",
    ) -> None:
        order = list(range(len(volume))) if order is None else order
        for name, k in enumerate(order):
            write_dicom(
                folder / f"{name:03d}.dcm",
                volume[k],
                patient_id="P1",
                study_uid="1.2",
                series_uid=series,
                instance_uid=f"{series}.{k + 1}",
                instance_number=name + 1,
                modality=modality,
                spacing=(0.7, 0.5),
                position=positions[k],
                orientation=orientation,
                header=header[k] if isinstance(header, list) else header,
            )

    return write
