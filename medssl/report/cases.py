"""Pictures of single cases: the best, the median and the worst, as judged."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from matplotlib.figure import Figure

from medssl.evaluate.scoring import ONE
from medssl.report.examples import RANKS, Examples, Ranked
from medssl.report.layout import Picture
from medssl.report.scans import ranked_figure, segmentation_figure
from medssl.report.style import png_uri


def segmented_picture(arms: Mapping[str, Examples], labels: Mapping[str, str], judge: str, where: str = "") -> Picture:
    """Arms side by side, as many as have the same cases as the first.

    Args:
        labels: what the arms are called; "" where there is but one model.
        judge: the arm whose best, median and worst cases are shown, where its scores were kept.
        where: of which models, to be put behind "judged".
    """
    first = next(iter(arms.values()))
    shown = {arm: each for arm, each in arms.items() if each.image.shape == first.image.shape}
    whose = "its" if ONE in arms else "each arm's"
    caption = f"Segmentations of judged cases{where}: {whose} contours in colour, the reference standard in white."
    called: list[str] = []
    if judge in shown and shown[judge].score is not None:
        chosen = shown[judge].ranked
        called = [f"{rank}, Dice {shown[judge].score[case]:.2f}" for rank, case in zip(RANKS, chosen, strict=True)]
        shown = {arm: each.only(chosen) for arm, each in shown.items()}
        who = labels[judge] or "it"
        caption += f" Of {len(first.image)} cases, those that {who} drew best, at the median, and worst."
    told = [f"Arms shown: {', '.join(labels[arm] for arm in shown)}."] if ONE not in shown else []
    alt = " ".join([caption, *told, f"Regions: {', '.join(first.regions)}."])
    by_label = {labels[arm] or "as drawn": each for arm, each in shown.items()}
    return _picture(lambda narrow: segmentation_figure(by_label, narrow, called), alt, caption)


def ranked_picture(arms: Mapping[str, Ranked], labels: Mapping[str, str], where: str = "") -> Picture:
    """A row an arm; labels and where as `segmented_picture` has them."""
    who = "it" if ONE in arms else "each arm"
    caption = (f"Cases that {who} judged best, at the median, and worst{where}: their middle slice or frame, what "
               "was predicted, and the truth.")
    told = "; ".join(f"{', '.join(filter(None, (labels[arm], rank)))}: {text}" for arm, shown in arms.items()
                     for rank, text in zip(RANKS, shown.told, strict=True)).replace("\n", ", ")
    by_label = {labels[arm]: shown for arm, shown in arms.items()}
    return _picture(lambda narrow: ranked_figure(by_label, narrow), f"{caption} {told}.", caption)


def _picture(draw: Callable[[bool], Figure], alt: str, caption: str) -> Picture:
    """As `layout.drawn`, in pixels: scans are no lines."""
    return Picture(png_uri(draw(False)), png_uri(draw(True)), alt, caption)
