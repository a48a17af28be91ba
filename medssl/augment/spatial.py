"""All geometry, drawn as one box per sample and done in one resampling of the batch.

A draw is a box in the input, given in voxels from the image's outer corner (so that a voxel's centre lies at its index
plus one half): `centre`, `extent` (negative where that axis is flipped), and the `angle` by which the box is turned in
the (J, I) plane about its centre. The view is the box, sampled at `size` points per axis. Crop, scale, aspect, flip,
translation and rotation are all in that box; image and mask share it.

The plane is sampled by one bilinear 2-D grid for all channels, slices and frames, and the slice axis, which no rotation
mixes in, by a linear step of its own: together trilinear, at a third of the cost of a 3-D grid on CPU. Where an axis
shrinks more than 1.5 times it is first smoothed with the triangle that `antialias=True` uses elsewhere; below that,
linear interpolation alone aliases little and smoothing would cost more than the sampling.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor
from torch.nn.functional import embedding_bag, grid_sample

from medssl.augment.transform import Axes, Params, Probability, Stacked, acting_axes, smooth
from medssl.config import Config
from medssl.errors import ConfigError

TRIES = 10
"""How often a crop that does not fit the image is drawn anew, as in torchvision's RandomResizedCrop."""

SMOOTH_BEYOND = 1.5
"""Shrinking, input voxels per output voxel, beyond which an axis is smoothed first."""


class SpatialConfig(Config):
    """The default is no augmentation: the largest central box of the view's shape, resampled to the view's size."""

    probability: Probability = 1.0
    """The chance that a sample gets any of this; else it is treated as by the default."""
    axes: Axes = "plane"
    """plane: images, and clips, all of whose frames move alike. volume: crop, flip and translate along K also."""
    scale: tuple[float, float] = (1.0, 1.0)
    """Share of the image's area, or volume, that the crop keeps: uniform between these."""
    ratio: tuple[float, float] = (1.0, 1.0)
    """Distortion of width against height, log-uniform between these; in volumes, of the plane against K likewise."""
    rotate: Annotated[float, Field(ge=0, le=180)] = 0.0
    """Largest angle in the (J, I) plane, in degrees, either way; assumes that J and I have the same spacing."""
    translate: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Largest shift either way, as a share of each axis."""
    flip: dict[Literal["k", "j", "i"], Probability] = {}
    """The chance of a flip along each axis. A flip along I moves the heart to the right side: think before using it."""
    keep_sector: bool = False
    """For ultrasound with values from 0, black: crops keep the probe, in the middle of the fan's upper end, where it
    is, as a smaller depth does; and whatever is done, the picture stays within the fan of the uncropped one, as do
    masks."""
    padding: Literal["zero", "border"] = "zero"
    """What lies outside the image: zeros, or its outermost voxels. Masks are 0 there, or the outermost label. In
    z-scored images 0 is no black but the mean: choose border, unless the background was prepared as 0 too."""

    @model_validator(mode="after")
    def _check(self) -> SpatialConfig:
        for name in ("scale", "ratio"):
            low, high = getattr(self, name)
            if not 0 < low <= high:
                raise ValueError(f"{name} is [{low:g}, {high:g}], but must be [low, high] with 0 < low <= high")
        if self.scale[1] > 1:
            raise ValueError(f"scale goes up to {self.scale[1]:g}, but is a share of the image, at most 1")
        if self.axes == "plane" and "k" in self.flip:
            raise ValueError("flip along k needs axes: volume")
        if self.axes == "volume" and self.keep_sector:
            raise ValueError("keep_sector is for pictures and clips, whose axes are plane")
        return self


class Spatial:
    """Draws and applies geometry. `size`: the view's voxels along the axes it acts on; None keeps the image's."""

    def __init__(self, config: SpatialConfig, size: tuple[int, ...] | None = None) -> None:
        self.config, self.size = config, size
        self.crops = config.scale != (1, 1) or config.ratio != (1, 1)
        self.moves = bool(config.rotate or config.translate)
        self.pads = config.padding == "zero" and self.moves

    def output_size(self, size: tuple[int, ...]) -> tuple[int, ...]:
        """The view's S for an image's S; ConfigError where `axes` and `size` do not fit the image."""
        count = acting_axes(self.config.axes, len(size))
        if self.config.axes == "volume" and len(size) != 3:
            raise ConfigError(f"augment.spatial.axes is volume, but the images have {len(size)} axes",
                              expected="volumes (K, J, I)", remedy="set augment.spatial.axes to plane, or, where "
                              "data.box.planar cuts volumes into slices, leave that out")
        wanted = size if self.size is None else size[: len(size) - len(self.size)] + self.size
        if len(wanted) != len(size) or wanted[:-count] != size[:-count]:
            deeper = len(size) == 3 and self.config.axes == "plane"
            raise ConfigError(f"augment.size is {list(self.size)} and augment.spatial.axes {self.config.axes}, the "
                              f"images are {list(size)}", expected=f"{count} sides in augment.size",
                              remedy=f"write augment.size as [{', '.join('KJI'[-count:])}]" + (
                                  ", or, for volumes, set augment.spatial.axes to volume" * deeper))
        return wanted

    def draw(self, rng: np.random.Generator, shape: tuple[int, ...], probe: list[float] | None = None) -> Params | None:
        """One box for a sample of shape (C, *S); None where the view is the image itself, voxel for voxel.

        probe: the point that a crop leaves where it is, in voxels; None lets crops lie anywhere.
        """
        image = shape[-acting_axes(self.config.axes, len(shape) - 1):]
        view = self.output_size(shape[1:])[-len(image):]
        centre, extent, angle = [side / 2 for side in image], _largest(image, view), 0.0
        if rng.random() < self.config.probability:
            if self.crops:
                centre, extent = self._crop(rng, image, view, probe)
            if self.config.translate:
                reach = self.config.translate
                centre = [c + rng.uniform(-reach, reach) * s for c, s in zip(centre, image, strict=True)]
            if self.config.rotate:
                angle = math.radians(rng.uniform(-1, 1) * self.config.rotate)
            flips = [rng.random() < self.config.flip.get(axis, 0) for axis in "kji"[-len(image):]]
            extent = [-e if flip else e for e, flip in zip(extent, flips, strict=True)]
        if not angle and tuple(extent) == image == view and all(2 * c == s for c, s in zip(centre, image, strict=True)):
            return None
        return {"centre": np.array(centre), "extent": np.array(extent), "angle": angle}

    def apply(self, batch: Tensor, params: Stacked) -> Tensor:
        """(B, C, *S) -> (B, C, *view), linear interpolation."""
        view = self.output_size(tuple(batch.shape[2:]))
        if not (self.crops or self.moves) and view == tuple(batch.shape[2:]):
            return _flip(batch, params)
        for axis, shrink in self._shrinking(batch, params, view):
            batch = smooth(batch, _triangles(shrink), axis)
        if params["centre"].shape[1] == 3:
            batch = self._sample_slices(batch, _along(params, 0, view[0]))
        return self._sample_plane(batch, params, view)

    def apply_labels(self, labels: Tensor, params: Stacked) -> Tensor:
        """(B, *S) integer -> (B, *view): each output voxel takes the label of the voxel that its centre lies in."""
        *_, j, i = labels.shape
        view = self.output_size(tuple(labels.shape[1:]))
        labels = labels.reshape(len(labels), -1, j, i)
        if params["centre"].shape[1] == 3:
            place = _along(params, 0, view[0]).to(labels.device)  # (B, K)
            index = place.floor().long().clamp(0, labels.shape[1] - 1)
            taken = labels[torch.arange(len(labels), device=labels.device)[:, None], index]
            labels = self._pad_slices(taken, place, labels.shape[1])
        grid = _plane_grid(params, (j, i), view, labels.device)
        col, row = (((grid[..., n] + 1) * side / 2).floor().long().clamp(0, side - 1) for n, side in enumerate((i, j)))
        index = (row * i + col).flatten(1)[:, None].expand(-1, labels.shape[1], -1)
        taken = labels.flatten(2).gather(2, index).reshape(*labels.shape[:2], *view[-2:])
        return self._pad_plane(taken, grid).reshape(-1, *view)

    def _crop(self, rng: np.random.Generator, image: tuple[int, ...], view: tuple[int, ...],
              probe: list[float] | None) -> tuple[list[float], list[float]]:
        """A random box of the view's shape up to `ratio`, inside the image; the largest central one where none fits."""
        (low, high), (thin, wide) = self.config.scale, (math.log(r) for r in self.config.ratio)
        for _ in range(TRIES):
            share = low + rng.random() * (high - low)
            zoom = (share * math.prod(image) / math.prod(view)) ** (1 / len(image))
            extent = [zoom * side for side in view]
            root = math.exp((thin + rng.random() * (wide - thin)) / 2)
            extent[-2:] = extent[-2] / root, extent[-1] * root
            if len(image) == 3:
                third = math.exp((thin + rng.random() * (wide - thin)) / 3)
                extent = [extent[0] / third**2, extent[1] * third, extent[2] * third]
            if all(e <= s for e, s in zip(extent, image, strict=True)):
                if probe is not None:
                    shares = [e / w for e, w in zip(extent, _largest(image, view), strict=True)]
                    return [min(max(p + (s / 2 - p) * n, e / 2), s - e / 2)
                            for p, s, n, e in zip(probe, image, shares, extent, strict=True)], extent
                return [e / 2 + rng.random() * (s - e) for e, s in zip(extent, image, strict=True)], extent
        return [side / 2 for side in image], _largest(image, view)

    def _pad_plane(self, values: Tensor, grid: Tensor) -> Tensor:
        """(B, ..., J, I) made zero where `grid` leaves the image, if this configuration can leave it and pads so."""
        return values * (grid.abs() <= 1).all(dim=-1)[:, None] if self.pads else values

    def _pad_slices(self, values: Tensor, place: Tensor, slices: int) -> Tensor:
        """The same along K: values (B, K, ...), place (B, K)."""
        if not self.pads:
            return values
        inside = ((place >= 0) & (place <= slices)).to(values.device)
        return values * inside.reshape(*place.shape, *[1] * (values.ndim - 2))

    def _shrinking(self, batch: Tensor, params: Stacked, view: tuple[int, ...]) -> list[tuple[int, Tensor]]:
        """The axes of the batch to be smoothed first, each with its (B,) shrinking, 1 where a sample needs none."""
        count = params["extent"].shape[1]
        shrink = params["extent"].abs() / torch.tensor(view[-count:])
        shrink = torch.where(shrink > SMOOTH_BEYOND, shrink, 1.0)
        return [(batch.ndim - count + n, shrink[:, n]) for n in range(count) if (shrink[:, n] > 1).any()]

    def _sample_slices(self, batch: Tensor, place: Tensor) -> Tensor:
        """(B, C, K, J, I) -> (B, C, K', J, I), padded where `place` (B, K') leaves the image."""
        return sample_slices(batch, place, self._pad_slices(torch.ones_like(place), place, batch.shape[2]))

    def _sample_plane(self, batch: Tensor, params: Stacked, view: tuple[int, ...]) -> Tensor:
        """(B, C, ..., J, I) -> (B, C, ..., J', I'): bilinear, the same grid for all that lies before (J, I)."""
        grid = _plane_grid(params, tuple(batch.shape[-2:]), view, batch.device)
        folded = batch.reshape(len(batch), -1, *batch.shape[-2:])
        # bfloat16 cannot tell neighbouring places apart, so the grid stays float32, and the image must match it
        sampled = grid_sample(folded.to(grid.dtype), grid, padding_mode="border", align_corners=False)
        return self._pad_plane(sampled, grid).to(batch.dtype).reshape(*batch.shape[:-2], *view[-2:])


def _flip(batch: Tensor, params: Stacked) -> Tensor:
    """(B, C, *S) with the axes whose extent is negative turned round, voxel for voxel."""
    for axis, flipped in enumerate((params["extent"] < 0).unbind(1), start=-params["extent"].shape[1]):
        if flipped.any():
            here = flipped.to(batch.device).reshape(-1, *[1] * (batch.ndim - 1))
            batch = torch.where(here, batch.flip(axis), batch)
    return batch


def sample_slices(batch: Tensor, place: Tensor, weight: Tensor | None = None) -> Tensor:
    """(B, C, K, J, I) -> (B, C, K', J, I): linear between the slices on either side of `place`, times `weight`.

    Both are (B, K') on the host. A `place` that is every slice's own gives the batch itself.
    """
    b, c, slices = batch.shape[:3]
    index = (place - 0.5).clamp(0, slices - 1)
    below = index.floor().long()
    if torch.equal(index, torch.arange(slices, dtype=index.dtype).expand(b, -1)):
        return batch
    pair = torch.stack([below, (below + 1).clamp(max=slices - 1)], dim=-1)  # (B, K', 2)
    shares = torch.stack([1 - (index - below), index - below], dim=-1)
    shares = shares if weight is None else shares * weight[..., None]
    first = torch.arange(b * c).reshape(b, c, 1, 1) * slices  # where each channel's slices begin
    between = embedding_bag(  # a weighted sum of two rows in one pass: an eighth of the time of lerp on CPU
        (first + pair[:, None]).reshape(-1, 2).to(batch.device), batch.reshape(b * c * slices, -1), mode="sum",
        per_sample_weights=shares[:, None].expand(b, c, -1, 2).reshape(-1, 2).to(batch.device, batch.dtype))
    return between.reshape(b, c, -1, *batch.shape[3:])


def _largest(image: tuple[int, ...], view: tuple[int, ...]) -> list[float]:
    """The sides of the largest box of the view's shape that fits the image."""
    zoom = min(i / v for i, v in zip(image, view, strict=True))
    return [zoom * side for side in view]


def _along(params: Stacked, axis: int, count: int) -> Tensor:
    """Where the view's `count` voxel centres lie along one axis, were it not turned: (B, count) float64 on the host."""
    share = (torch.arange(count, dtype=torch.float64) + 0.5) / count - 0.5
    return params["centre"][:, axis, None] + params["extent"][:, axis, None] * share


def _plane_grid(params: Stacked, image: tuple[int, int], view: tuple[int, ...], device: torch.device) -> Tensor:
    """Where the view's voxel centres lie in the plane, as (i, j) from -1 to 1 (`grid_sample`): (B, J, I, 2) float32."""
    (centre_j, centre_i), angle = params["centre"][:, -2:, None].unbind(1), params["angle"][:, None]
    # from the box's own centre; only these small tensors, one value a row or column, travel to the device
    along_j, along_i = _along(params, -2, view[-2]) - centre_j, _along(params, -1, view[-1]) - centre_i
    parts = ((centre_j + along_j * angle.cos()) * 2 / image[0] - 1, -along_i * angle.sin() * 2 / image[0],
             (centre_i + along_i * angle.cos()) * 2 / image[1] - 1, along_j * angle.sin() * 2 / image[1])
    row_j, row_i, col_i, col_j = (part.to(device, torch.float32) for part in parts)
    grid = torch.empty(len(row_j), *view[-2:], 2, device=device)
    torch.add(col_j[:, :, None], col_i[:, None, :], out=grid[..., 0])  # written in place: 4 times faster than a stack
    torch.add(row_j[:, :, None], row_i[:, None, :], out=grid[..., 1])
    return grid


def _triangles(shrink: Tensor) -> Tensor:
    """(B,) shrinking -> (B, taps) triangle kernels that sum to 1; a shrinking of 1 gives the identity."""
    radius = math.ceil(float(shrink.max())) - 1
    distance = torch.arange(-radius, radius + 1).abs()
    kernels = (1 - distance / shrink[:, None]).clamp(min=0)
    return kernels / kernels.sum(dim=1, keepdim=True)
