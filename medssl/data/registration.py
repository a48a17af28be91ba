"""Rigid co-registration of two channels of one patient, by what they show and not by where their headers put them.

Mattes' mutual information (IEEE TMI 22, 2003), maximised from coarse to fine by SimpleITK. One thread and a fixed seed:
the same two scans give the same motion every time.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from medssl.data.grid import COVERED, coverage, require_placed
from medssl.errors import GeometryError
from medssl.types import Scan

if TYPE_CHECKING:
    from SimpleITK import Euler3DTransform, Image, ImageRegistrationMethod

MOST_MM = 40.0
MOST_DEGREES = 25.0
"""Heads and organs move less between two series of a study: more, and the registration went astray."""

_SHRINK, _SHARE = (4, 2, 1), {4: 1.0, 2: 0.5, 1: 0.2}
"""From coarse to fine, and the share of the voxels that is looked at."""
_STEPS = 200
_SEED = 1
_REMEDY = "leave the case out, or register it by hand"


@dataclass(frozen=True)
class Motion:
    """How the patient moved between two scans.

    matrix: (4, 4), takes a point of the fixed scan to the same point of the patient in the moving one, RAS+ mm.
    mm: the way of the fixed scan's centre. degrees: the angle of the turn.
    """

    matrix: np.ndarray
    mm: float
    degrees: float


def register(fixed: Scan, moving: Scan) -> Motion:
    """The rigid motion under which the first channels of two volumes share most information.

    The search begins where the headers put them or, where that shows hardly anything in common, centre on centre.
    GeometryError where a scan does not say where it lies, where the search does not settle, or where it ends further
    away than MOST_MM or MOST_DEGREES.
    """
    import SimpleITK

    require_placed(fixed, moving)
    start = _start(fixed, moving)
    found = SimpleITK.Euler3DTransform(start)
    try:
        with _one_thread():
            method = _method(min(fixed.array.shape[1:]))
            method.SetInitialTransform(found, inPlace=True)
            method.Execute(_image(fixed), _image(moving))
    except RuntimeError:
        raise GeometryError("The co-registration of two channels failed", expected="scans of the same part of the body",
                            remedy=_REMEDY) from None
    turn = np.reshape(found.GetMatrix(), (3, 3))
    centre = np.array(found.GetCenter())
    mm = float(np.linalg.norm(np.subtract(found.GetTranslation(), start.GetTranslation())))
    degrees = float(np.degrees(np.arccos(np.clip((np.trace(turn) - 1) / 2, -1, 1))))
    if method.GetOptimizerIteration() >= _STEPS:
        raise GeometryError(f"The co-registration of two channels did not settle within {_STEPS} steps",
                            expected="scans of the same part of the body", remedy=_REMEDY)
    if not (mm <= MOST_MM and degrees <= MOST_DEGREES):  # NaN neither
        raise GeometryError(f"The co-registration of two channels moves one by {mm:.0f} mm and {degrees:.0f} degrees",
                            expected=f"at most {MOST_MM:.0f} mm and {MOST_DEGREES:.0f} degrees", remedy=_REMEDY)
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = turn, centre + found.GetTranslation() - turn @ centre
    return Motion(matrix, mm, degrees)


def _start(fixed: Scan, moving: Scan) -> Euler3DTransform:
    import SimpleITK

    start = SimpleITK.Euler3DTransform()
    start.SetCenter(_centre(fixed).tolist())
    between = np.linalg.inv(moving.affine) @ fixed.affine
    if coverage(between, fixed.array.shape[1:], moving.array.shape[1:]) < COVERED:
        start.SetTranslation((_centre(moving) - _centre(fixed)).tolist())
    return start


def _centre(scan: Scan) -> np.ndarray:
    return (scan.affine @ [*(np.array(scan.array.shape[:0:-1]) - 1) / 2, 1.0])[:3]


def _method(least: int) -> ImageRegistrationMethod:
    """Coarse to fine, as far as an axis of `least` voxels allows."""
    import SimpleITK

    method = SimpleITK.ImageRegistrationMethod()
    method.SetMetricAsMattesMutualInformation(32)
    method.SetMetricSamplingStrategy(method.RANDOM)
    levels = [shrink for shrink in _SHRINK if least >= 8 * shrink] or [1]
    method.SetMetricSamplingPercentagePerLevel([_SHARE[shrink] for shrink in levels], _SEED)
    method.SetShrinkFactorsPerLevel(levels)
    method.SetSmoothingSigmasPerLevel([shrink / 2 for shrink in levels])
    method.SmoothingSigmasAreSpecifiedInPhysicalUnitsOff()
    method.SetInterpolator(SimpleITK.sitkLinear)
    method.SetOptimizerAsRegularStepGradientDescent(learningRate=2.0, minStep=1e-3, numberOfIterations=_STEPS,
                                                    gradientMagnitudeTolerance=1e-8)
    method.SetOptimizerScalesFromPhysicalShift()
    return method


@contextmanager
def _one_thread() -> Iterator[None]:
    """Sums of several threads round otherwise each time; the metric asks only for the number of the whole process."""
    from SimpleITK import ProcessObject

    before = ProcessObject.GetGlobalDefaultNumberOfThreads()
    ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    try:
        yield
    finally:
        ProcessObject.SetGlobalDefaultNumberOfThreads(before)


def _image(scan: Scan) -> Image:
    """SimpleITK's image of the first channel, in RAS+ mm, which is as good a frame as its own LPS+."""
    import SimpleITK

    image = SimpleITK.GetImageFromArray(np.asarray(scan.array[0], dtype=np.float32))
    edges = np.linalg.norm(scan.affine[:3, :3], axis=0)
    image.SetSpacing(edges.tolist())
    image.SetDirection((scan.affine[:3, :3] / edges).ravel().tolist())
    image.SetOrigin(scan.affine[:3, 3].tolist())
    return image
