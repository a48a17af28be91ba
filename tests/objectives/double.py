"""Proofs in double precision, where a formula and its reference must agree to the last digits."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import patch

import torch
from torch import Tensor


@contextmanager
def float64() -> Iterator[None]:
    """What is made within is float64, and what asks for full precision by `float()` gets float64."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        with patch.object(torch.Tensor, "float", torch.Tensor.double):
            yield
    finally:
        torch.set_default_dtype(before)


def gradients(loss: Tensor, module: torch.nn.Module) -> dict[str, Tensor]:
    """Of each parameter, by name."""
    module.zero_grad()
    loss.backward()
    return {name: parameter.grad.clone() for name, parameter in module.named_parameters()}


def assert_same(ours: dict[str, Tensor], reference: dict[str, Tensor]) -> None:
    """That two sets of gradients agree to a relative 1e-9, and are there at all."""
    for name, gradient in reference.items():
        assert gradient.dtype == torch.float64
        torch.testing.assert_close(ours[name], gradient, rtol=1e-9, atol=1e-12, msg=name)
    assert max(gradient.abs().max() for gradient in reference.values()) > 1e-3
