"""Writers of the formats that medssl reads: for phantoms, drawn masks, and tests that read back what was written.

Nothing here reads a clock or draws an id, so the same call writes the same bytes.
"""

from __future__ import annotations

import gzip
from collections.abc import Mapping, Sequence
from fractions import Fraction
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

Codec = Literal["mjpeg", "ffv1"]
Photometric = Literal["MONOCHROME1", "MONOCHROME2"]
Syntax = Literal["explicit", "rle", "jpeg2000", "jpegls"]

COMPRESSED: dict[str, str] = {
    "rle": "1.2.840.10008.1.2.5",
    "jpeg2000": "1.2.840.10008.1.2.4.90",
    "jpegls": "1.2.840.10008.1.2.4.80",
}
"""The lossless transfer syntaxes offered beside the uncompressed one (DICOM PS3.5, annex A)."""

SOP_CLASSES: dict[str, str] = {
    "CR": "1.2.840.10008.5.1.4.1.1.1",
    "DX": "1.2.840.10008.5.1.4.1.1.1.1",
    "CT": "1.2.840.10008.5.1.4.1.1.2",
    "MR": "1.2.840.10008.5.1.4.1.1.4",
    "US": "1.2.840.10008.5.1.4.1.1.6.1",
}
"""Storage SOP class by modality (DICOM PS3.4, annex B.5)."""


def write_png(path: str | Path, image: np.ndarray) -> None:
    """Write a grey image (J, I), uint8 or uint16, losslessly."""
    from PIL import Image

    _expect(image, 2, (np.uint8, np.uint16))
    Image.fromarray(np.ascontiguousarray(image)).save(_ready(path), format="PNG")


def png_bytes(image: np.ndarray, orientation: int = 1) -> bytes:
    """A grey image (J, I) uint8 as the content of a PNG file.

    orientation: of EXIF's, 1 to 8: the pixels are stored so, and the file says it, that they show the image when they
    are turned.
    """
    from PIL import Image, ImageOps

    from medssl.io.raster import ORIENTATION

    _expect(image, 2, (np.uint8,))
    picture, exif, content = Image.fromarray(np.ascontiguousarray(image)), Image.Exif(), BytesIO()
    if orientation != 1:
        picture.getexif()[ORIENTATION] = {6: 8, 8: 6}.get(orientation, orientation)  # the turn that undoes it
        picture, exif[ORIENTATION] = ImageOps.exif_transpose(picture), orientation
    picture.save(content, format="PNG", exif=exif)
    return content.getvalue()


def write_jpeg(path: str | Path, image: np.ndarray, quality: int = 95) -> None:
    """Write a grey image (J, I) uint8 as baseline JPEG."""
    from PIL import Image

    _expect(image, 2, (np.uint8,))
    Image.fromarray(np.ascontiguousarray(image)).save(_ready(path), format="JPEG", quality=quality)


def write_nifti(path: str | Path, array: np.ndarray, affine: np.ndarray) -> None:
    """Write a volume (K, J, I), or channels of one (C, K, J, I), as NIfTI-1 (I, J, K[, C]) in the array's own dtype.

    Args:
        path: ends in .nii or .nii.gz.
        affine: (4, 4), takes (i, j, k, 1) to RAS+ mm; stored as the sform.
    """
    import nibabel

    if array.ndim not in (3, 4):
        raise ValueError(f"write_nifti takes (K, J, I) or (C, K, J, I), not {array.shape}")
    image = nibabel.Nifti1Image(array.T, np.asarray(affine, dtype=np.float64))
    image.header.set_xyzt_units("mm")
    nibabel.save(image, _ready(path))


def nifti_bytes(array: np.ndarray, affine: np.ndarray | None, spacing: Sequence[float] | None) -> bytes:
    """A volume (K, J, I) as the content of a .nii.gz file.

    Args:
        affine: as of `write_nifti`; None where it is not known, which the file then says.
        spacing: mm (k, j, i); of a file without affine the only thing that is told.
    """
    import nibabel

    image = nibabel.Nifti1Image(array.T, affine)
    image.header.set_xyzt_units("mm")
    if affine is None and spacing is not None:
        image.header.set_zooms(spacing[::-1])
    return gzip.compress(image.to_bytes(), compresslevel=6, mtime=0)


def write_dicom(
    path: str | Path,
    image: np.ndarray,
    *,
    patient_id: str,
    study_uid: str,
    series_uid: str,
    instance_uid: str,
    modality: str = "DX",
    photometric: Photometric = "MONOCHROME2",
    bits_stored: int = 12,
    spacing: Sequence[float] | None = None,
    transfer_syntax: Syntax = "explicit",
    position: Sequence[float] | None = None,
    orientation: Sequence[float] | None = None,
    instance_number: int = 1,
    header: Mapping[str, Any] | None = None,
) -> None:
    """Write one grey image as a DICOM file with an empty patient name and no dates.

    Args:
        image: (J, I) uint8, uint16 or int16, stored values, within `bits_stored` bits.
        bits_stored: at most the dtype's own; 8 for uint8 whatever is said here.
        spacing: mm, (row, column); stored as ImagerPixelSpacing for CR and DX (PS3.3 C.8.11.3), else PixelSpacing.
        position: (x, y, z) of the first voxel's centre, mm, DICOM's own LPS+ axes (PS3.3 C.7.6.2.1.1).
        orientation: direction cosines of increasing column, then of increasing row, LPS+.
        transfer_syntax: jpeg2000 takes images of at least 32 rows and columns.
        header: further attributes by DICOM keyword; they override what this function sets.
    """
    from pydicom.datadict import tag_for_keyword
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian

    _expect(image, 2, (np.uint8, np.uint16, np.int16))
    bits = min(bits_stored, 8 * image.dtype.itemsize)
    _expect_bits(image, bits)
    data = Dataset()
    data.SOPClassUID, data.SOPInstanceUID = SOP_CLASSES[modality], instance_uid
    data.StudyInstanceUID, data.SeriesInstanceUID, data.InstanceNumber = study_uid, series_uid, instance_number
    data.PatientID, data.PatientName, data.Modality = patient_id, "", modality
    data.Rows, data.Columns = image.shape
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, photometric
    data.BitsAllocated, data.BitsStored, data.HighBit = 8 * image.dtype.itemsize, bits, bits - 1
    data.PixelRepresentation = int(image.dtype.kind == "i")
    if modality == "CT":
        data.RescaleIntercept, data.RescaleSlope = 0, 1
    if spacing is not None:
        keyword = "ImagerPixelSpacing" if modality in ("CR", "DX") else "PixelSpacing"
        setattr(data, keyword, _decimal(spacing))
    if position is not None:
        data.ImagePositionPatient = _decimal(position)
    if orientation is not None:
        data.ImageOrientationPatient = _decimal(orientation)
    for keyword, value in (header or {}).items():
        if tag_for_keyword(keyword) is None:
            raise ValueError(f"{keyword!r} is not a DICOM keyword")
        setattr(data, keyword, value)
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.PixelData = image.astype(image.dtype.newbyteorder("<")).tobytes() + b"\0" * (image.nbytes % 2)
    data["PixelData"].VR = "OB" if image.dtype == np.uint8 else "OW"
    if transfer_syntax != "explicit":
        _compress(data, image, transfer_syntax)
    data.save_as(_ready(path), enforce_file_format=True)


def write_avi(path: str | Path, clip: np.ndarray, fps: float, codec: Codec = "mjpeg") -> None:
    """Write a grey clip (T, J, I) uint8: `mjpeg` as EchoNet-Dynamic has it (lossy, even sizes), `ffv1` lossless."""
    import av

    _expect(clip, 3, (np.uint8,))
    with av.open(str(_ready(path)), "w", format="avi") as container:
        stream = container.add_stream(codec, rate=Fraction(fps).limit_denominator(1001))
        stream.height, stream.width = clip.shape[1:]
        stream.pix_fmt = "gray" if codec == "ffv1" else "yuvj420p"
        if codec == "mjpeg":
            stream.options = {"qmin": "2", "qmax": "2"}
        for frame in clip:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="gray")))
        container.mux(stream.encode())


def _compress(data: Dataset, image: np.ndarray, transfer_syntax: Syntax) -> None:
    """Name the encoder: left to choose, pydicom takes GDCM for RLE, which aborts the whole process on odd sizes."""
    from openjpeg.utils import encode_array
    from pydicom.encaps import encapsulate
    from pydicom.uid import UID

    uid = UID(COMPRESSED[transfer_syntax])
    if transfer_syntax != "jpeg2000":
        plugin = {"rle": "pydicom", "jpegls": "pyjpegls"}[transfer_syntax]
        data.compress(uid, image, encoding_plugin=plugin, generate_instance_uid=False)
        return
    data.PixelData = encapsulate([encode_array(image, bits_stored=data.BitsStored, photometric_interpretation=2)])
    data["PixelData"].VR = "OB"
    data["PixelData"].is_undefined_length = True
    data.file_meta.TransferSyntaxUID = uid


def _ready(path: str | Path) -> Path:
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def _decimal(numbers: Sequence[float]) -> list[str]:
    """Numbers as DICOM decimal strings: at most 16 characters each (PS3.5, 6.2)."""
    from pydicom.valuerep import format_number_as_ds

    return [format_number_as_ds(float(number)) for number in numbers]


def _expect(array: np.ndarray, ndim: int, dtypes: tuple[type, ...]) -> None:
    if array.ndim != ndim or array.dtype.type not in dtypes:
        names = " or ".join(dtype.__name__ for dtype in dtypes)
        raise ValueError(f"expected {ndim} axes of {names}, not {array.shape} of {array.dtype}")


def _expect_bits(image: np.ndarray, bits: int) -> None:
    low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if image.dtype.kind == "i" else (0, (1 << bits) - 1)
    if image.size and (image.min() < low or image.max() > high):
        raise ValueError(f"values {image.min()}..{image.max()} do not fit into {bits} bits ({low}..{high})")
