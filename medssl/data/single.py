"""One case prepared by itself, of no manifest and into no cache: for a notebook."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from medssl.config import validate
from medssl.data.decode import PrepareConfig, decode
from medssl.data.files import Files
from medssl.errors import AmbiguousSeries, ConfigError
from medssl.types import Scan

if TYPE_CHECKING:
    from medssl.io import FoundScan


def prepare_scan(
    scan: str | Path | FoundScan | Sequence[str | Path | FoundScan], preprocessing: Mapping[str, Any]
) -> np.ndarray:
    """A case as an encoder's own cases were prepared: (C, *S) float32, with its colours, size and grey values.

    Args:
        scan: a file, a folder that holds one scan, or what `find_scans` found in one that holds more; or several of
            these, the channels in the encoder's order.
        preprocessing: as `load_encoder(...).preprocessing` has it.

    Raises:
        MedsslError: as `open_scan`, and where the files do not fit together or the scan cannot be prepared so.
    """
    from medssl.io import FoundScan, open_scan  # readers are loaded only where scans are opened

    config = validate(PrepareConfig, dict(preprocessing), "The preprocessing")
    given = [scan] if isinstance(scan, str | Path | FoundScan) else list(scan)
    if not given:
        raise ConfigError("No scan was given", expected="one, or each channel's in the encoder's order",
                          remedy="name its file")
    names = tuple(f"channel {number}" for number in range(1, len(given) + 1))
    try:
        scans = {name: open_scan(one, straighten=config.straighten) for name, one in zip(names, given, strict=True)}
    except AmbiguousSeries as error:
        raise AmbiguousSeries(error.what, expected="one", remedy="give one of those that medssl.find_scans finds in "
                              "the folder") from None
    paths = [one.paths if isinstance(one, FoundScan) else (Path(one),) for one in given]
    files = _Opened(scans[names[0]].kind, names, dict(zip(names, paths, strict=True)), scans=scans)
    return decode("", files, config).array.astype(np.float32)


@dataclass(frozen=True)
class _Opened(Files):
    """Files that were opened already."""

    scans: Mapping[str, Scan] = field(default_factory=dict)

    def open(self, role: str, image: Scan | None = None, *, straighten: bool = False) -> Scan:
        return self.scans[role]
