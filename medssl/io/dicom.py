"""DICOM: one file's header as an Instance, its pixels, and the images and clips that a single file holds.

A file is opened for its header once, with the few attributes that count, and for its pixels once. Plain little-endian
pixels are read straight from their offset; everything else goes through pydicom's pipeline and its plugins.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from medssl.errors import UnreadableScan
from medssl.io.intensity import invert, rescale
from medssl.io.phi import TAGS, code, header_of
from medssl.types import Kind, Scan

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

CUT = "copy it again from its source"
_DIRECTORY = "1.2.840.10008.1.3.10"
_JPEG_EXTENDED = "1.2.840.10008.1.2.4.51"
_DEFLATED = "1.2.840.10008.1.2.1.99"
_NATIVE_LITTLE_ENDIAN = {"1.2.840.10008.1.2": 8, "1.2.840.10008.1.2.1": 12}  # bytes from PixelData's tag to its value
_STORAGE = "1.2.840.10008.5.1.4.1.1."
_NO_ACQUISITION = tuple(_STORAGE + root for root in ("481.", "88.", "11.", "66.", "66", "9.", "104.", "68.", "30"))
"""Radiotherapy, reports, presentation states, registrations and segmentations, waveforms, documents, surfaces,
parametric maps (PS3.4, annex B.5)."""
_ENHANCED = tuple(
    _STORAGE + root for root in ("2.1", "2.2", "4.1", "4.3", "4.4", "128.1", "130", "6.2", "12.1.1", "12.2.1")
)
_NO_MODALITY = frozenset({"SR", "PR", "KO", "SEG", "REG", "DOC", "RTSTRUCT", "RTPLAN", "RTDOSE", "RTRECORD", "RTIMAGE"})
_PLUGINS = ("", "pylibjpeg", "pyjpegls", "pillow", "pydicom", "gdcm")
"""pydicom's decoders, the preferred first and no second try: on damaged JPEG, GDCM aborts the whole process."""
_FRAMES_ARE_TIME = frozenset({"US", "IVUS", "XA", "RF", "ES", "XC"})
_FRAMES_ARE_PLACES = frozenset({"CT", "MR", "PT", "NM", "SM", "MG"})
_VALUES_ARE_PHYSICAL = frozenset({"CT", "PT"})

_READ = (
    *TAGS, "SOPClassUID", "Modality", "PatientID", "StudyInstanceUID", "SeriesInstanceUID",
    "AccessionNumber", "SeriesDescription",
    "Rows", "Columns", "PhotometricInterpretation", "NumberOfFrames",
    "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation",
    "PixelSpacing", "ImagerPixelSpacing", "ImagePositionPatient", "ImageOrientationPatient",
    "RescaleSlope", "RescaleIntercept", "ModalityLUTSequence", "WindowCenter", "WindowWidth", "VOILUTFunction",
    "FrameTime", "FrameTimeVector", "CineRate", "RecommendedDisplayFrameRate",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Instance:
    """What one DICOM file says of its image. Positions and orientations are LPS+ mm, spacing is (j, i) mm."""

    path: Path
    syntax: str
    offset: int | None
    modality: str
    patient: str | None = field(repr=False)
    study: str | None = field(repr=False)
    series: str | None
    accession: str | None = field(repr=False)
    description: str | None = field(repr=False)
    frames: int
    rows: int
    columns: int
    photometric: str
    inverted: bool
    allocated: int
    stored: int
    signed: bool
    spacing: tuple[float, ...] | None
    position: tuple[float, ...] | None
    orientation: tuple[float, ...] | None
    slope: float
    intercept: float
    lut: bool
    frame_time: float | None
    header: Mapping[str, Any]

    @property
    def kind(self) -> Kind:
        return "cine" if self.frames > 1 else "image"

    @property
    def unchanged(self) -> bool:
        """Whether values are as stored, so that integers stay integers."""
        return (self.slope, self.intercept) == (1, 0) and not self.lut


def read_instance(path: Path) -> Instance:
    """The header of one DICOM file; UnreadableScan, with the reason, where it holds no image that medssl reads."""
    from pydicom import dcmread

    with open(path, "rb") as file:
        data = dcmread(file, force=True, stop_before_pixels=True, specific_tags=list(_READ))
        syntax = _syntax(data)
        offset, has_pixels = _pixels_ahead(file, syntax)
    _refuse(data, has_pixels or (syntax == _DEFLATED and "PixelData" in dcmread(path, force=True)))
    slope, intercept = _float(data, "RescaleSlope", 1.0), _float(data, "RescaleIntercept", 0.0)
    if slope == 0 or not np.isfinite([slope, intercept]).all():
        raise UnreadableScan(f"RescaleSlope {slope} with RescaleIntercept {intercept}", expected="a slope other than 0")
    stored, signed = int(data.BitsStored), bool(data.get("PixelRepresentation", 0))
    if int(data.get("HighBit", stored - 1)) != stored - 1:
        raise UnreadableScan(f"HighBit {data.HighBit} with BitsStored {stored}", expected="HighBit = BitsStored - 1")
    spacing, spacing_from = _spacing(data)
    photometric, modality = str(data.PhotometricInterpretation), _modality(data)
    inverted = photometric == "MONOCHROME1" and modality not in _VALUES_ARE_PHYSICAL
    low, high = (-(1 << stored - 1), (1 << stored - 1) - 1) if signed else (0, (1 << stored) - 1)
    mirror = slope * (low + high) + 2 * intercept if inverted else None
    return Instance(
        path, syntax, offset, modality, _text(data, "PatientID"), _text(data, "StudyInstanceUID"),
        _text(data, "SeriesInstanceUID"), _text(data, "AccessionNumber"), _text(data, "SeriesDescription"),
        _frames(data), int(data.Rows), int(data.Columns),
        photometric, inverted, int(data.BitsAllocated), stored, signed, spacing,
        _floats(data, "ImagePositionPatient", 3), _floats(data, "ImageOrientationPatient", 6), slope, intercept,
        bool(data.get("ModalityLUTSequence")), _frame_time(data),
        header_of(data) | spacing_from | _window(data, mirror),
    )  # fmt: skip


def read_instance_scan(instance: Instance) -> Scan:
    """A single file as an image (C, J, I) or a cine (C, T, J, I). A slice on its own is an image: it has no k axis."""
    array = values(instance)
    grey = array.ndim == 2 + (instance.kind == "cine")
    return Scan(
        np.ascontiguousarray(array[None] if grey else array),
        instance.kind,
        instance.modality,
        spacing=instance.spacing,
        frame_time=instance.frame_time if instance.kind == "cine" else None,
        header=instance.header,
    )


def values(instance: Instance) -> np.ndarray:
    """(J, I), (T, J, I), or with colour (3, J, I), (3, T, J, I): after inversion and the modality LUT (PS3.3 C.11.1).

    MONOCHROME1 is inverted, except in CT and PET, whose values are physical and whose photometric only says how to
    show them. YBR and palettes become RGB. Integers stay as stored unless rescaled, then float32.
    """
    grey = instance.photometric in ("MONOCHROME1", "MONOCHROME2")
    if instance.offset is not None and grey and instance.allocated in (8, 16) and not instance.lut:
        stored, data = _plain(instance), None
    else:
        stored, data = _decoded(instance)
    if not grey:
        return np.moveaxis(stored, -1, 0)
    if instance.inverted:
        stored = invert(stored, instance.stored, instance.signed)
    if instance.lut:
        from pydicom.pixels import apply_modality_lut

        return apply_modality_lut(stored, data).astype(np.float32)
    return rescale(stored, instance.slope, instance.intercept)


def _plain(instance: Instance) -> np.ndarray:
    shape = (instance.frames, instance.rows, instance.columns)
    count = int(np.prod(shape, dtype=np.int64))
    dtype = np.dtype(f"<{'i' if instance.signed else 'u'}{instance.allocated // 8}")
    stored = np.fromfile(instance.path, dtype, count, offset=instance.offset)
    if stored.size < count:
        raise UnreadableScan(
            f"The pixel data end after {stored.size} of {count} values",
            expected="a whole file",
            remedy=CUT,
        )
    if unused := instance.allocated - instance.stored:  # they may hold an overlay: shift them out, keep the sign
        stored <<= unused
        stored >>= unused
    return stored.reshape(shape if instance.frames > 1 else shape[1:]).astype(dtype.newbyteorder("="), copy=False)


def _decoded(instance: Instance) -> tuple[np.ndarray, Dataset]:
    from pydicom import dcmread
    from pydicom.dataset import FileMetaDataset
    from pydicom.pixels import apply_color_lut, get_decoder, pixel_array
    from pydicom.uid import UID

    syntax = UID(instance.syntax)
    if syntax == _JPEG_EXTENDED and instance.stored > 8:
        raise UnreadableScan(
            f"Lossy JPEG of {instance.stored} bits, which no installed decoder reads",
            expected="up to 8 bits in lossy JPEG",
            remedy="decompress the files, e.g. with DCMTK's dcmdjpeg",
        )
    plugins = get_decoder(syntax).available_plugins if syntax.is_encapsulated else ("",)
    if not plugins:
        raise UnreadableScan(
            f"No decoder for {syntax.name} is installed",
            expected="one of pydicom's plugins for it",
            remedy="install pylibjpeg with pylibjpeg-openjpeg, or decompress the files",
        )
    data = dcmread(instance.path, force=True)
    if "PixelData" not in data:
        raise UnreadableScan("The pixel data are cut off", expected="a whole file", remedy=CUT)
    data.file_meta = getattr(data, "file_meta", None) or FileMetaDataset()
    data.file_meta.TransferSyntaxUID = syntax
    stored = pixel_array(data, decoding_plugin=min(plugins, key=_PLUGINS.index))
    if instance.photometric == "PALETTE COLOR":
        stored = apply_color_lut(stored, data)
    return stored.astype(stored.dtype.newbyteorder("="), copy=False), data


def _syntax(data: Dataset) -> str:
    """The transfer syntax as named in the file meta information, or as pydicom found the dataset to be encoded."""
    named = getattr(data, "file_meta", {}).get("TransferSyntaxUID")
    if named:
        return str(named)
    implicit, little = data.original_encoding
    return "1.2.840.10008.1.2" + ("" if implicit else ".1" if little else ".2")


def _pixels_ahead(file: BinaryIO, syntax: str) -> tuple[int | None, bool]:
    """Where plain pixels begin, or None; and whether PixelData is the next element at all."""
    at, tag = file.tell(), file.read(4)
    if tag not in (b"\xe0\x7f\x10\x00", b"\x7f\xe0\x00\x10"):
        return None, False
    skip = _NATIVE_LITTLE_ENDIAN.get(syntax)
    length = file.read(skip - 4)[-4:] if skip else b""
    return (at + skip if skip and length != b"\xff\xff\xff\xff" else None), True


def _refuse(data: Dataset, has_pixels: bool) -> None:
    from pydicom.uid import UID

    meta = getattr(data, "file_meta", {})
    sop = str(data.get("SOPClassUID") or meta.get("MediaStorageSOPClassUID") or "")
    if sop == _DIRECTORY:
        raise UnreadableScan("A DICOMDIR, which lists files and holds none", remedy="open the folder around it")
    if sop.startswith(_NO_ACQUISITION) or _modality(data) in _NO_MODALITY:
        name = UID(sop).name  # the number itself where the standard does not know it
        raise UnreadableScan(f"No acquired image: {name if name != sop else _modality(data)}")
    if not has_pixels:
        raise UnreadableScan("A DICOM file without pixel data")
    for keyword in ("Rows", "Columns", "BitsAllocated", "BitsStored", "PhotometricInterpretation"):
        if not data.get(keyword):
            raise UnreadableScan(f"A DICOM image without {keyword}")
    frames = _frames(data)
    if sop in _ENHANCED:
        raise UnreadableScan(
            "An enhanced multi-frame object, whose geometry lies in functional groups",
            expected="one slice a file, or a cine clip",
            remedy="export it as classic single-frame DICOM or as NIfTI",
        )
    timed = _modality(data) in _FRAMES_ARE_TIME or _frame_time(data) is not None
    if frames > 1 and (_modality(data) in _FRAMES_ARE_PLACES or not timed):
        raise UnreadableScan(
            f"{frames} {_modality(data)} frames in one file, of which nothing says whether they are slices or times",
            expected="one slice a file, or a cine clip",
            remedy="export it as single-frame DICOM or as NIfTI",
        )


def _modality(data: Dataset) -> str:
    return code(data.get("Modality") or "OT") or "OT"


def _frames(data: Dataset) -> int:
    return int(data.get("NumberOfFrames") or 1)


def _text(data: Dataset, keyword: str) -> str | None:
    return str(data.get(keyword) or "").strip() or None


def _float(data: Dataset, keyword: str, default: float) -> float:
    value = data.get(keyword)
    return default if value is None or value == "" else float(value)


def _floats(data: Dataset, keyword: str, count: int) -> tuple[float, ...] | None:
    """`count` finite numbers, or None: a malformed vector is as good as none, and nothing is built on it."""
    value = data.get(keyword)
    try:
        numbers = tuple(float(number) for number in value) if value is not None else ()
    except (TypeError, ValueError):
        return None
    return numbers if len(numbers) == count and np.isfinite(numbers).all() else None


def _spacing(data: Dataset) -> tuple[tuple[float, ...] | None, dict[str, str]]:
    """(j, i) mm: PixelSpacing, else ImagerPixelSpacing, which lies on the detector and so is magnified (PS3.3 10.7)."""
    for keyword in ("PixelSpacing", "ImagerPixelSpacing"):
        spacing = _floats(data, keyword, 2)
        if spacing and min(spacing) > 0:
            return spacing, {"spacing_from": keyword}
    return None, {}


def _window(data: Dataset, mirror: float | None) -> dict[str, tuple[float, float, str]]:
    """The first VOI window (PS3.3 C.11.2), for the values as returned; inversion turns v into `mirror` - v."""
    function = str(data.get("VOILUTFunction") or "LINEAR")
    try:
        center, width = (float(np.atleast_1d(data.get(key))[0]) for key in ("WindowCenter", "WindowWidth"))
    except (TypeError, ValueError, IndexError):
        return {}
    if function not in ("LINEAR", "LINEAR_EXACT", "SIGMOID") or not (width >= 1 if function == "LINEAR" else width > 0):
        return {}
    if mirror is not None:  # LINEAR is symmetric about center - 0.5, the others about center
        center = mirror - center + (function == "LINEAR")
    return {"window": (center, width, function)}


def _frame_time(data: Dataset) -> float | None:
    """ms between frames: FrameTime, else an even FrameTimeVector, else one of the rates (PS3.3 C.7.6.5)."""
    if (time := _float(data, "FrameTime", 0.0)) > 0:
        return time
    vector = np.asarray(data.get("FrameTimeVector") or (), dtype=np.float64)[1:]
    if len(vector) and vector.min() > 0 and np.ptp(vector) <= 0.01 * vector.mean():
        return float(vector.mean())
    rate = _float(data, "CineRate", 0.0) or _float(data, "RecommendedDisplayFrameRate", 0.0)
    return 1000.0 / rate if rate > 0 else None
