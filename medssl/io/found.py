"""What a walk through a folder yields: scans, and files that are none, each with its reason."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from medssl.types import Kind


@dataclass(frozen=True)
class FoundScan:
    """A scan that `open_scan` would read, known from its header alone.

    paths: its files: one, two (.hdr and .img), or the slices of a DICOM volume in order of their positions.
    modality: DICOM's code, or "OT" where the file does not say.
    patient, study, accession: identity as the file has it, in memory only, so that a manifest can join tables by it and
        put a pseudonym in its place; never printed.
    description: SeriesDescription, by which a card may tell the channels of a study apart; free text, and so in memory
        only and never printed either.
    series: SeriesInstanceUID, by which `open_scan(folder, series=...)` chooses.
    header: whitelisted fields only (see io/phi.py). Of a 4-D series: `phase` of `phases`, from 1, or for a clip `slice`
        of `slices`.
    size: voxels in array order, (K, J, I), (T, J, I) or (J, I), where the header says so.
    part: which of several scans in one multi-frame file: the number, from 1, of its first frame. None where the files
        hold one scan only.
    """

    paths: tuple[Path, ...]
    kind: Kind
    modality: str = "OT"
    patient: str | None = field(default=None, repr=False)
    study: str | None = field(default=None, repr=False)
    series: str | None = None
    header: Mapping[str, Any] = field(default_factory=dict, hash=False)
    accession: str | None = field(default=None, repr=False)
    description: str | None = field(default=None, repr=False)
    size: tuple[int, ...] | None = None
    part: int | None = None


@dataclass(frozen=True)
class SkippedFile:
    """A file that is no scan. Neither reason nor remedy names the file or the patient, so they may be saved.

    remedy: what to do about it; blank where nobody can say.
    """

    path: Path
    reason: str
    remedy: str = ""


@dataclass(frozen=True)
class FoundMask(SkippedFile):
    """A file that is no scan but draws structures on one: a DICOM segmentation or RT structure set.

    refers_to: SeriesInstanceUIDs of the scans that it draws on.
    structures: their names as the file has them, each once; free text, in memory only and never printed.
    """

    refers_to: frozenset[str] = field(default=frozenset(), repr=False)
    structures: tuple[str, ...] = field(default=(), repr=False)
