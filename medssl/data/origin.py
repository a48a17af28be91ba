"""The way back from a prepared case to the voxels of its own files: what `decode` did, undone."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from medssl.data.alignment import on_one_grid
from medssl.data.decode import PrepareConfig
from medssl.data.files import Files
from medssl.data.grid import resample, stored_difference
from medssl.data.resize import content_box, resize
from medssl.errors import GeometryError
from medssl.io.geometry import canonical, from_canonical
from medssl.types import Scan


@dataclass(frozen=True, eq=False)
class Origin:
    """Where a prepared case comes from.

    scan: the first channel, as its file stores it; an image with an EXIF orientation is already turned by it.
    straight: the same, straightened where `prepare` does so.
    shape: (*S) of the case before it was cropped, oriented as prepared cases are.
    box: what was left of it by the crop, before it was resized.
    """

    scan: Scan
    straight: Scan
    shape: tuple[int, ...]
    box: tuple[slice, ...]

    @classmethod
    def of(cls, files: Files, config: PrepareConfig) -> Origin:
        """MedsslErrors as `decode`'s; GeometryError also for slices at uneven distances, which make no grid."""
        image = replace(files, paths={role: paths for role, paths in files.paths.items() if role != "mask"})
        straight = image.open(image.channels[0], straighten=config.straighten)
        scan = _as_stored(image) if config.straighten and straight.kind == "volume" else straight
        shape = canonical(straight).array.shape[1:]
        if config.margin is None or files.kind != "volume":
            return cls(scan, straight, shape, tuple(slice(0, n) for n in shape))
        channels = on_one_grid(image, config.align, config.straighten)
        content = np.concatenate([channels[name].array for name in image.there])
        return cls(scan, straight, shape, content_box(content, config.margin))

    def resized(self, prepared: np.ndarray) -> np.ndarray:
        """(C, *S) float on the prepared grid -> (C, *S) before it was resized, linearly."""
        size = tuple(side.stop - side.start for side in self.box)
        return prepared if prepared.shape[1:] == size else resize(prepared, size)

    def put_back(self, mask: np.ndarray) -> np.ndarray:
        """(*S) bool as `resized` leaves it -> bool on the voxels of `scan`, in their order."""
        whole = np.zeros(self.shape, dtype=bool)
        whole[self.box] = mask
        if self.straight.kind == "volume" and self.straight.affine is not None:
            whole = from_canonical(whole, self.straight.affine)
        if stored_difference(self.scan, self.straight) is None:
            return whole
        return resample(replace(self.straight, array=whole[None]), self.scan).array[0] >= 0.5


def _as_stored(files: Files) -> Scan:
    try:
        return files.open(files.channels[0])
    except GeometryError:
        raise GeometryError("The slices lie at uneven distances, so that a mask cannot be put back on them",
                            expected="even distances", remedy="leave the case out, or the masks") from None
