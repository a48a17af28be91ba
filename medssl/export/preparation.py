"""How a scan is prepared, and what becomes of its output, in torch alone: what `data.decode`, `train.features` and
`evaluate.masks` do, written so that TorchScript takes it, for those who have no medssl.

TorchScript reads annotations as they are, of each class alone: none is postponed, and an heir repeats its parent's.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from medssl.data.decode import PrepareConfig
from medssl.data.loader import BoxConfig
from medssl.train.features import DEFAULT


class Preparation(nn.Module):
    """A scan (C, *S) float32 in array order, volumes turned to RAS+, becomes the case that the network looks at.

    Args:
        config: as the scans were prepared that the network learnt from.
        kind: image or volume.
    """

    size: list[int]
    spacing: list[float]

    def __init__(self, config: PrepareConfig, kind: str) -> None:
        super().__init__()
        self.volume, self.colour = kind == "volume", config.colour
        self.intensity = config.intensity
        self.low, self.high = config.window or (0.0, 1.0)
        self.margin = -1 if config.margin is None or not self.volume else config.margin
        self.size = list(config.size or ())
        self.spacing = list(config.spacing or ()) if self.volume else []

    def forward(self, scan: Tensor, spacing: list[float]) -> Tensor:
        """scan (C, *S) and its spacing, mm in array order -> (C, *S) as it was prepared for training; an error where it
        holds NaN or infinite values, as it would be left out of a training."""
        scan = scan.float()
        if not bool(torch.isfinite(scan).all()):
            raise ValueError("The scan holds NaN or infinite values: export it again, or leave it out")
        if not self.volume:
            scan = self.coloured(scan)
        if self.margin >= 0:
            scan = self.cut(scan, self.content(scan))
        scan = self.mapped(scan)
        return resized(scan, self.new_size(scan, spacing)).half().float()  # as the cache keeps it

    def coloured(self, scan: Tensor) -> Tensor:
        if self.colour:
            return scan.repeat(3, 1, 1) if scan.shape[0] == 1 else scan
        return scan.mean(dim=0, keepdim=True) if scan.shape[0] == 3 else scan

    def content(self, scan: Tensor) -> list[int]:
        """Where the voxels that are not 0 lie, with the margin: first and last + 1 along each axis."""
        bounds: list[int] = []
        inside = (scan != 0).any(dim=0)
        for axis in range(inside.ndim):
            along = inside
            for other in range(inside.ndim - 1, -1, -1):
                if other != axis:
                    along = along.any(dim=other)
            found = along.nonzero()
            n = inside.shape[axis]
            if found.numel() == 0:
                bounds += [0, n]
            else:
                bounds += [max(int(found.min()) - self.margin, 0), min(int(found.max()) + 1 + self.margin, n)]
        return bounds

    def cut(self, scan: Tensor, bounds: list[int]) -> Tensor:
        for axis in range(scan.ndim - 1):
            scan = scan.narrow(axis + 1, bounds[2 * axis], bounds[2 * axis + 1] - bounds[2 * axis])
        return scan

    def mapped(self, scan: Tensor) -> Tensor:
        """As data/intensity.py."""
        if self.intensity == "percentile":
            low, high = percentile(scan, 0.005), percentile(scan, 0.995)
            return ((scan - low) / max(high - low, 1e-6)).clamp(0, 1)
        if self.intensity == "window":
            return ((scan - self.low) / (self.high - self.low)).clamp(0, 1)
        if self.intensity == "range":
            largest = float(scan.max())
            if largest <= 255:
                return scan / 255.0
            return scan / (2.0 ** float(torch.ceil(torch.log2(torch.tensor(largest + 1)))) - 1)
        out: list[Tensor] = []
        for channel in scan:
            inside = channel != 0 if self.intensity == "zscore_nonzero" else torch.ones_like(channel, dtype=torch.bool)
            values = channel[inside].double()
            z = torch.zeros_like(channel)
            if values.numel() > 0:
                sd = max(float(values.std(correction=0)), 1e-6)
                z[inside] = ((values - values.mean()) / sd).float()
            out.append(z.clamp(-10, 10))
        return torch.stack(out)

    def new_size(self, scan: Tensor, spacing: list[float]) -> list[int]:
        size: list[int] = []
        for axis in range(scan.ndim - 1):
            size.append(scan.shape[axis + 1])
        if len(self.spacing) > 0:
            for axis in range(3):
                size[axis] = max(1, int(round(size[axis] * spacing[axis] / self.spacing[axis])))
        kept = len(size) - len(self.size)
        for axis in range(len(self.size)):
            size[kept + axis] = self.size[axis]
        return size


class Drawing(Preparation):
    """A preparation that also puts what a segmentation drew back on the scan.

    Args:
        threshold: logit from which on a voxel belongs to a region.
        order, values: indices of the regions in the order in which they are painted, and the label of each.
    """

    size: list[int]
    spacing: list[float]
    order: list[int]
    values: list[int]

    def __init__(self, config: PrepareConfig, kind: str, threshold: float, order: list[int], values: list[int]) -> None:
        super().__init__(config, kind)
        self.threshold, self.order, self.values = threshold, order, values

    @torch.jit.export
    def drawn(self, logits: Tensor, scan: Tensor) -> Tensor:
        """logits (R, *S) of the prepared case, and the scan as it came -> labels (1, *S) uint8 on its voxels."""
        bounds: list[int] = []
        for axis in range(scan.ndim - 1):
            bounds += [0, scan.shape[axis + 1]]
        if self.margin >= 0:
            bounds = self.content(scan)
        size: list[int] = []
        for axis in range(scan.ndim - 1):
            size.append(bounds[2 * axis + 1] - bounds[2 * axis])
        masks = resized(logits, size) > self.threshold
        labels = torch.zeros_like(scan[:1], dtype=torch.uint8)
        inside = self.cut(labels, bounds)
        for place, region in enumerate(self.order):
            inside[0][masks[region]] = self.values[place]
        return labels


class MeanOverBoxes(nn.Module):
    """A case (1, C, *S) -> (1, L): the mean of a network's outputs for boxes that are spread evenly over the case.

    Args:
        look: a box (1, C, *box) -> (1, L).
        size: of a box along each axis of the case, 1 along the first where boxes are slices.
        is_whole: whether a box is a whole case, or a whole slice, so that cases of another size are refused.
    """

    size: list[int]

    def __init__(self, look: nn.Module, box: BoxConfig, size: tuple[int, ...], is_whole: bool) -> None:
        super().__init__()
        self.look, self.planar, self.is_whole = look, box.planar, is_whole
        self.size = list(size)
        self.every = box.judged == "all"
        self.judged = int(DEFAULT if box.judged == "all" else box.judged)

    def forward(self, case: Tensor) -> Tensor:
        room: list[int] = []
        for axis, side in enumerate(self.size):
            room.append(max(case.shape[axis + 2] - side, 0))
            if self.is_whole and case.shape[axis + 2] != side and not (self.planar and axis == 0):
                raise ValueError("the network learnt from cases of another size")
        shares = self.places(room)
        along_first = self.planar or (self.every and room[0] > 0)
        outputs: list[Tensor] = []
        for share in shares:
            box, missing = case, [0]
            for axis, side in enumerate(self.size):
                start = int(round((share if axis == 0 or not along_first else 0.5) * room[axis]))
                box = box.narrow(axis + 2, start, min(side, case.shape[axis + 2]))
                missing = [0, side - box.shape[axis + 2]] + missing
            box = F.pad(box, missing[:-1])
            outputs.append(self.look(box[:, :, 0] if self.planar else box))
        return torch.stack(outputs).mean(dim=0)

    def places(self, room: list[int]) -> list[float]:
        """As train/features.py."""
        shares: list[float] = []
        if max(room) == 0:
            return [0.5]
        count = self.judged
        if self.every and room[0] > 0:
            count = room[0] + 1
        elif self.planar:
            slices = min(self.judged, room[0] + 1)
            for number in range(slices):
                shares.append((number + 1) / (slices + 1))
            return shares
        if count == 1:
            return [0.5]
        for number in range(count):
            shares.append(number / (count - 1))
        return shares


def percentile(values: Tensor, share: float) -> float:
    """As NumPy has it, linearly between two values; torch.quantile takes no large volume."""
    flat = values.flatten()
    place = share * (flat.numel() - 1)
    below = int(place)
    low = float(flat.kthvalue(below + 1).values)
    high = float(flat.kthvalue(min(below + 2, flat.numel())).values)
    return low + (high - low) * (place - below)


def resized(array: Tensor, size: list[int]) -> Tensor:
    """As data/resize.py: (C, *S) -> (C, *size)."""
    if array.shape[1:] == size:
        return array
    planes = array.reshape(-1, 1, array.shape[-2], array.shape[-1])
    planes = F.interpolate(planes, size=size[-2:], mode="bilinear", antialias=True, align_corners=False)
    if len(size) == 2:
        return planes.reshape(array.shape[0], size[0], size[1])
    volume = planes.reshape(array.shape[0], array.shape[1], size[1], size[2])
    if size[0] == array.shape[1]:
        return volume
    return F.interpolate(volume[None], size=size, mode="trilinear", align_corners=False)[0]
