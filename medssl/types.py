"""What flows through medssl, and the axis legend that every docstring uses.

B batch   C channel   T time   K slice   J row   I column   (arrays are stored in that order)
S the spatial axes of a case: (J, I) for an image, (K, J, I) for a volume, (T, J, I) for a cine clip
N tokens   D feature width   L labels

Spacing and sizes are written in the array's order, (K, J, I); an affine alone takes (i, j, k), as NIfTI has it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

Kind = Literal["image", "volume", "cine"]
Split = Literal["train", "validation", "test"]


@dataclass(frozen=True, eq=False)
class Scan:
    """One acquisition as acquired. Nothing that identifies a person ever enters it.

    array: (C, K, J, I) for volumes, (C, J, I) for images, (C, T, J, I) for cine; C-contiguous; float32 once
        intensities are applied. Physical where the file says how (HU for CT), otherwise as stored after the
        modality LUT.
    affine: (4, 4), takes (i, j, k, 1) to RAS+ millimetres; None where the file does not say.
    spacing: mm in array order, (k, j, i) or (j, i); None where the file does not say.
    frame_time: ms between frames of a cine; None where the file does not say.
    modality: DICOM's code (DX, CR, CT, MR, US, ...), or "OT".
    header: whitelisted fields only (see io/phi.py).
    """

    array: np.ndarray
    kind: Kind
    modality: str
    affine: np.ndarray | None = None
    spacing: tuple[float, ...] | None = None
    frame_time: float | None = None
    header: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Case:
    """A row of the manifest: what is known of a case apart from its pixels. Ids are pseudonyms."""

    case_id: str
    patient_id: str
    study_id: str
    kind: Kind
    modality: str
    split: Split
    labels: Mapping[str, float | str | None] = field(default_factory=dict)
    attributes: Mapping[str, float | str | None] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Sample:
    """A prepared case: oriented, resampled, intensity-mapped. array (C, *S) float; mask (*S) integer, or None."""

    case_id: str
    array: np.ndarray
    mask: np.ndarray | None = None
    spacing: tuple[float, ...] | None = None
    lost_labels: tuple[int, ...] = ()
    """Values of the file's mask that no voxel has any more at the prepared size."""


@dataclass(eq=False)
class Batch:
    """Boxes of equal size, read from the cache. image (B, C, *S) float; mask (B, *S) long or None."""

    case_ids: list[str]
    image: Tensor
    mask: Tensor | None = None
    target: Tensor | None = None
    """Whatever the task encodes for these cases: (B, L) float for classify and regress."""

    epochs: list[int] = field(default_factory=list)
    """The pass over the cases that each sample belongs to: with its case id it names the streams of its views."""

    def parts(self, count: int) -> list[Batch]:
        """The batch cut into `count` parts, as equal as may be, in order."""
        bounds = [len(self.case_ids) * part // count for part in range(count + 1)]
        cuts = [slice(*pair) for pair in pairwise(bounds)]
        return [Batch(self.case_ids[cut], *(None if tensor is None else tensor[cut] for tensor in self._tensors()),
                      self.epochs[cut]) for cut in cuts]

    def to(self, move: Callable[[Tensor], Tensor]) -> Batch:
        """The batch with its tensors where `move` brings them."""
        moved = (None if tensor is None else move(tensor) for tensor in self._tensors())
        return Batch(self.case_ids, *moved, self.epochs)

    def _tensors(self) -> tuple[Tensor | None, ...]:
        return self.image, self.mask, self.target


@dataclass(frozen=True)
class ViewSpec:
    """The views that an objective or a task asks for.

    count: views of each sample.
    draw: what is to be drawn for a sample whose views have the shape (C, *S), from a stream of the sample's own: hidden
        blocks, a rotation, an order of patches. Every draw has the same keys and shapes; None draws nothing.
    """

    count: int = 1
    draw: Callable[[np.random.Generator, tuple[int, ...]], Mapping[str, float | int | np.ndarray]] | None = None


@dataclass(eq=False)
class Views:
    """What an objective or a task is given. images: `count` tensors (B, C, *S), alike in shape.

    drawn: what the ViewSpec's `draw` drew for each sample, by name, each (B, ...) on the images' device.
    mask, target: the batch's own, the mask under the same geometry as images[0].
    """

    images: tuple[Tensor, ...]
    drawn: Mapping[str, Tensor] = field(default_factory=dict)
    mask: Tensor | None = None
    target: Tensor | None = None


@dataclass(eq=False)
class Features:
    """What an encoder returns. maps: coarse to fine, each (B, D_l, *S_l); pooled: (B, D).

    skips: of a ViT, whose one map is no pyramid, what a decoder can make one of (models/skips.py): its tokens
        on the way, late to early, each (B, D, *grid), and last the picture itself (B, C, *S).
    """

    maps: list[Tensor]
    pooled: Tensor
    skips: list[Tensor] = field(default_factory=list)


@dataclass(frozen=True)
class Prediction:
    """One case judged by a task: a target by name (finding, region, quantity), its truth, and what was predicted."""

    case_id: str
    patient_id: str
    name: str
    target: float
    prediction: float
