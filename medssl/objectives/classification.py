"""The loss and health figures of objectives that make up a question with a known answer, and classify."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def judged(logits: Tensor, answer: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Cross-entropy () float32 of logits (B, L) to answers (B,) long, the share answered rightly, and chance's."""
    loss = F.cross_entropy(logits.float(), answer)
    accuracy = (logits.detach().argmax(1) == answer).float().mean()
    return loss, {"accuracy": accuracy, "chance": loss.new_tensor(1 / logits.shape[1]).detach()}
