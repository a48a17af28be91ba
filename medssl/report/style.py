"""How every picture of a report looks: one palette, one type scale, two widths, and no global matplotlib state kept."""

from __future__ import annotations

import base64
import io
import math
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullFormatter, NullLocator

from medssl.files import whole
from medssl.report.words import patients, percent

WIDE, NARROW = 9.6, 3.9
"""Figure widths in inches: a desktop's text column, and a phone's."""
DPI = 150

INK, FAINT, GRID = "#1f2933", "#6b7780", "#e4e8eb"
HUES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
"""Okabe and Ito's colours, told apart under every common colour blindness; markers and dashes say the same again."""

_MARKERS = ("o", "^", "D", "v", "P", "X")
_OPEN_MARKERS = "x+12"
_DASHES: tuple[Any, ...] = ("-", (0, (6, 1.5)), (0, (5, 1.5, 1, 1.5)), (0, (3, 1)), (0, (1, 1)), (0, (8, 2, 2, 2)))
_RC = {
    "font.family": "DejaVu Sans", "font.size": 9.5, "text.color": INK, "text.parse_math": False,
    "axes.edgecolor": FAINT, "axes.labelcolor": INK, "axes.linewidth": 0.8, "axes.titlesize": 10,
    "axes.titleweight": "bold", "axes.titlelocation": "left", "axes.titlepad": 7, "axes.labelsize": 9.5,
    "axes.spines.top": False, "axes.spines.right": False, "axes.axisbelow": True,
    "axes.grid": True, "grid.color": GRID, "grid.linewidth": 0.8,
    "xtick.color": FAINT, "ytick.color": FAINT, "xtick.labelcolor": INK, "ytick.labelcolor": INK,
    "xtick.labelsize": 8.5, "ytick.labelsize": 8.5, "legend.frameon": False, "legend.fontsize": 9.5,
    "legend.handlelength": 2.8, "svg.fonttype": "path", "svg.hashsalt": "medssl", "savefig.facecolor": "white",
}


@dataclass(frozen=True)
class LineStyle:
    color: str
    marker: str
    dashes: Any
    width: float
    size: float
    hollow: bool = False

    def line(self) -> dict[str, Any]:
        edge = {} if self.marker in _OPEN_MARKERS else {"markeredgecolor": "white", "markeredgewidth": 0.7}
        if self.hollow:
            edge = {"markerfacecolor": "white", "markeredgecolor": self.color, "markeredgewidth": 1.4}
        return {"color": self.color, "marker": self.marker, "linestyle": self.dashes, "linewidth": self.width,
                "markersize": self.size, **edge}


def line_styles(roles: Sequence[str]) -> list[LineStyle]:
    """A style an arm: baselines dark squares, compared arms in colour, trivial arms thin, grey and dotted.

    Where colours come round again, markers are hollow, and dashes are another colour's.
    """
    styles, compared, baselines, trivial = [], 0, 0, 0
    for role in roles:
        if role == "compared":
            lap, pick = divmod(compared, len(HUES))
            dashes = _DASHES[(pick + lap) % len(_DASHES)]
            styles.append(LineStyle(HUES[pick], _MARKERS[pick], dashes, 2.0, 7, hollow=lap % 2 == 1))
            compared += 1
        elif role == "baseline":
            styles.append(LineStyle(INK, "sphd"[baselines % 4], _DASHES[baselines % 4], 2.0, 6.5))
            baselines += 1
        else:
            styles.append(LineStyle("#66727d", _OPEN_MARKERS[trivial % 4], _DASHES[3 + trivial % 3], 1.2, 5))
            trivial += 1
    return styles


@contextmanager
def drawing() -> Iterator[None]:
    """Our settings while a figure is drawn or saved, and the caller's again after it. Labels are never read as TeX."""
    with matplotlib.rc_context(_RC):
        yield


def new_figure(width: float, height: float) -> Figure:
    """A figure in inches that belongs to no window and no pyplot state."""
    figure = Figure(figsize=(width, height), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.06, h_pad=0.08)
    FigureCanvasAgg(figure)
    return figure


def svg_uri(figure: Figure) -> str:
    """The figure as a `data:` URI. Letters are outlines, so that it looks alike on machines without our font."""
    buffer = io.BytesIO()
    with drawing():
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return data_uri(buffer.getvalue(), "image/svg+xml")


def png_uri(figure: Figure, dpi: int = 170) -> str:
    buffer = io.BytesIO()
    with drawing():
        figure.savefig(buffer, format="png", dpi=dpi)
    return data_uri(buffer.getvalue(), "image/png")


def data_uri(content: bytes, media_type: str) -> str:
    return f"data:{media_type};base64,{base64.b64encode(content).decode()}"


def patient_axis(axes: Axes, counts: Sequence[float], fractions: Sequence[float], inches: float) -> None:
    """A log axis of labelled patients with a tick at every fraction, in the longest wording that does not collide.

    Args:
        counts: labelled patients, ascending, one a fraction.
        inches: the width that the axis will have.
    """
    names = list(zip(map(percent, fractions), map(patients, counts), strict=True))
    wordings = ([f"{share} · {count} patients" for share, count in names],
                [f"{share}\n{count} patients" for share, count in names],
                [f"{share}\n{count}" for share, count in names])
    labels = log_ticks(axes, counts, wordings, inches)
    plain = "patients" in labels[0]
    axes.set_xlabel("labelled training patients (log scale)" if plain
                    else "labelled patients: share and number (log scale)" if inches > 2.8
                    else "labelled patients: share, number")


def log_ticks(axes: Axes, values: Sequence[float], wordings: Sequence[Sequence[str]], inches: float) -> list[str]:
    """A log x axis with a tick at each of `values`, ascending, in the first wording that does not collide; returns it.

    Where all collide, some labels of the last wording are left out.
    """
    axes.set_xscale("log")
    low, high = values[0], values[-1]
    pad = (high / low) ** 0.07 if high > low else 1.5
    axes.set_xlim(low / pad, high * pad)
    places = np.log10(values) * inches / np.log10(high * pad * pad / low)
    letter = 0.075  # inches a character takes at the tick labels' size, with some air
    for labels in wordings:
        widths = [letter * max(map(len, label.split("\n"))) for label in labels]
        gaps = np.diff(places) - (np.array(widths[1:]) + np.array(widths[:-1])) / 2
        if (gaps > 0.08).all():
            break
    else:
        labels = _thin_out(labels, places, widths)
    axes.xaxis.set_major_locator(FixedLocator(list(values)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xticks(list(values), labels)
    return list(labels)


def dodge(index: int, count: int, values: Sequence[float]) -> float:
    """A factor beside 1, so that the error bars of `count` lines over `values` stand side by side on a log axis."""
    if not len(values):
        return 1.0
    span = math.log10(max(max(values) / min(values), 3.0))
    step = span * min(0.018, 0.07 / count)
    return 10 ** ((index - (count - 1) / 2) * step)


def _thin_out(labels: list[str], places: Sequence[float], widths: Sequence[float]) -> list[str]:
    """Blanks the labels that would touch the last one shown; the tick itself stays."""
    shown, edge = [], float("-inf")
    for label, place, width in zip(labels, places, widths, strict=True):
        fits = place - width / 2 > edge
        shown.append(label if fits else "")
        edge = place + width / 2 if fits else edge
    return shown


def save_figure(path: Path, figure: Figure, dpi: float = DPI) -> None:
    """In the format that the path's ending names, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole(path) as draft:
        figure.savefig(draft, format=path.suffix[1:] or "png", dpi=dpi)


def wrap(text: str, width: int) -> str:
    return "\n".join(textwrap.wrap(text, width)) or text
