"""What goes wrong in k-space, where magnetic resonance is measured line by line: ghosts, ringing, motion.

An image x, counted from air, has the spectrum X(k) = sum over y of x(y) exp(-2 pi i k y / N), k = -N/2 .. N/2 - 1,
along each axis of N voxels. Each transform here changes lines of X and leaves X(0), so the mean; the result is the
magnitude, as on a scanner, which folds what fell below air and so lifts the mean a little. Air is each channel's least
value (mri.py says where that is not so): a constant lives in X(0) alone, so that choice decides only where the
magnitude folds. Spectra are computed in float32 whatever the images' type. Z-scored images, or any range of values;
slices are measured one by one, and all channels alike.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import Annotated, Literal

import numpy as np
import torch
from pydantic import Field, PositiveInt, field_validator
from torch import Tensor

from medssl.augment.mri import least
from medssl.augment.spatial import Spatial, SpatialConfig
from medssl.augment.transform import (
    NOT_EMPTY,
    Axes,
    Params,
    Stacked,
    Strength,
    Transform,
    TransformConfig,
    acting_axes,
)

PhaseEncode = Annotated[tuple[Literal["j", "i"], ...], NOT_EMPTY]
"""The axes along which lines may follow one another in time; each sample draws one of them."""

POSITION = {"j": -2, "i": -1}


class InKSpace(Transform):
    """What all here have in common: the signal is counted from air, and of the result the magnitude is seen."""

    modality = "MR"

    @abstractmethod
    def measured(self, signal: Tensor, params: Stacked) -> Tensor:
        """(B, C, *S) float32, 0 in air -> the image, real or complex, of the changed lines."""

    def apply(self, batch: Tensor, params: Stacked) -> Tensor:
        air = least(batch)
        return self.measured((batch - air).float(), params).abs().to(batch.dtype).add_(air)


class Ghosting(InKSpace):
    """Every n-th line is weaker: X(k) -> (1 - s) X(k) where n divides k, save for k = 0.

    Pulsation and breathing, periodic in time and so in k, leave n copies of the object, N / n voxels apart along the
    phase-encoding axis, each s / n as strong. TorchIO's RandomGhosting has the same comb.
    """

    class Config(TransformConfig):
        name: Literal["ghosting"] = "ghosting"
        intensity: Annotated[float, Field(ge=0, le=1)]
        """Largest share s that the weaker lines lose."""
        ghosts: tuple[Annotated[int, Field(ge=2)], Annotated[int, Field(ge=2)]] = (4, 10)
        """n is drawn from the first to the second of these."""
        phase_encode: PhaseEncode = ("j", "i")

        @field_validator("ghosts")
        @classmethod
        def _ordered(cls, ghosts: tuple[int, int]) -> tuple[int, int]:
            if ghosts[0] > ghosts[1]:
                raise ValueError(f"ghosts {list(ghosts)} must be [fewest, most]")
            return ghosts

    config: Config

    def draw(self, rng: np.random.Generator, shape: tuple[int, ...]) -> Params:
        return {"intensity": rng.uniform(0, self.config.intensity),
                "ghosts": rng.integers(*self.config.ghosts, endpoint=True),
                "axis": _draw_axis(rng, self.config.phase_encode)}

    def measured(self, signal: Tensor, params: Stacked) -> Tensor:
        for axis in params["axis"].unique().tolist():
            intensity = torch.where(params["axis"] == axis, params["intensity"], 0)
            lines = torch.arange(signal.shape[axis] // 2 + 1)
            weaker = (lines % params["ghosts"][:, None] == 0) & (lines > 0)
            signal = _weigh(signal, 1 - intensity[:, None] * weaker, axis)
        return signal


class Gibbs(InKSpace):
    """Ringing beside edges, since k-space was measured only so far: X(k) -> 0 where |k| > (1 - c) N / 2.

    Cut alike along each axis, as the scanner's matrix is a box; MONAI's GibbsNoise cuts a ball.
    """

    class Config(TransformConfig):
        name: Literal["gibbs"] = "gibbs"
        cut: Annotated[float, Field(ge=0, le=1)]
        """Largest share c of lines that is missing along each axis."""
        axes: Axes = "plane"

    config: Config

    def draw(self, rng: np.random.Generator, shape: tuple[int, ...]) -> Params:
        return {"cut": rng.uniform(0, self.config.cut)}

    def measured(self, signal: Tensor, params: Stacked) -> Tensor:
        for axis in range(-acting_axes(self.config.axes, signal.ndim - 2), 0):
            size = signal.shape[axis]
            kept = torch.arange(size // 2 + 1) <= (1 - params["cut"][:, None]) * size / 2
            signal = _weigh(signal, kept, axis)
        return signal


class Motion(InKSpace):
    """The head moves in the plane while it is measured: each run of lines between two moves sees it in another pose.

    A shift of d voxels is the phase exp(-2 pi i k d / N) on each of the run's lines, and a turn is a spectrum of the
    turned image (Shaw et al., MIDL 2019). Poses are counted from the one in which k = 0 was measured, so that masks
    still fit the image.
    """

    class Config(TransformConfig):
        name: Literal["motion"] = "motion"
        translate: Strength = Field(examples=[3.0])
        """Largest shift along J and along I, in voxels."""
        rotate: Annotated[float, Field(ge=0, le=180, examples=[5.0])]
        """Largest turn either way, in degrees; 0 is several times faster. Assumes that J and I have one spacing."""
        moves: PositiveInt = 2
        """How often the head moves, at any time of the measurement."""
        phase_encode: PhaseEncode = ("j", "i")

    config: Config

    def draw(self, rng: np.random.Generator, shape: tuple[int, ...]) -> Params:
        translate, rotate, moves = self.config.translate, math.radians(self.config.rotate), self.config.moves
        times = np.sort(rng.random(moves))
        still = np.arange(moves + 1) == (times < 0.5).sum()  # the pose in which k = 0 is measured
        return {"axis": _draw_axis(rng, self.config.phase_encode), "times": times,
                "shift": np.where(still[:, None], 0, rng.uniform(-translate, translate, (moves + 1, 2))),
                "angle": np.where(still, 0, rng.uniform(-rotate, rotate, moves + 1))}

    def measured(self, signal: Tensor, params: Stacked) -> Tensor:
        pose = _poses(params, tuple(signal.shape[-2:])).to(signal.device)
        return torch.fft.ifft2(_turned_spectrum(signal, params["angle"], pose) * _over(_phases(params, pose), signal))


def _draw_axis(rng: np.random.Generator, letters: tuple[str, ...]) -> int:
    return POSITION[letters[rng.integers(len(letters))]]


def _weigh(signal: Tensor, weights: Tensor, axis: int) -> Tensor:
    """Multiplies the lines k and -k of one axis of (B, C, *S) by real weights (B, N // 2 + 1): real stays real."""
    shape = [1] * signal.ndim
    shape[0], shape[axis] = weights.shape
    spectrum = torch.fft.rfft(signal, dim=axis)
    spectrum *= weights.reshape(shape).to(signal.device, signal.dtype)
    return torch.fft.irfft(spectrum, n=signal.shape[axis], dim=axis)


def _poses(params: Stacked, plane: tuple[int, int]) -> Tensor:
    """(B, J, I): the pose in which each point of k-space is measured, lines following one another from -N/2 up."""
    row, column = (torch.fft.fftfreq(size, dtype=torch.float64) + 0.5 for size in plane)  # from 0 to 1
    time = torch.where((params["axis"] == POSITION["j"])[:, None, None], row[:, None], column)
    return (time[..., None] > params["times"][:, None, None]).sum(-1)


def _phases(params: Stacked, pose: Tensor) -> Tensor:
    """(B, J, I) complex: what each pose's shift does to its points of k-space."""
    shift = params["shift"].to(pose.device, torch.float32)  # (B, poses, 2)
    row, column = (torch.fft.fftfreq(size, device=pose.device) for size in pose.shape[1:])
    along_j, along_i = shift[torch.arange(len(pose), device=pose.device)[:, None, None], pose].unbind(-1)
    turns = row[:, None] * along_j + column * along_i
    return torch.polar(torch.ones_like(turns), -2 * math.pi * turns)


def _turned_spectrum(signal: Tensor, angle: Tensor, pose: Tensor) -> Tensor:
    """The plane's spectrum, each point from the image turned by its pose's angle (B, poses)."""
    if not angle.any():
        return torch.fft.fft2(signal)
    plane = torch.tensor(signal.shape[-2:], dtype=torch.float64).expand(len(signal), 2)
    turn = Spatial(SpatialConfig(rotate=180, padding="border"))
    spectra = (torch.fft.fft2(turn.apply(signal, {"centre": plane / 2, "extent": plane, "angle": angle[:, n]}))
               * _over(pose == n, signal) for n in range(angle.shape[1]))
    return sum(spectra, start=torch.zeros((), device=signal.device))


def _over(plane: Tensor, signal: Tensor) -> Tensor:
    """(B, J, I) -> (B, 1, ..., J, I), so that it broadcasts over `signal` (B, C, *S)."""
    return plane.reshape(len(plane), *[1] * (signal.ndim - 3), *plane.shape[1:])
