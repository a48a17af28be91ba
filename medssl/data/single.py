"""One case prepared by itself, of no manifest and into no cache: for a notebook."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from medssl.config import validate
from medssl.data.decode import PrepareConfig, decode
from medssl.data.files import Files
from medssl.types import Scan


def prepare_scan(scan: str | Path | Sequence[str | Path], preprocessing: Mapping[str, Any]) -> np.ndarray:
    """A case as an encoder's own cases were prepared: (C, *S) float32, with its colours, size and grey values.

    Args:
        scan: a file, or a folder that holds one scan; or several, the channels in the encoder's order.
        preprocessing: as `load_encoder(...).preprocessing` has it.

    Raises:
        MedsslError: as `open_scan`, and where the files do not fit together or the scan cannot be prepared so.
    """
    from medssl.io import open_scan  # readers are loaded only where scans are opened

    config = validate(PrepareConfig, dict(preprocessing), "The preprocessing")
    paths = [Path(one) for one in ([scan] if isinstance(scan, str | Path) else scan)]
    names = tuple(f"channel {number}" for number in range(1, len(paths) + 1))
    scans = {name: open_scan(path, straighten=config.straighten) for name, path in zip(names, paths, strict=True)}
    files = _Opened(scans[names[0]].kind, names, {name: (path,) for name, path in zip(names, paths, strict=True)},
                    scans=scans)
    return decode("", files, config).array.astype(np.float32)


@dataclass(frozen=True)
class _Opened(Files):
    """Files that were opened already."""

    scans: Mapping[str, Scan] = field(default_factory=dict)

    def open(self, role: str, image: Scan | None = None, *, straighten: bool = False) -> Scan:
        return self.scans[role]
