"""The scans of a report: functions from arrays to pictures of views, strengths, reconstructions and outlines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke

from medssl.report.examples import RANKS, Examples, Ranked
from medssl.report.style import DPI, HUES, INK, NARROW, WIDE, drawing, new_figure, save_figure, wrap

_HALO = [withStroke(linewidth=2.6, foreground=INK)]  # keeps a white line legible on white


def segmentation_figure(arms: Mapping[str, Examples], narrow: bool = False, cases_called: Sequence[str] = ()) -> Figure:
    """A row a case: the image, then each arm's contours in colour over the reference standard in white.

    Args:
        arms: human name -> examples; all arms show the same cases in the same order.
        narrow: fewer cases, and a column a case.
        cases_called: what stands beside the cases' images.
    """
    first = next(iter(arms.values()))
    cases = min(len(first.image), 3 if narrow else 4)
    lines = [("image", None), *arms.items()]
    side = 3.6 / cases if narrow else (WIDE - 0.2) / max(len(lines), 3)
    shape = (len(lines), cases) if narrow else (cases, len(lines))
    with drawing():
        figure = new_figure(NARROW if narrow else shape[1] * side + 0.2,
                            shape[0] * side * first.image.shape[1] / first.image.shape[2] + 0.9)
        grid = figure.subplots(*shape, squeeze=False)
        grid = grid.T if narrow else grid
        for (case, column), axes in np.ndenumerate(grid):
            title, shown = lines[column]
            _show(axes, first.image[case])
            if column == 0 and cases_called:
                axes.set_title(cases_called[case], fontsize="small") if narrow else axes.set_ylabel(cases_called[case])
            if case == 0:
                axes.set_ylabel(wrap(title, 20), fontweight="bold") if narrow else axes.set_title(wrap(title, 28))
            if shown is not None:
                _contours(axes, shown.truth[case], len(first.regions), "white")
                _contours(axes, shown.prediction[case], len(first.regions))
        handles = [Line2D([], [], color=HUES[_region_hue(k)], label=name) for k, name in enumerate(first.regions)]
        handles.append(Line2D([], [], color="white", linewidth=1.1, path_effects=_HALO, label="reference standard"))
        figure.legend(handles=handles, loc="outside lower left", ncols=2 if narrow else 5)
    return figure


def ranked_figure(arms: Mapping[str, Ranked], narrow: bool = False) -> Figure:
    """A row an arm: the cases that it judged best, at the median and worst, with the truth and what was predicted."""
    shape = (len(arms) * len(RANKS), 1) if narrow else (len(arms), len(RANKS))
    lines = max(text.count("\n") + 1 for shown in arms.values() for text in shown.told)
    side = (NARROW if narrow else WIDE) / shape[1] - 0.2
    with drawing():
        figure = new_figure(NARROW if narrow else WIDE, shape[0] * (side + 0.3 + 0.17 * lines))
        places = iter(figure.subplots(*shape, squeeze=False).ravel())
        for name, shown in arms.items():
            for rank, image, told in zip(RANKS, shown.image, shown.told, strict=True):
                axes = next(places)
                _show(axes, image)
                axes.set_title(": ".join(filter(None, (rank, wrap(name, 24)))))
                axes.set_xlabel(told, fontsize="small")
    return figure


def save_views(path: Path, images: Sequence[np.ndarray]) -> None:
    """Writes a PNG grid: a row a case, the original first and then its views.

    Args:
        images: originals, first views, second views, ...: each (n, J, I), or (n, J, I, 3) in colour, all in the
            same order of cases.
    """
    names = ["original", *(f"view {number}" for number in range(1, len(images)))]
    with drawing():
        save_figure(path, _grid([[stack[row] for stack in images] for row in range(len(images[0]))], names))


@dataclass(frozen=True)
class StrengthRow:
    """A transform's row in `save_strengths`.

    notes: how often it is done, and what the numbers in the captions mean.
    images: (J, I) each, or (J, I, 3) in colour, as prepared and then at each strength; None where there is nothing to
        show.
    """

    title: str
    notes: Sequence[str]
    images: Sequence[np.ndarray | None]
    captions: Sequence[str]


def save_strengths(path: Path, rows: Sequence[StrengthRow], heading: str) -> None:
    """Writes a PNG: a row a transform, told on the left; its images all share the first one's range of greys."""
    columns, (height, width) = len(rows[0].images), rows[0].images[0].shape[:2]
    side = WIDE / (columns + 1)
    lines = sum(max(caption.count("\n") + 1 for caption in row.captions) for row in rows)
    with drawing():
        figure = new_figure(WIDE, len(rows) * (max(side * height / width, 0.9) + 0.1) + 0.16 * lines + 0.3)
        figure.suptitle(heading, x=0.006, ha="left", fontsize=9.5)
        grid = figure.subplots(len(rows), columns + 1, squeeze=False)
        for (label, *cells), row in zip(grid, rows, strict=True):
            label.set_axis_off()
            notes = "\n".join(wrap(note, 31) for note in row.notes)
            for text, place, style in ((row.title, 1.0, {"fontweight": "bold", "fontsize": 10}),
                                       (notes, 0.88, {"fontsize": 7.5, "linespacing": 1.35})):
                label.text(0, place, text, va="top", transform=label.transAxes, in_layout=False, **style)
            for axes, image, caption in zip(cells, row.images, row.captions, strict=True):
                if image is None:
                    axes.set_axis_off()
                    continue
                _show(axes, image, window=row.images[0])
                axes.set_title(caption, fontsize=8, fontweight="normal", pad=3)
        save_figure(path, figure, dpi=110)


def save_reconstructions(path: Path, originals: np.ndarray, masked: np.ndarray, reconstructions: np.ndarray) -> None:
    """Writes a PNG grid: a row a case with what it was, what the model saw, and what it made of it.

    Args:
        originals, masked, reconstructions: (n, J, I), NaN where hidden (drawn grey); or (n, T, J, I) clips, of which
            up to three frames are shown, a row each.
    """
    with drawing():
        save_figure(path, _reconstructions(originals, masked, reconstructions))


def reconstructions_picture(originals: np.ndarray, masked: np.ndarray, reconstructions: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8: what `save_reconstructions` writes."""
    with drawing():
        figure = _reconstructions(originals, masked, reconstructions)
        figure.set_dpi(DPI)
        figure.canvas.draw()
        return np.asarray(figure.canvas.buffer_rgba())[..., :3].copy()


def _reconstructions(*stacks: np.ndarray) -> Figure:
    rows = zip(*(_frames(np.asarray(stack)) for stack in stacks), strict=True)
    return _grid(list(rows), ["original", "what the model sees", "reconstruction"])


def _frames(stack: np.ndarray) -> np.ndarray:
    """(n, T, J, I) -> (n * frames, J, I), frames evenly spread over T; (n, J, I) as it is."""
    if stack.ndim == 3:
        return stack
    picks = np.unique(np.linspace(0, stack.shape[1] - 1, min(3, stack.shape[1])).round().astype(int))
    return stack[:, picks].reshape(-1, *stack.shape[2:])


def _grid(rows: Sequence[Sequence[np.ndarray]], titles: Sequence[str]) -> Figure:
    side = min(2.4, WIDE / len(titles))
    shape = rows[0][0].shape
    figure = new_figure(side * len(titles), (side * shape[0] / shape[1]) * len(rows) + 0.35)
    grid = figure.subplots(len(rows), len(titles), squeeze=False)
    for line, row in zip(grid, rows, strict=True):
        for axes, image in zip(line, row, strict=True):
            _show(axes, image, window=row[0])
    for axes, title in zip(grid[0], titles, strict=True):
        axes.set_title(title)
    return figure


def _show(axes: Axes, image: np.ndarray, window: np.ndarray | None = None) -> None:
    """An image between the 0.5th and 99.5th percentile of `window` (itself by default), grey or (J, I, 3) in colour;
    NaN is a mid grey."""
    finite = image if window is None else window
    finite = finite[np.isfinite(finite)]
    low, high = np.percentile(finite, (0.5, 99.5)) if finite.size else (0.0, 1.0)
    axes.set_facecolor("#8593a0")
    shown = np.ma.masked_invalid((image - low) / max(high - low, 1e-6)).clip(0, 1)
    axes.imshow(shown, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    axes.set_xticks([])
    axes.set_yticks([])
    axes.grid(False)
    axes.spines[:].set_visible(False)


def _contours(axes: Axes, labels: np.ndarray, regions: int, color: str = "") -> None:
    """Outlines of a label map. Taking "this label or a higher one" gives nested regions one line a border."""
    for index in range(regions):
        inside = labels > index
        if inside.any() and not inside.all():
            lines = axes.contour(inside, levels=[0.5], colors=[color or HUES[_region_hue(index)]],
                                 linewidths=[1.1 if color else 1.7])
            if color:
                lines.set_path_effects(_HALO)


def _region_hue(index: int) -> int:
    """Bright hues first: vermilion, sky blue, orange stand out on grey images."""
    return (1, 4, 5, 3, 2, 0)[index % 6]
