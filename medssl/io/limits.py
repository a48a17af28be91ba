"""How much one scan may hold, and whether its file can hold that: asked of the header, before memory is taken.

A header is a claim. Voxels stored as they are take a file at least as long as they claim; deflate shrinks by at most
1,032; and nothing may claim more than MEDSSL_MAX_SCAN_GIB.
"""

from __future__ import annotations

import os

from medssl.errors import ConfigError, UnreadableScan

CUT = "copy it again from its source"
"""The remedy for a file of which a part is missing or damaged."""
VARIABLE = "MEDSSL_MAX_SCAN_GIB"
DEFAULT_GIB = 4.0
"""GiB of decoded voxels that one scan may hold: twice a long functional MRI, and a chest CT sixteen times."""
DEFLATE_RATIO = 1032
"""The most by which deflate shrinks: a match of 258 bytes takes two bits at least (RFC 1951, 3.2.5)."""


def most_bytes() -> int:
    """The ceiling for one scan's voxels as decoded; the environment variable MEDSSL_MAX_SCAN_GIB moves it."""
    stated = os.environ.get(VARIABLE, DEFAULT_GIB)
    try:
        return int(float(stated) * 2**30)
    except (ValueError, OverflowError):
        raise ConfigError(f"{VARIABLE} is {stated!r}", expected="a number of GiB", remedy="unset it") from None


def require_room(declared: int) -> None:
    """UnreadableScan where voxels of `declared` bytes exceed the ceiling."""
    if declared > most_bytes():
        raise UnreadableScan(
            f"The voxels would take {declared / 2**30:.3g} GiB",
            expected=f"at most {most_bytes() / 2**30:.3g} GiB",
            remedy=f"set {VARIABLE} higher if the file is what it should be",
        )


def require_stored(declared: int, present: int) -> None:
    """UnreadableScan where `declared` bytes, stored as they are, do not fit into a file of `present` bytes."""
    require_room(declared)
    if declared > present:
        raise UnreadableScan(
            f"The file ends after {present} of {declared} bytes",
            expected="a whole file",
            remedy=CUT,
        )


def require_deflated(declared: int, present: int) -> None:
    """UnreadableScan where a deflate stream of `present` bytes cannot hold `declared` bytes."""
    require_room(declared)
    if declared > present * DEFLATE_RATIO:
        raise UnreadableScan(
            f"The header declares {declared} bytes, and {present} bytes of deflate hold no more than"
            f" {present * DEFLATE_RATIO}",
            expected="a whole file",
            remedy=CUT,
        )
