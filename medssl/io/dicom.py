"""DICOM headers: what a file holds, as one Instance a picture, clip or slice; what is no image is refused by name.

Bytes become attributes in io/header.py and pixels in io/pixels.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from medssl.errors import UnreadableScan
from medssl.io import enhanced, marks, phi, sector
from medssl.io.bounded import opened, parsed
from medssl.io.header import DEFLATED, Attributes, Header, read_header
from medssl.io.inflate import require_whole
from medssl.io.limits import require_room
from medssl.io.voi import window_of
from medssl.types import Kind

GREY = frozenset({"MONOCHROME1", "MONOCHROME2"})
VALUES_ARE_PHYSICAL = frozenset({"CT", "PT"})

_DIRECTORY = "1.2.840.10008.1.3.10"
_META_BYTES = 1 << 16
"""File meta information ends long before."""
_STORAGE = "1.2.840.10008.5.1.4.1.1."
_NO_ACQUISITION = tuple(_STORAGE + root for root in ("481.", "88.", "11.", "66.", "66", "9.", "104.", "68.", "30"))
"""Radiotherapy, reports, presentation states, registrations and segmentations, waveforms, documents, surfaces,
parametric maps (PS3.4, annex B.5)."""
_NO_SCAN = "none needed: it holds no scan"
_NO_MODALITY = frozenset({"SR", "PR", "KO", "SEG", "REG", "DOC", "RTSTRUCT", "RTPLAN", "RTDOSE", "RTRECORD", "RTIMAGE"})
_FRAMES_ARE_TIME = frozenset({"US", "IVUS", "XA", "RF", "ES", "XC"})
_FRAMES_ARE_PLACES = frozenset({"CT", "MR", "PT", "NM", "SM", "MG"})

_ATTRIBUTES = (
    *phi.TAGS, *marks.TAGS, *sector.TAGS, "SOPClassUID", "SOPInstanceUID", "InstanceNumber", "Modality", "PatientID",
    "StudyInstanceUID", "SeriesInstanceUID", "AccessionNumber", "SeriesDescription",
    "Rows", "Columns", "SamplesPerPixel", "PhotometricInterpretation", "NumberOfFrames",
    "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "PixelPaddingValue", "PixelPaddingRangeLimit",
    "PixelSpacing", "ImagerPixelSpacing", "ImagePositionPatient", "ImageOrientationPatient",
    "RescaleSlope", "RescaleIntercept", "ModalityLUTSequence", "WindowCenter", "WindowWidth", "VOILUTFunction",
    "FrameTime", "FrameTimeVector", "CineRate", "RecommendedDisplayFrameRate",
)  # fmt: skip
_READ = tuple(dict.fromkeys((*_ATTRIBUTES, *enhanced.TAGS)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Instance:
    """One picture or clip of a DICOM file: all that the file holds, or one frame of a multi-frame volume.

    frame: which of the file's `frames`, from 0; None for the whole file.
    position, orientation: LPS+ mm, of the patient unless `in_patient` is False; spacing: (j, i) mm.
    sector: the rows and columns of an ultrasound picture that are image (see io/sector.py).
    padding: lowest and highest stored value that stand for no tissue (PixelPaddingValue), of CT and PET alone.
    mirror: where the picture is inverted, value v becomes mirror - v; else None.
    marks: what tells it from others at its place (see io/marks.py).
    """

    path: Path
    syntax: str
    offset: int | None
    frame: int | None
    frames: int
    sop_class: str
    uid: str | None = field(repr=False)
    number: int | None
    modality: str
    patient: str | None = field(repr=False)
    study: str | None = field(repr=False)
    series: str | None
    accession: str | None = field(repr=False)
    description: str | None = field(repr=False)
    rows: int
    columns: int
    sector: sector.Box | None
    photometric: str
    allocated: int
    stored: int
    signed: bool
    padding: tuple[int, int] | None
    spacing: tuple[float, ...] | None
    position: tuple[float, ...] | None
    orientation: tuple[float, ...] | None
    in_patient: bool
    slope: float
    intercept: float
    lut: bool
    mirror: float | None
    frame_time: float | None
    marks: Mapping[str, marks.Mark] = field(repr=False)
    header: Mapping[str, Any]

    @property
    def kind(self) -> Kind:
        return "cine" if self.frames > 1 and self.frame is None else "image"

    @property
    def dtype(self) -> np.dtype:
        """Of the values as stored."""
        return np.dtype(f"{'i' if self.signed else 'u'}{self.allocated // 8}")

    @property
    def unchanged(self) -> bool:
        """Whether values are as stored, so that integers stay integers."""
        return (self.slope, self.intercept) == (1, 0) and not self.lut

    @property
    def placed(self) -> bool:
        """Whether it is known where every pixel lies."""
        return None not in (self.position, self.orientation, self.spacing)


def require_inflatable(path: Path) -> None:
    """UnreadableScan where a deflated file (PS3.5 A.5) is damaged or a bomb: pydicom inflates all of it at once."""
    from pydicom.filereader import read_dataset, read_preamble

    with opened(path) as file:
        if DEFLATED.encode() not in file.read(_META_BYTES):
            return
        file.seek(0)
        read_preamble(file, True)
        read_dataset(file, False, True, stop_when=lambda tag, vr, length: tag >> 16 != 2)
        start = file.tell()
    require_whole(path, start, bare=True)


def read_instances(path: Path) -> list[Instance]:
    """What a DICOM file holds, from its header: one picture or clip, or an Instance for each frame of a volume.

    UnreadableScan, with the reason, where it holds no image that medssl reads.
    """
    header = read_header(path, _READ)
    data, syntax, offset = header.attributes, header.syntax, header.offset
    _refuse(header, header.has_pixels or (syntax == DEFLATED and "PixelData" in parsed(path)))
    pixels = _frames(data) * int(data.get("Rows")) * int(data.get("Columns")) * int(data.get("SamplesPerPixel") or 1)
    require_room(pixels * int(data.get("BitsAllocated")) // 8)
    groups = enhanced.frames_of(data, _ATTRIBUTES)
    if len(groups) > 1:
        frames = [_instance(path, syntax, offset, group, index) for index, group in enumerate(groups)]
        if all(frame.placed for frame in frames):
            if frames[0].photometric not in GREY:
                raise UnreadableScan(f"A volume of {len(frames)} frames in colour", expected="grey slices")
            return frames
        if len({(frame.slope, frame.intercept) for frame in frames}) > 1:
            raise UnreadableScan("A clip whose frames are scaled differently", expected="one slope and intercept")
    _refuse_timeless(data)
    if not groups:
        _refuse_groupless(data)
    return [_instance(path, syntax, offset, groups[0] if groups else data, None)]


def _instance(path: Path, syntax: str, offset: int | None, data: Attributes, frame: int | None) -> Instance:
    slope, intercept = _float(data, "RescaleSlope", 1.0), _float(data, "RescaleIntercept", 0.0)
    if slope == 0 or not np.isfinite([slope, intercept]).all():
        raise UnreadableScan(f"RescaleSlope {slope} with RescaleIntercept {intercept}", expected="a slope other than 0")
    allocated, stored = int(data.get("BitsAllocated")), int(data.get("BitsStored"))
    signed = bool(data.get("PixelRepresentation", 0))
    high = int(data.get("HighBit", stored - 1))
    if high != stored - 1:
        raise UnreadableScan(f"HighBit {high} with BitsStored {stored}", expected="HighBit = BitsStored - 1")
    spacing, spacing_from = _spacing(data)
    photometric, modality = str(data.get("PhotometricInterpretation")), _modality(data)
    ends = (-(1 << stored - 1), (1 << stored - 1) - 1) if signed else (0, (1 << stored) - 1)
    inverted = photometric == "MONOCHROME1" and modality not in VALUES_ARE_PHYSICAL
    mirror = slope * sum(ends) + 2 * intercept if inverted else None
    return Instance(
        path=path,
        syntax=syntax,
        offset=offset,
        frame=frame,
        frames=_frames(data),
        sop_class=_text(data, "SOPClassUID") or "",
        uid=_text(data, "SOPInstanceUID"),
        number=_number(data, "InstanceNumber"),
        modality=modality,
        patient=_text(data, "PatientID"),
        study=_text(data, "StudyInstanceUID"),
        series=_text(data, "SeriesInstanceUID"),
        accession=_text(data, "AccessionNumber"),
        description=_text(data, "SeriesDescription"),
        rows=int(data.get("Rows")),
        columns=int(data.get("Columns")),
        sector=sector.sector_of(data, int(data.get("Rows")), int(data.get("Columns"))),
        photometric=photometric,
        allocated=allocated,
        stored=stored,
        signed=signed,
        padding=_padding(data, allocated, signed) if modality in VALUES_ARE_PHYSICAL else None,
        spacing=spacing,
        position=_floats(data, "ImagePositionPatient", 3),
        orientation=_floats(data, "ImageOrientationPatient", 6),
        in_patient=data.get("in_patient", True),
        slope=slope,
        intercept=intercept,
        lut=bool(data.get("ModalityLUTSequence")),
        mirror=mirror,
        frame_time=_frame_time(data),
        marks=marks.marks_of(data),
        header=phi.header_of(data) | spacing_from | window_of(data, mirror),
    )


def _refuse(header: Header, has_pixels: bool) -> None:
    from pydicom.uid import UID

    data = header.attributes
    sop = str(data.get("SOPClassUID") or header.sop_class)
    if sop == _DIRECTORY:
        raise UnreadableScan("A DICOMDIR, which lists files and holds none", remedy="open the folder around it")
    if sop.startswith(_NO_ACQUISITION) or _modality(data) in _NO_MODALITY:
        name = UID(sop).name  # the number itself where the standard does not know it
        raise UnreadableScan(f"No acquired image: {name if name != sop else _modality(data)}", remedy=_NO_SCAN)
    if not has_pixels:
        raise UnreadableScan("A DICOM file without pixel data", remedy="export it again, if it is to show something")
    for keyword in ("Rows", "Columns", "BitsAllocated", "BitsStored", "PhotometricInterpretation"):
        if not data.get(keyword):
            raise UnreadableScan(f"A DICOM image without {keyword}", remedy="export it again from its source")
    if _modality(data) == "MR" and "MOSAIC" in np.atleast_1d(data.get("ImageType") or "").tolist():
        raise UnreadableScan(
            "A mosaic: the slices of an MR volume tiled in one picture, their places in private fields",
            expected="one slice a picture",
            remedy="convert it with dcm2niix, or export it as enhanced DICOM",
        )


def _refuse_timeless(data: Attributes) -> None:
    """Refuse several frames, of which nothing says where they lie, unless they are known to be times."""
    frames, timed = _frames(data), _modality(data) in _FRAMES_ARE_TIME or _frame_time(data) is not None
    if frames > 1 and (_modality(data) in _FRAMES_ARE_PLACES or not timed):
        raise UnreadableScan(
            f"{frames} {_modality(data)} frames in one file, of which nothing says whether they are slices or times",
            expected="a place for each frame, or a cine clip",
            remedy="export it as single-frame DICOM or as NIfTI",
        )


def _refuse_groupless(data: Attributes) -> None:
    """Refuse an enhanced object without what says where its frames lie and how its values are scaled."""
    from pydicom.uid import UID

    if "Enhanced" in (name := UID(str(data.get("SOPClassUID") or "")).name):
        raise UnreadableScan(
            f"An enhanced multi-frame object ({name}) without its functional groups",
            expected="a functional group for each frame, which places and scales it",
            remedy="export it again, or as single-frame DICOM",
        )


def _modality(data: Attributes) -> str:
    return phi.known_modality(data.get("Modality"))


def _frames(data: Attributes) -> int:
    return int(data.get("NumberOfFrames") or 1)


def _text(data: Attributes, keyword: str) -> str | None:
    return str(data.get(keyword) or "").strip() or None


def _number(data: Attributes, keyword: str) -> int | None:
    try:
        return int(data.get(keyword))
    except (TypeError, ValueError):
        return None


def _float(data: Attributes, keyword: str, default: float) -> float:
    value = data.get(keyword)
    return default if value is None or value == "" else float(value)


def _floats(data: Attributes, keyword: str, count: int) -> tuple[float, ...] | None:
    """`count` finite numbers, or None: a malformed vector is as good as none, and nothing is built on it."""
    value = data.get(keyword)
    try:
        numbers = tuple(float(number) for number in value) if value is not None else ()
    except (TypeError, ValueError):
        return None
    return numbers if len(numbers) == count and np.isfinite(numbers).all() else None


def _spacing(data: Attributes) -> tuple[tuple[float, ...] | None, dict[str, str]]:
    """(j, i) mm: PixelSpacing, else ImagerPixelSpacing, which lies on the detector and so is magnified (PS3.3 10.7)."""
    for keyword in ("PixelSpacing", "ImagerPixelSpacing"):
        spacing = _floats(data, keyword, 2)
        if spacing and min(spacing) > 0:
            return spacing, {"spacing_from": keyword}
    return None, {}


def _padding(data: Attributes, allocated: int, signed: bool) -> tuple[int, int] | None:
    """Lowest and highest padding value as stored (PS3.3 C.7.5.1.1.2); some files write them in the other sign."""
    value = _number(data, "PixelPaddingValue")
    if value is None:
        return None
    limit = _number(data, "PixelPaddingRangeLimit")
    low, high = sorted(
        number % (1 << allocated) - ((1 << allocated) if signed and number % (1 << allocated) >> allocated - 1 else 0)
        for number in (value, value if limit is None else limit)
    )
    return low, high


def _frame_time(data: Attributes) -> float | None:
    """ms between frames: FrameTime, else an even FrameTimeVector, else one of the rates (PS3.3 C.7.6.5)."""
    if (time := _float(data, "FrameTime", 0.0)) > 0:
        return time
    vector = np.asarray(data.get("FrameTimeVector") or (), dtype=np.float64)[1:]
    if len(vector) and vector.min() > 0 and np.ptp(vector) <= 0.01 * vector.mean():
        return float(vector.mean())
    rate = _float(data, "CineRate", 0.0) or _float(data, "RecommendedDisplayFrameRate", 0.0)
    return 1000.0 / rate if rate > 0 else None
