"""Bytes to Scan: DICOM, NIfTI, PNG, JPEG, TIFF, AVI and MP4, told apart by content."""

from medssl.io.found import FoundScan, SkippedFile
from medssl.io.open import find_scans, open_scan

__all__ = ["FoundScan", "SkippedFile", "find_scans", "open_scan"]
