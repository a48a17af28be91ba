"""DICOM segmentations and RT structure sets as masks: which belongs to which row, and what of them the card wants."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

from medssl.data.card import Card
from medssl.data.skips import Skips

if TYPE_CHECKING:
    from medssl.io import FoundMask

NOT_WANTED = "mask with none of the card's structures"
_NAMES = "see which names the card's `structures` should hold"


def attach_masks(
    frame: pl.DataFrame, masks: Sequence[FoundMask], card: Card, folder: Path, skips: Skips
) -> pl.DataFrame:
    """Adds `file:mask` and `slices:mask` (all of them) to the scans, of `layout: scan`, whose series the masks name.

    A mask that cannot be told to belong to one scan alone is left out with its reason: its scan counts as unlabelled.
    """
    scans = Counter(frame["series"].drop_nulls())
    drawn: dict[str, dict[str, set[int]]] = defaultdict(dict)
    for mask in masks:
        path = mask.path.relative_to(folder).as_posix()
        values, here = _wanted(mask, path, card, skips), sorted(mask.refers_to & scans.keys())
        if not values:
            skips.add([path], NOT_WANTED, _NAMES)
        elif not here:
            skips.add([path], "mask of a scan that is not here", "copy the scan, or leave its mask")
        elif any(scans[series] > 1 for series in here):
            skips.add([path], "mask of a series that holds several scans, so that nobody can tell whose it is",
                      "put the scans into series of their own")
        else:
            for series in here:
                drawn[series][path] = values
    for series, values_by_path in list(drawn.items()):
        if sum(map(len, values_by_path.values())) > len(set.union(*values_by_path.values())):
            skips.add(list(values_by_path), "mask that draws the same structure of a scan as another",
                      "keep one of them, or tell them apart under the card's `structures`")
            del drawn[series]
    found = pl.DataFrame({"series": list(drawn), "slices:mask": [sorted(paths) for paths in drawn.values()]},
                         schema={"series": pl.String, "slices:mask": pl.List(pl.String)})
    return frame.join(found, on="series", how="left", maintain_order="left").with_columns(
        pl.col("slices:mask").list.first().alias("file:mask"))


def check_masks(frame: pl.DataFrame, card: Card, folder: Path, skips: Skips) -> pl.DataFrame:
    """Clears `file:mask` where the file, named by a table or pattern, holds none of the card's structures."""
    from medssl.io import find_mask  # readers are loaded only where files are opened

    useless: dict[str, tuple[str, str]] = {}
    for path in frame["file:mask"].drop_nulls().unique(maintain_order=True):
        mask = find_mask(folder / path)
        if mask is None:
            useless[path] = ("mask that is no DICOM segmentation or structure set, as `structures` are for",
                             "remove `structures` from the card, or leave the mask")
        elif not _wanted(mask, path, card, skips):
            useless[path] = (NOT_WANTED, _NAMES)
    for path, (reason, remedy) in useless.items():
        skips.add([path], reason, remedy)
    return frame.with_columns(pl.col("file:mask").replace(dict.fromkeys(useless)))


def _wanted(mask: FoundMask, path: str, card: Card, skips: Skips) -> set[int]:
    """The values that the structures of a mask have by the card; those that have none are counted."""
    from medssl.io.masks import value_of

    values = [value_of(name, card.structures) for name in mask.structures]
    skips.add_count(path, values.count(None), "structure that no name under the card's `structures` fits",
                    "add its name there, if it was to be used")
    return set(values) - {None}
