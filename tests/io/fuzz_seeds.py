"""Small whole scans of every format and encoding, for changing their bytes: a folder each, since some take several
files."""

from __future__ import annotations

from pathlib import Path

import gdcm
import nibabel
import numpy as np
import SimpleITK as sitk
from dicom_masks import positions, write_image, write_segmentation, write_structure_set
from PIL import Image
from pydicom import dcmread, dcmwrite
from pydicom.fileset import FileSet
from test_io_bombs import IDS, write_deflated
from test_io_cine import write_mp4
from test_io_enhanced import place, write_enhanced
from test_io_sector import region
from test_io_sector import write as write_ultrasound

from medssl.io.write import write_avi, write_dicom, write_jpeg, write_nifti, write_png
from medssl.rng import stream

JPEG = {  # name: (transfer syntax, bits, whether it loses nothing)
    "jpeg_baseline": (gdcm.TransferSyntax.JPEGBaselineProcess1, 8, False),
    "jpeg_extended": (gdcm.TransferSyntax.JPEGExtendedProcess2_4, 12, False),
    "jpeg_lossless": (gdcm.TransferSyntax.JPEGLosslessProcess14_1, 16, True),
}


def write_seeds(folder: Path) -> None:
    """A folder of each kind."""
    _dicom_of_one_picture(folder)
    _dicom_of_several(folder)
    _masks(folder)
    _volumes(folder)
    _pictures_and_clips(folder)


def write_jpeg_dicom(path: Path, encoding: str) -> np.ndarray:
    """A grey picture in an encoding of JPEG that pydicom does not write; as it was before."""
    syntax, bits, lossless = JPEG[encoding]
    image = _noise(32, 32, bits=bits)
    write_dicom(path, image, **IDS, bits_stored=bits)
    reader, codec = gdcm.ImageReader(), gdcm.JPEGCodec()
    change, writer = gdcm.ImageChangeTransferSyntax(), gdcm.ImageWriter()
    reader.SetFileName(str(path))
    assert reader.Read()
    codec.SetLossless(lossless)
    change.SetUserCodec(codec)
    change.SetTransferSyntax(gdcm.TransferSyntax(syntax))
    change.SetInput(reader.GetImage())
    assert change.Change()
    writer.SetFileName(str(path))
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    assert writer.Write()
    return image


def _noise(*shape: int, bits: int = 8) -> np.ndarray:
    return stream("test", "fuzz").integers(0, 1 << bits, shape).astype(np.uint8 if bits == 8 else np.uint16)


def _dicom_of_one_picture(folder: Path) -> None:
    for syntax in ("explicit", "rle", "jpeg2000", "jpegls"):
        write_dicom(folder / syntax / "a", _noise(32, 32), **IDS, transfer_syntax=syntax)
    write_deflated(folder / "deflated" / "a", _noise(32, 32))
    for encoding in JPEG:
        write_jpeg_dicom(folder / encoding / "a", encoding)
    write_dicom(folder / "big_endian" / "a", _noise(32, 32), **IDS)
    big = dcmread(folder / "big_endian" / "a")
    big.PixelData, big["PixelData"].VR = _noise(32, 32, bits=12).astype(">u2").tobytes(), "OW"
    big.BitsAllocated, big.BitsStored, big.HighBit = 16, 12, 11
    big.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.2"
    dcmwrite(folder / "big_endian" / "a", big, implicit_vr=False, little_endian=False, force_encoding=True)
    for photometric in ("RGB", "YBR_FULL", "PALETTE COLOR"):
        _colour(folder / photometric / "a", photometric)


def _colour(path: Path, photometric: str) -> None:
    write_dicom(path, _noise(32, 32), **IDS, modality="US")
    data = dcmread(path)
    data.PhotometricInterpretation = photometric
    if photometric == "PALETTE COLOR":
        for colour in ("Red", "Green", "Blue"):
            data.add_new(f"{colour}PaletteColorLookupTableDescriptor", "US", [256, 0, 16])
            data.add_new(f"{colour}PaletteColorLookupTableData", "OW", _noise(256, bits=16).tobytes())
    else:
        data.SamplesPerPixel, data.PlanarConfiguration, data.PixelData = 3, 0, _noise(32, 32, 3).tobytes()
    data.save_as(path)


def _dicom_of_several(folder: Path) -> None:
    asked = {"StudyDate": "20200101", "StudyTime": "120000", "StudyID": "1", "SeriesNumber": 1}  # by a DICOMDIR
    write_image(folder / "series", _noise(3, 16, 16), positions(3), header=asked)
    write_ultrasound(folder / "clip" / "a", _noise(4, 32, 32), region(2, 30, 2, 30))
    for syntax in ("explicit", "rle"):
        (folder / f"enhanced_{syntax}").mkdir()
        groups = [place(2.0 * k) for k in range(3)]
        write_enhanced(folder / f"enhanced_{syntax}" / "a", _noise(3, 16, 16, bits=12), groups, syntax=syntax)
    files = FileSet()
    for path in sorted((folder / "series").iterdir()):
        files.add(path)
    files.write(folder / "dicomdir")


def _masks(folder: Path) -> None:
    at = positions(2)
    corners = [place + 5.0 * np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0]]) for place in at]
    for name in ("segmentation", "structure_set"):
        write_image(folder / name, _noise(2, 16, 16), at)
    write_segmentation(folder / "segmentation" / "a", [(1, place, _noise(16, 16) > 99) for place in at], ["it"])
    write_structure_set(folder / "structure_set" / "a", {"it": corners})


def _volumes(folder: Path) -> None:
    for name in ("a.nii", "a.nii.gz", "a.hdr"):
        write_nifti(folder / name / "a.nii", _noise(3, 16, 16, bits=12), np.diag([1, 2, 3, 1.0]))
    for name in ("a.nii.gz", "a.hdr"):
        _resave(folder / name / "a.nii", folder / name / name)
    volume = sitk.GetImageFromArray(_noise(3, 16, 16))
    for name in ("a.mha", "a.mhd", "a.nrrd", "a.nhdr"):
        (folder / name).mkdir()
        sitk.WriteImage(volume, str(folder / name / name), useCompression=name in ("a.mha", "a.nrrd"))


def _resave(path: Path, other: Path) -> None:
    image = nibabel.load(path)
    nibabel.save(nibabel.Nifti1Pair.from_image(image) if other.suffix == ".hdr" else image, other)
    path.unlink()


def _pictures_and_clips(folder: Path) -> None:
    for bits in (8, 16):
        write_png(folder / f"{bits}.png" / "a.png", _noise(32, 32, bits=bits))
    write_jpeg(folder / "a.jpg" / "a.jpg", _noise(32, 32))
    for compression in ("tiff_lzw", "tiff_deflate", "jpeg", "packbits", "group4"):
        (folder / compression).mkdir()
        picture = Image.fromarray(_noise(32, 32)).convert("1" if compression == "group4" else "L")
        picture.save(folder / compression / "a.tif", compression=compression)
    for codec in ("mjpeg", "ffv1"):
        write_avi(folder / codec / "a.avi", _noise(3, 32, 32), 30, codec)
    (folder / "a.mp4").mkdir()
    write_mp4(folder / "a.mp4" / "a.mp4", _noise(3, 32, 32))
