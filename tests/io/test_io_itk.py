"""MetaImage and NRRD: where voxels lie, what becomes a channel, and headers that claim too much or lead elsewhere."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from scipy.spatial.transform import Rotation

from medssl import find_scans, open_scan
from medssl.errors import UnreadableScan

NAMES = ["a.mha", "a.mhd", "a.nrrd", "a.nhdr"]
META = "ObjectType = Image\nNDims = 3\nBinaryData = True\n"
RAW = META + "DimSize = 5 4 3\nElementType = MET_USHORT\nElementDataFile = {}\n"
NRRD = "NRRD0004\ntype: uint16\ndimension: 3\nsizes: 5 4 3\nencoding: raw\nendian: little\n"


def write(path: Path, image: sitk.Image, packed: bool = False) -> Path:
    sitk.WriteImage(image, str(path), useCompression=packed)
    return path


def oblique(volume: np.ndarray, vector: bool = False) -> tuple[sitk.Image, np.ndarray]:
    """A volume (K, J, I), placed in LPS+, and its affine in RAS+, worked out from voxel (i, j, k) and nothing else."""
    turn = Rotation.from_euler("xyz", [30, 10, 170], degrees=True).as_matrix()
    image = sitk.GetImageFromArray(volume, isVector=vector)
    image.SetSpacing((0.5, 0.75, 3))
    image.SetOrigin((-40, 12.5, 7))
    image.SetDirection(turn.ravel())
    corners = [np.array(image.TransformIndexToPhysicalPoint(index)) for index in np.eye(3, dtype=int).tolist()]
    origin = np.array(image.TransformIndexToPhysicalPoint((0, 0, 0)))
    affine = np.eye(4)
    affine[:3] = np.column_stack([corner - origin for corner in corners] + [origin]) * [[-1], [-1], [1]]
    return image, affine


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_a_volume_lies_where_itk_says(tmp_path, noise, name, packed):
    volume = noise(3, 4, 5, dtype=np.int16)
    image, affine = oblique(volume)
    write(tmp_path / name, image, packed)
    (found,) = find_scans(tmp_path)
    assert len(found.paths) == (2 if name in ("a.mhd", "a.nhdr") else 1)
    assert found.kind == "volume"
    for path in (found, *found.paths):  # the voxel file leads to its header
        scan = open_scan(path)
        np.testing.assert_array_equal(scan.array, volume[None])
        assert scan.array.dtype == np.int16
        np.testing.assert_allclose(scan.affine, affine, atol=1e-9)
        assert scan.spacing == pytest.approx((3, 0.75, 0.5))


@pytest.mark.parametrize("name", ["a.mha", "a.nrrd"])
def test_components_and_the_fourth_axis_are_channels(tmp_path, noise, name):
    colours = noise(3, 4, 5, 2, dtype=np.int16)
    image, affine = oblique(colours, vector=True)
    scan = open_scan(write(tmp_path / name, image))
    np.testing.assert_array_equal(scan.array, np.moveaxis(colours, -1, 0))
    np.testing.assert_allclose(scan.affine, affine, atol=1e-9)
    times = noise(2, 3, 4, 5, dtype=np.float32)
    image = sitk.GetImageFromArray(times, isVector=False)
    np.testing.assert_array_equal(open_scan(write(tmp_path / name, image)).array, times)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", ["a.mha", "a.nrrd"])
def test_an_image(tmp_path, noise, name, channels):
    picture = noise(4, 5, channels, bits=8, dtype=np.uint8)
    image = sitk.GetImageFromArray(picture if channels > 1 else picture[..., 0], isVector=channels > 1)
    image.SetSpacing((0.5, 0.75))
    scan = open_scan(write(tmp_path / name, image))
    np.testing.assert_array_equal(scan.array, np.moveaxis(picture, -1, 0))
    assert (scan.kind, scan.spacing, scan.affine) == ("image", (0.75, 0.5), None)


@pytest.mark.parametrize("space", ["right-anterior-superior", "LAS"])
def test_spaces_of_nrrd(tmp_path, noise, space):
    place = f"space: {space}\nspace directions: (2,0,0) (0,3,0) (0,0,4)\nspace origin: (10,20,30)\n\n"
    (tmp_path / "a.nrrd").write_bytes((NRRD + place).encode() + noise(3, 4, 5).tobytes())
    affine = np.array([[2, 0, 0, 10], [0, 3, 0, 20], [0, 0, 4, 30], [0, 0, 0, 1.0]])
    affine[0] *= -1 if space == "LAS" else 1
    np.testing.assert_allclose(open_scan(tmp_path / "a.nrrd").affine, affine)


@pytest.mark.parametrize("header", [RAW.format("LOCAL"), NRRD + "\n"])
def test_what_the_header_does_not_say_is_not_made_up(tmp_path, noise, header):
    volume = noise(3, 4, 5)
    (tmp_path / "a").write_bytes(header.encode() + volume.tobytes())
    scan = open_scan(tmp_path / "a")
    np.testing.assert_array_equal(scan.array[0], volume)
    assert (scan.affine, scan.spacing) == (None, None)


@pytest.mark.parametrize("header", [RAW, NRRD + "data file: {}\n"])
@pytest.mark.parametrize("way", ["up", "absolute", "link"])
def test_voxels_outside_the_folder_are_refused(tmp_path, noise, header, way):
    inner = tmp_path / "inner"
    inner.mkdir()
    outside = tmp_path / "outside.raw"
    outside.write_bytes(noise(3, 4, 5).tobytes())
    (inner / "link.raw").symlink_to(outside)
    name = {"up": "../outside.raw", "absolute": str(outside), "link": "link.raw"}[way]
    (inner / "a.mhd").write_text(header.format(name))
    with pytest.raises(UnreadableScan, match="outside its folder"):
        open_scan(inner / "a.mhd")


@pytest.mark.parametrize(("header", "reason"), [
    (RAW.format("%02d.raw 1 3 1"), "several files"),
    (RAW.format("LIST"), "several files"),
    (NRRD + "data file: LIST\nb.raw\n", "several files"),
    (RAW.format("gone.raw"), "without its voxel file"),
    (RAW.format("LOCAL"), r"ends after 1\d\d of 2\d\d bytes"),
    (NRRD + "\n", r"ends after \d\d of 1\d\d bytes"),
    (RAW.format("LOCAL").replace("5 4 3", "50000 50000 5000"), "GiB"),
    (RAW.format("LOCAL").replace("5 4 3", "5 -4 3"), r"shape \(5, -4, 3\)"),
    (RAW.format("LOCAL").replace("5 4 3", "5 4 x"), "misses its sizes"),
    (RAW.format("LOCAL").replace("USHORT", "NONE"), "misses its sizes"),
    (RAW.format("LOCAL").replace("ElementType", "ElementDataFile: ../x.raw\nElementType"), "gives a field twice"),
    (RAW.format("LOCAL").replace("NDims = 3\n", "NDims = 3\nDimSize = 9 9 9\n"), "gives a field twice"),
    (NRRD.replace("raw", "bzip2") + "\n", "text or bzip2"),
    (RAW.format("LOCAL").replace("True", "False"), "text or bzip2"),
    (NRRD + "#" * (1 << 16) + "\ndata file: ../x.raw\n", "misses its sizes"),
    (RAW.format("LOCAL").replace("DimSize", "CompressedData = 1\nCompressedDataSize = 9999999\nDimSize"),
     r"ends after \d+ of 1\d+ bytes"),
])  # fmt: skip
def test_what_no_header_should_say_is_named(tmp_path, header, reason):
    (tmp_path / "a.mhd").write_text(header)
    with pytest.raises(UnreadableScan, match=reason):
        open_scan(tmp_path / "a.mhd")


@pytest.mark.parametrize("kind", ["meta", "nrrd"])
@pytest.mark.parametrize("spoil", [lambda packed: packed[: len(packed) // 2], lambda packed: packed[:8] + bytes(40)])
def test_a_deflate_stream_that_is_not_whole_is_refused(tmp_path, noise, kind, spoil):
    raw = noise(3, 40, 50).tobytes()
    packed = spoil(zlib.compress(raw) if kind == "meta" else gzip.compress(raw))
    fields = f"CompressedData = True\nCompressedDataSize = {len(packed)}\nDimSize"
    header = {"meta": RAW.format("LOCAL").replace("DimSize", fields), "nrrd": NRRD.replace("raw", "gzip") + "\n"}[kind]
    (tmp_path / "a").write_bytes(header.replace("5 4 3", "50 40 3").encode() + packed)
    with pytest.raises(UnreadableScan, match="cut off or damaged"):
        open_scan(tmp_path / "a")


def test_complex_numbers_are_refused(tmp_path):
    write(tmp_path / "a.nrrd", sitk.Image((5, 4, 3), sitk.sitkComplexFloat32))
    with pytest.raises(UnreadableScan, match="complex|2 channels"):
        open_scan(tmp_path / "a.nrrd")
