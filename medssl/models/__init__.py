"""Encoders, decoders, heads, and how they are saved. A new encoder is one class and one line in ENCODERS."""

from __future__ import annotations

from typing import Annotated, Union

from pydantic import Field

from medssl.config import Config
from medssl.models.cnn import ResNetEncoder, UNetEncoder
from medssl.models.decoder import TokenDecoder, UNetDecoder
from medssl.models.encoder import Encoder
from medssl.models.head import DenseHead, LinearHead
from medssl.models.r2plus1d import R2Plus1DEncoder
from medssl.models.swin import SwinEncoder
from medssl.models.vit import ViT

ENCODERS: dict[str, type[Encoder]] = {
    "vit": ViT,
    "resnet": ResNetEncoder,
    "unet": UNetEncoder,
    "swin": SwinEncoder,
    "r2plus1d": R2Plus1DEncoder,
}

EncoderConfig = Annotated[
    Union[tuple(kind.Config for kind in ENCODERS.values())],  # noqa: UP007
    Field(discriminator="name"),
]
"""Any encoder's Config, told apart by `name`."""


def build_encoder(config: Config) -> Encoder:
    """The encoder that `config` describes, freshly initialised from torch's global generator."""
    return ENCODERS[config.name](config)


__all__ = [
    "ENCODERS", "DenseHead", "Encoder", "EncoderConfig", "LinearHead", "TokenDecoder", "UNetDecoder", "ViT",
    "build_encoder",
]  # fmt: skip
