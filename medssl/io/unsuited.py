"""What an archive holds beside the images that one wants: readable when named, left out by a walk, with the reason."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from medssl.io.dicom import GREY, Instance
from medssl.io.series import normal

REMEDY = "none needed: a walk leaves it out; a card that names the file (layout table or pattern) takes it"
"""For whatever is left out here."""

LOCALIZER_SLICES = 15
"""Perpendicular planes of one series are a localizer if none of them has more slices than this."""

_LOCALIZERS = frozenset({"LOCALIZER", "SCOUT", "SURVIEW", "REF_SURVIEW", "TOPOGRAM", "SCANOGRAM"})
"""ImageType value 3: the standard's term (PS3.3 C.8.2.1.1.1), and those of vendors."""

_PERPENDICULAR = 0.2
"""Cosine of the angle between two normals, of which one has been turned a little to fit the anatomy (11 degrees)."""

_SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
_CROSS_SECTIONAL = frozenset({"CT", "MR", "PT"})
_PROJECTED = frozenset({"CR", "DX", "MG", "IO", "PX", "RF", "XA"})


def unsuited(instance: Instance) -> str | None:
    """Why a walk leaves this picture out, or None."""
    if _LOCALIZERS & set(instance.header.get("image_type", "").split("\\")):
        return "A localizer"
    if instance.modality in _PROJECTED and instance.header.get("presentation_intent") == "FOR PROCESSING":
        return "An X-ray FOR PROCESSING: raw detector values, of which the FOR PRESENTATION image is made"
    captured = instance.sop_class.startswith(_SECONDARY_CAPTURE) and instance.photometric not in GREY
    if captured and instance.modality in _CROSS_SECTIONAL and instance.position is None:
        return f"A picture of a {instance.modality} screen or report, not the scan itself"
    return None


def is_localizer(stacks: Sequence[Sequence[Instance]]) -> bool:
    """Whether the stacks of one series are the few perpendicular planes by which a scan is planned."""
    normals = np.array([normal(stack[0]) for stack in stacks])
    cosines = np.abs(normals @ normals.T)
    perpendicular, parallel = cosines <= _PERPENDICULAR, cosines >= np.sqrt(1 - _PERPENDICULAR**2)
    few = max(len(stack) for stack in stacks) <= LOCALIZER_SLICES
    return few and bool(perpendicular.any()) and bool((perpendicular | parallel).all())
