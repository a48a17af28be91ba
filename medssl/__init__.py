"""medssl: label-efficient models from a hospital's unlabelled scans. Cheap to import: torch loads on first use."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from medssl.errors import MedsslError
from medssl.types import Scan

if TYPE_CHECKING:
    from medssl.data.single import prepare_scan
    from medssl.io import find_scans, open_scan
    from medssl.models.weights import load_encoder

__version__ = "0.1.0"
__all__ = ["MedsslError", "Scan", "find_scans", "load_encoder", "open_scan", "prepare_scan"]

_LAZY = {"open_scan": "medssl.io", "find_scans": "medssl.io", "load_encoder": "medssl.models.weights",
         "prepare_scan": "medssl.data.single"}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'medssl' has no attribute {name!r}")
