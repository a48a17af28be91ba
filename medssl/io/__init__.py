"""Bytes to Scan: DICOM, NIfTI, MetaImage, NRRD, PNG, JPEG, TIFF, AVI and MP4, told apart by content."""

from medssl.io.found import FoundMask, FoundScan, SkippedFile
from medssl.io.open import find_mask, find_scans, frame_of_reference, is_dicom, open_mask, open_scan

__all__ = ["FoundMask", "FoundScan", "SkippedFile", "find_mask", "find_scans", "frame_of_reference", "is_dicom",
           "open_mask", "open_scan"]
