"""Rigid co-registration finds a motion that is known, the same one every time, and refuses what is none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from small_sets import make

from medssl.data.decode import PrepareConfig
from medssl.data.prepare import prepare
from medssl.data.registration import register
from medssl.errors import GeometryError
from medssl.io.geometry import corners_apart
from medssl.io.write import write_nifti
from medssl.rng import stream
from medssl.types import Scan

SHAPE = (24, 30, 28)
AFFINE = np.diag([2.5, 2.5, 3.0, 1.0])
CENTRE = AFFINE[:3, :3] @ (np.array(SHAPE[::-1]) - 1) / 2


def head(points: np.ndarray) -> np.ndarray:
    """A lopsided ellipsoid with a few soft spots in it, at points (..., 3) in mm; from 0 to about 1."""
    rng = stream("registration", "head")
    away = points - CENTRE
    inside = 1 / (1 + np.exp(8 * (np.linalg.norm(away / (24, 30, 27), axis=-1) - 1)))
    for _ in range(6):
        spot = rng.uniform(-14, 14, size=3)
        inside = inside - 0.6 * inside * np.exp(-np.sum((away - spot) ** 2, axis=-1) / (2 * rng.uniform(4, 8) ** 2))
    return inside


def motion(degrees: float, shift: tuple[float, float, float]) -> np.ndarray:
    """(4, 4): a turn about k through the centre, then a shift in mm."""
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    matrix = np.eye(4)
    matrix[:2, :2] = [[c, -s], [s, c]]
    matrix[:3, 3] = CENTRE - matrix[:3, :3] @ CENTRE + shift
    return matrix


def scan(affine: np.ndarray = AFFINE, moved: np.ndarray | None = None, shape: tuple[int, int, int] = SHAPE) -> Scan:
    """The head as it lies after a motion; `moved` ones come in the contrast of another sequence."""
    k, j, i = np.mgrid[tuple(slice(n) for n in shape)]
    places = np.stack([i, j, k, np.ones_like(i)], axis=-1) @ affine.T
    values = head((places @ np.linalg.inv(np.eye(4) if moved is None else moved).T)[..., :3])
    if moved is not None:
        values = np.sin(2.6 * values)
    spacing = tuple(float(s) for s in np.linalg.norm(affine[:3, :3], axis=0)[::-1])
    return Scan(values[None].astype(np.float32), "volume", "MR", affine=affine, spacing=spacing)


@pytest.mark.parametrize(("degrees", "shift"), [(7.0, (6.0, -4.0, 3.0)), (0.0, (0.0, 0.0, 0.0))])
def test_a_known_motion_between_two_contrasts_is_found_to_a_voxel(degrees: float, shift: tuple) -> None:
    true = motion(degrees, shift)
    other = np.diag([2.0, -3.0, 3.0, 1.0])
    other[:3, 3] = 3, 73, -2
    found = register(scan(), scan(other, true, (26, 26, 33)))
    assert corners_apart(found.matrix @ AFFINE, true @ AFFINE, SHAPE) < 2.5
    assert found.degrees == pytest.approx(degrees, abs=1.5)


def test_the_same_scans_give_the_same_motion() -> None:
    one, other = scan(), scan(moved=motion(4, (2, 1, 0)))
    np.testing.assert_array_equal(register(one, other).matrix, register(one, other).matrix)


def test_headers_that_put_the_scans_far_apart_do_not_matter() -> None:
    true = motion(3, (2, 0, 1))
    away = np.eye(4)
    away[:3, 3] = 300, -200, 100  # another session, whose coordinates began elsewhere
    moved = scan(moved=true)
    found = register(scan(), Scan(moved.array, "volume", "MR", affine=away @ AFFINE, spacing=moved.spacing))
    assert corners_apart(found.matrix @ AFFINE, away @ true @ AFFINE, SHAPE) < 2.5


def test_a_motion_that_nobody_makes_between_two_series_is_refused() -> None:
    with pytest.raises(GeometryError, match="moves one by .* degrees"):
        register(scan(), scan(moved=motion(35, (0, 0, 0))))


def test_scans_without_a_place_are_refused() -> None:
    nowhere = Scan(scan().array, "volume", "MR")
    with pytest.raises(GeometryError, match="does not say where it lies"):
        register(scan(), nowhere)


def test_a_recipe_asks_for_it(tmp_path: Path) -> None:
    true = motion(7, (6, -4, 3))
    wider = np.diag([2.5, 2.5, 3.5, 1.0])
    write_nifti(tmp_path / "in/a/t1.nii.gz", scan().array[0], AFFINE)
    write_nifti(tmp_path / "in/a/t2.nii.gz", scan(wider, true, (22, 32, 30)).array[0], wider)
    manifest = make(tmp_path / "in", kind="volume", files={"t1": "{case}/t1.nii.gz", "t2": "{case}/t2.nii.gz"})
    away = {}
    for align in ("resample", "register"):
        config = PrepareConfig(intensity="window", window=(0.0, 1.0), align=align)
        cache, _ = prepare(manifest, tmp_path / "cache", config, workers=0)
        first, second = cache.array(manifest.cases["case_id"][0]).astype(np.float64)
        core = (slice(4, -4),) * 3
        away[align] = np.abs(second - np.sin(2.6 * first))[core].mean()
    assert away["register"] < 0.02
    assert away["resample"] > 5 * away["register"]
