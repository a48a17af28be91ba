"""What every page is made of: templates, and pictures that are laid out for a desktop and for a phone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from jinja2 import Environment, PackageLoader, StrictUndefined
from matplotlib.figure import Figure

from medssl.report.style import data_uri, svg_uri


@dataclass(frozen=True)
class Picture:
    """wide, narrow: `data:` URIs of the same content laid out for a desktop and for a phone."""

    wide: str
    narrow: str
    alt: str
    caption: str


def drawn(draw: Callable[[bool], Figure], alt: str, caption: str) -> Picture:
    """draw: makes the figure, for a phone where its argument is True."""
    return Picture(svg_uri(draw(False)), svg_uri(draw(True)), alt, caption)


def stored(content: bytes, caption: str) -> Picture:
    """A PNG as it lies in a run's folder."""
    uri = data_uri(content, "image/png")
    return Picture(uri, uri, caption, caption)


def environment() -> Environment:
    return Environment(loader=PackageLoader("medssl.report"), autoescape=True, undefined=StrictUndefined,
                       trim_blocks=True, lstrip_blocks=True)
