"""What objectives that give back a picture share: an encoder under a U-Net's ascending half, and how well it paints."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from medssl.models import DenseHead, Encoder, UNetDecoder
from medssl.models.collective import over_all, processes
from medssl.objectives.objective import Objective


class Painting(Objective):
    """An objective whose network maps pictures to pictures; a task can start from its encoder and its decoder."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = encoder
        self.decoder = UNetDecoder.above(encoder)
        self.head = DenseHead(self.decoder.width, encoder.channels, encoder.dims)

    def parts(self) -> dict[str, nn.Module]:
        return {"encoder": self.encoder, "decoder": self.decoder}

    def paint(self, image: Tensor) -> Tensor:
        """(B, C, *S) -> (B, C, *S) float32."""
        return self.head(self.decoder(self.encoder(image).maps, image.shape[2:])).float()


def mean_over(values: Tensor, voxels: Tensor) -> Tensor:
    """Mean () of values (B, C, *S) over voxels (B, 1, *S) bool, 0 where there are none.

    Where processes share the batch, the mean of theirs is the mean over the voxels of all.
    """
    count = over_all(voxels.sum()) / processes()
    return (values * voxels).sum() / (count * values.shape[1]).clamp_min(1)


@torch.no_grad()
def painted_well(painted: Tensor, image: Tensor, voxels: Tensor) -> dict[str, Tensor]:
    """Health figures of painted against image (B, C, *S) over voxels (B, 1, *S) bool.

    masked_error: the mean squared error. explained_variance: 1 minus its share of the error of one who always says the
    voxels' mean.
    """
    error = mean_over((painted - image).square(), voxels)
    variance = mean_over((image - mean_over(image, voxels)).square(), voxels)
    return {"masked_error": error, "explained_variance": 1 - error / variance.clamp_min(1e-12)}
