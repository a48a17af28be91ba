"""NIfTI, images and clips: exact where the format is lossless, within a stated tolerance where it is not."""

from __future__ import annotations

import gzip
from pathlib import Path

import nibabel
import numpy as np
import pytest
from PIL import Image
from scipy.spatial.transform import Rotation

from medssl import open_scan
from medssl.errors import GeometryError, UnreadableScan
from medssl.io.geometry import canonical, same_grid, to_canonical
from medssl.io.write import write_avi, write_jpeg, write_nifti, write_png
from medssl.types import Scan


def oblique_affine() -> np.ndarray:
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_euler("xyz", [95, 10, 170], degrees=True).as_matrix() * [0.5, 0.75, 3.0]
    affine[:3, 3] = [-40.0, 12.5, 7.0]
    return affine


def smooth(*shape: int) -> np.ndarray:
    """A picture without hard edges, uint8, so that lossy codecs are judged on what they are made for."""
    wave = sum(np.sin(np.arange(n).reshape([-1 if a == b else 1 for b in range(len(shape))]) / 6 + a)
               for a, n in enumerate(shape))  # fmt: skip
    return (127 + 40 * wave).astype(np.uint8)


@pytest.mark.parametrize("suffix", ["nii", "nii.gz"])
@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.float32])
def test_nifti_keeps_voxels_and_oblique_geometry(tmp_path, noise, suffix, dtype):
    volume = noise(5, 6, 7, bits=8).astype(dtype)
    path = tmp_path / f"a.{suffix}"
    write_nifti(path, volume, oblique_affine())
    scan = open_scan(path)
    assert (scan.kind, scan.array.dtype, scan.header["affine_from"]) == ("volume", dtype, "sform")
    assert scan.array.flags.c_contiguous
    np.testing.assert_array_equal(scan.array, volume[None])
    np.testing.assert_allclose(scan.affine, oblique_affine(), atol=1e-5)
    np.testing.assert_allclose(scan.spacing, (3.0, 0.75, 0.5), rtol=1e-6)
    np.testing.assert_array_equal(np.asarray(nibabel.load(path).dataobj), volume.T)


def test_the_fourth_axis_becomes_channels(tmp_path, noise):
    channels = noise(3, 4, 5, 6)
    write_nifti(tmp_path / "a.nii.gz", channels, oblique_affine())
    np.testing.assert_array_equal(open_scan(tmp_path / "a.nii.gz").array, channels)


@pytest.mark.parametrize(("slope", "expected"), [(0.0, 1.0), (np.nan, 1.0), (0.25, 0.25)])
def test_scaling_of_zero_or_nan_means_none(tmp_path, noise, slope, expected):
    volume = noise(3, 4, 5, dtype=np.int16)
    write_nifti(tmp_path / "a.nii", volume, np.eye(4))
    raw = bytearray((tmp_path / "a.nii").read_bytes())
    raw[112:120] = np.array([slope, 0 if expected == 1 else 10], "<f4").tobytes()
    (tmp_path / "a.nii").write_bytes(raw)
    scan = open_scan(tmp_path / "a.nii")
    assert scan.array.dtype == (np.int16 if expected == 1 else np.float32)
    np.testing.assert_array_equal(scan.array[0], volume if expected == 1 else volume * 0.25 + 10)


def test_qform_serves_where_there_is_no_sform_and_nothing_is_invented(tmp_path, noise):
    image = nibabel.Nifti1Image(noise(3, 4, 5).T, None)
    image.set_qform(oblique_affine(), code=1)
    image.set_sform(None, code=0)
    nibabel.save(image, tmp_path / "q.nii")
    scan = open_scan(tmp_path / "q.nii")
    assert scan.header["affine_from"] == "qform"
    np.testing.assert_allclose(scan.affine, oblique_affine(), atol=1e-4)
    image.set_qform(None, code=0)
    image.header.set_zooms((0.5, 0.75, 3.0))
    nibabel.save(image, tmp_path / "none.nii")
    scan = open_scan(tmp_path / "none.nii")
    assert (scan.affine, scan.header["affine_from"], scan.spacing) == (None, "none", (3.0, 0.75, 0.5))


def test_a_flat_affine_is_an_error(tmp_path, noise):
    write_nifti(tmp_path / "a.nii", noise(3, 4, 5), np.eye(4))
    raw = bytearray((tmp_path / "a.nii").read_bytes())
    raw[280:296] = bytes(16)  # srow_x
    (tmp_path / "a.nii").write_bytes(raw)
    with pytest.raises(GeometryError, match="sform"):
        open_scan(tmp_path / "a.nii")


def test_nifti2_big_endian_pairs_and_colours(tmp_path, noise):
    volume = noise(3, 4, 5)
    nibabel.save(nibabel.Nifti2Image(volume.T, np.eye(4)), tmp_path / "two.nii.gz")
    big = nibabel.Nifti1Header(endianness=">")
    big.set_data_dtype(">u2")
    nibabel.save(nibabel.Nifti1Image(volume.T, np.eye(4), header=big), tmp_path / "big.nii")
    nibabel.save(nibabel.Nifti1Pair(volume.T, np.eye(4)), tmp_path / "pair.hdr")
    for name in ("two.nii.gz", "big.nii", "pair.hdr", "pair.img"):
        scan = open_scan(tmp_path / name)
        np.testing.assert_array_equal(scan.array[0], volume)
        assert scan.array.dtype.isnative
    rgb = noise(2, 3, 4, 3, bits=8, dtype=np.uint8)
    fields = np.ascontiguousarray(rgb).view([("R", "u1"), ("G", "u1"), ("B", "u1")])[..., 0]
    nibabel.save(nibabel.Nifti1Image(fields.T, np.eye(4)), tmp_path / "rgb.nii")
    np.testing.assert_array_equal(open_scan(tmp_path / "rgb.nii").array, np.moveaxis(rgb, -1, 0))


@pytest.mark.parametrize("keep", [0.05, 0.5, 0.99])
def test_a_cut_nifti_is_unreadable(tmp_path, noise, keep):
    volume = noise(6, 20, 20)
    for name in ("a.nii.gz", "a.nii"):
        write_nifti(tmp_path / name, volume, np.eye(4))
        raw = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(raw[: int(keep * len(raw))])
        with pytest.raises(UnreadableScan, match="cut off|ends after|damaged"):
            open_scan(tmp_path / name)


def test_a_damaged_gzip_is_unreadable(tmp_path, noise):
    write_nifti(tmp_path / "a.nii.gz", noise(6, 20, 20), np.eye(4))
    raw = bytearray((tmp_path / "a.nii.gz").read_bytes())
    raw[len(raw) // 2] ^= 0xFF
    (tmp_path / "a.nii.gz").write_bytes(raw)
    with pytest.raises(UnreadableScan):
        open_scan(tmp_path / "a.nii.gz")


@pytest.mark.parametrize(("bits", "dtype"), [(8, np.uint8), (16, np.uint16)])
def test_png_and_tiff_are_exact(tmp_path, noise, bits, dtype):
    image = noise(9, 11, bits=bits, dtype=dtype)
    write_png(tmp_path / "a.png", image)
    Image.fromarray(image).save(tmp_path / "a.tif")
    for name in ("a.png", "a.tif"):
        scan = open_scan(tmp_path / name)
        assert (scan.kind, scan.array.dtype, scan.spacing, scan.affine) == ("image", dtype, None, None)
        np.testing.assert_array_equal(scan.array[0], image)


def test_colour_stays_and_transparency_goes(tmp_path, noise):
    rgba = noise(5, 6, 4, bits=8, dtype=np.uint8)
    Image.fromarray(rgba, "RGBA").save(tmp_path / "rgba.png")
    Image.fromarray(rgba[..., :2].copy(), "LA").save(tmp_path / "la.png")
    np.testing.assert_array_equal(open_scan(tmp_path / "rgba.png").array, np.moveaxis(rgba[..., :3], -1, 0))
    np.testing.assert_array_equal(open_scan(tmp_path / "la.png").array, rgba[None, ..., 0])


@pytest.mark.parametrize(("bits", "dtype"), [(8, np.uint8), (16, np.uint16)])
def test_white_is_zero_tiff_reads_as_it_looks(tmp_path, noise, bits, dtype):
    image = noise(5, 6, bits=bits, dtype=dtype)
    Image.fromarray(image).save(tmp_path / "a.tif", tiffinfo={262: 0})
    with Image.open(tmp_path / "a.tif") as check:
        assert check.tag_v2[262] == 0
    raw = (tmp_path / "a.tif").read_bytes()
    stored = image if image.tobytes() in raw else np.invert(image)
    assert stored.tobytes() in raw
    np.testing.assert_array_equal(open_scan(tmp_path / "a.tif").array[0], np.invert(stored))


def test_wide_colour_and_pages_are_refused_not_narrowed(tmp_path, noise):
    import struct
    import zlib

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    rows = b"".join(b"\0" + noise(3, 3, bits=16).astype(">u2").tobytes() for _ in range(3))
    header = struct.pack(">IIBBBBB", 3, 3, 16, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    (tmp_path / "wide.png").write_bytes(b"\x89PNG\r\n\x1a\n" + body)
    with pytest.raises(UnreadableScan, match="16 bits a channel"):
        open_scan(tmp_path / "wide.png")
    pages = [Image.fromarray(noise(4, 4, bits=8, dtype=np.uint8)) for _ in range(3)]
    pages[0].save(tmp_path / "pages.tif", save_all=True, append_images=pages[1:])
    with pytest.raises(UnreadableScan, match="3 pages"):
        open_scan(tmp_path / "pages.tif")


def test_jpeg_is_near(tmp_path):
    image = smooth(64, 48)
    write_jpeg(tmp_path / "a.jpg", image)
    scan = open_scan(tmp_path / "a.jpg")
    assert scan.array.shape == (1, 64, 48)
    assert np.abs(scan.array[0].astype(int) - image).max() <= 4


def test_clips_are_grey_exact_in_ffv1_and_near_in_mjpeg(tmp_path, noise):
    clip = noise(6, 32, 48, bits=8, dtype=np.uint8)
    write_avi(tmp_path / "a.avi", clip, fps=50, codec="ffv1")
    scan = open_scan(tmp_path / "a.avi")
    assert (scan.kind, scan.frame_time, scan.spacing) == ("cine", 20.0, None)
    np.testing.assert_array_equal(scan.array, clip[None])
    clip = smooth(6, 112, 112)
    write_avi(tmp_path / "b.avi", clip, fps=30)
    scan = open_scan(tmp_path / "b.avi")
    assert scan.array.shape == (1, 6, 112, 112)
    assert scan.frame_time == pytest.approx(1000 / 30)
    assert np.abs(scan.array[0].astype(int) - clip).max() <= 6


def test_a_cut_clip_is_unreadable(tmp_path, noise):
    write_avi(tmp_path / "a.avi", noise(9, 32, 48, bits=8, dtype=np.uint8), fps=50, codec="ffv1")
    raw = (tmp_path / "a.avi").read_bytes()
    (tmp_path / "a.avi").write_bytes(raw[: len(raw) // 2])
    with pytest.raises(UnreadableScan, match="frames of 9|cannot be read"):
        open_scan(tmp_path / "a.avi")


def test_canonical_orientation_moves_no_voxel(noise):
    volume, affine = noise(3, 4, 5)[None], oblique_affine()
    turned, turned_affine = to_canonical(volume, affine)
    assert (turned_affine[:3, :3].argmax(axis=0) == [0, 1, 2]).all()
    inverse = np.linalg.inv(turned_affine)
    for k, j, i in np.ndindex(3, 4, 5):
        there = np.rint(inverse @ affine @ [i, j, k, 1]).astype(int)
        assert turned[0, there[2], there[1], there[0]] == volume[0, k, j, i]
    scan = canonical(Scan(volume, "volume", "MR", affine=affine, spacing=(3.0, 0.75, 0.5)))
    np.testing.assert_array_equal(scan.array, turned)
    np.testing.assert_allclose(scan.spacing, np.linalg.norm(turned_affine[:3, :3], axis=0)[::-1])
    assert scan.array.flags.c_contiguous
    again, same = to_canonical(turned, turned_affine)
    np.testing.assert_array_equal(again, turned)
    np.testing.assert_allclose(same, turned_affine)


def test_same_grid_looks_at_the_far_corner():
    def scan(affine: np.ndarray | None, size: int = 100) -> Scan:
        return Scan(np.zeros((1, 4, 4, size)), "volume", "CT", affine=affine)

    stretched = np.diag([1 + 2e-5, 1, 1, 1.0])
    assert same_grid(scan(np.eye(4)), scan(np.eye(4)))
    assert not same_grid(scan(np.eye(4)), scan(stretched))
    assert same_grid(scan(np.eye(4)), scan(stretched), tolerance_mm=0.01)
    assert not same_grid(scan(np.eye(4)), scan(np.eye(4), size=99))
    assert not same_grid(scan(None), scan(None))


def test_suffixes_do_not_decide(tmp_path: Path, noise):
    image = noise(4, 4, bits=8, dtype=np.uint8)
    write_png(tmp_path / "a.png", image)
    (tmp_path / "a.png").rename(tmp_path / "a.dcm")
    np.testing.assert_array_equal(open_scan(tmp_path / "a.dcm").array[0], image)
    (tmp_path / "text.dcm").write_text("Dear colleague, the image is attached.")
    (tmp_path / "empty.nii").touch()
    (tmp_path / "table.nii.gz").write_bytes(gzip.compress(b"path,sex\n" * 200))
    for name in ("text.dcm", "empty.nii", "table.nii.gz", "absent.png"):
        with pytest.raises(UnreadableScan):
            open_scan(tmp_path / name)
