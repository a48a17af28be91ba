"""What every objective is: views in, a loss and health figures out. Each method is whole in its own file."""

from __future__ import annotations

from torch import Tensor, nn

from medssl.models import Encoder
from medssl.types import Views, ViewSpec


class Objective(nn.Module):
    """Base of all objectives. It owns its encoder, and is built as `Kind(encoder, Kind.Config(...))`.

    Attributes:
        encoder: what is pretrained, and what is kept.
        view_spec: the views that it asks of the view policy.
        per_sample: whether the loss of a batch is the mean of its samples' own, norms apart. Such a batch may be taken
            in parts where memory is short.
    """

    encoder: Encoder
    view_spec: ViewSpec
    per_sample: bool = False

    def forward(self, views: Views) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss (), and health figures, each () and without gradient, by name."""
        raise NotImplementedError

    @classmethod
    def reconstructs(cls) -> bool:
        """Whether it paints anything."""
        return cls.reconstruct is not Objective.reconstruct

    def reconstruct(self, views: Views) -> tuple[Tensor, Tensor] | None:
        """What it is shown of the first view, NaN where hidden, and what it makes of that, both (B, C, *S) float32.

        None for an objective that paints nothing.
        """
        return None

    def parts(self) -> dict[str, nn.Module]:
        """What a task can start from, by the name under which it is saved."""
        return {"encoder": self.encoder}

    def lr_shares(self) -> dict[str, float]:
        """Parameters that learn at a share of the rate, by name."""
        return {}

    def fixed_lr_parameters(self) -> list[nn.Parameter]:
        """Parameters whose learning rate stays at its base value while the others' decays."""
        return []
