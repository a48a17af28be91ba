"""Clips that are cut, turned, uneven or too large: each on a file that the test writes."""

from __future__ import annotations

import struct
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from medssl import open_scan
from medssl.errors import UnreadableScan
from medssl.io.write import write_avi


def write_mp4(path: Path, clip: np.ndarray, times_ms: list[int] | None = None, codec: str = "libx264rgb") -> None:
    """A clip (T, J, I) uint8, lossless in libx264rgb, with its index before its frames, so that a cut file opens."""
    with av.open(str(path), "w", format="mp4", options={"movflags": "faststart"}) as container:
        stream = container.add_stream(codec, rate=25, options={"qp": "0", "bf": "0"})
        stream.height, stream.width = clip.shape[1:]
        stream.pix_fmt = "rgb24" if codec == "libx264rgb" else "yuv420p10le"
        if times_ms:
            stream.codec_context.time_base = Fraction(1, 1000)
        for t, image in enumerate(clip):
            frame = av.VideoFrame.from_ndarray(np.repeat(image[..., None], 3, -1), format="rgb24")
            if times_ms:
                frame.pts, frame.time_base = times_ms[t], Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def show_as(path: Path, a: float, b: float, c: float, d: float) -> None:
    """Overwrite the matrix in the track header (ISO/IEC 14496-12, 8.3.2): 16.16 fixed point, the last column 2.30."""
    raw = bytearray(path.read_bytes())
    at = raw.index(b"tkhd") + 44
    one = 1 << 16
    struct.pack_into(">9i", raw, at, int(a * one), int(b * one), 0, int(c * one), int(d * one), 0, 0, 0, 1 << 30)
    path.write_bytes(raw)


@pytest.fixture
def clip(noise) -> np.ndarray:
    return noise(12, 32, 48, bits=8, dtype=np.uint8)


def test_mp4_is_exact_where_its_codec_is(tmp_path, clip):
    write_mp4(tmp_path / "a.mp4", clip)
    scan = open_scan(tmp_path / "a.mp4")
    np.testing.assert_array_equal(scan.array, clip[None])
    assert (scan.kind, scan.frame_time, dict(scan.header)) == ("cine", 40.0, {})


@pytest.mark.parametrize(("matrix", "turn"), [
    ((1, 0, 0, 1), lambda x: x),
    ((0, 1, -1, 0), lambda x: np.rot90(x, -1, (1, 2))),  # what a telephone held upright writes: a quarter clockwise
    ((-1, 0, 0, -1), lambda x: np.rot90(x, 2, (1, 2))),
    ((0, -1, 1, 0), lambda x: np.rot90(x, 1, (1, 2))),
    ((-1, 0, 0, 1), lambda x: x[:, :, ::-1]),
    ((0, 1, 1, 0), lambda x: x.swapaxes(1, 2)),
])  # fmt: skip
def test_clips_are_shown_as_they_ask(tmp_path, clip, matrix, turn):
    write_mp4(tmp_path / "a.mp4", clip)
    show_as(tmp_path / "a.mp4", *matrix)
    scan = open_scan(tmp_path / "a.mp4")
    np.testing.assert_array_equal(scan.array[0], turn(clip))
    assert scan.array.flags.c_contiguous


def test_other_angles_are_refused(tmp_path, clip):
    write_mp4(tmp_path / "a.mp4", clip)
    show_as(tmp_path / "a.mp4", 0.7, 0.7, -0.7, 0.7)
    with pytest.raises(UnreadableScan, match="at an angle"):
        open_scan(tmp_path / "a.mp4")


def test_a_variable_frame_rate_is_named(tmp_path, clip):
    write_mp4(tmp_path / "a.mp4", clip, [0, 40, 80, 120, 160, 200, 300, 400, 500, 600, 700, 880])
    scan = open_scan(tmp_path / "a.mp4")
    assert (scan.header["frame_rate"], scan.frame_time) == ("variable", pytest.approx(80))
    write_mp4(tmp_path / "b.mp4", clip, [0, 33, 67, 100, 133, 167, 200, 233, 267, 300, 333, 367])  # rounded, not uneven
    scan = open_scan(tmp_path / "b.mp4")
    assert "frame_rate" not in scan.header
    assert scan.frame_time == pytest.approx(33.3, abs=0.2)


@pytest.mark.parametrize("suffix", ["avi", "mp4"])
@pytest.mark.parametrize("keep", [0.5, 0.9])
def test_a_cut_clip_is_refused_and_never_shortened(tmp_path, clip, suffix, keep):
    path = tmp_path / f"a.{suffix}"
    write_avi(path, clip, 25, "ffv1") if suffix == "avi" else write_mp4(path, clip)
    raw = path.read_bytes()
    path.write_bytes(raw[: int(keep * len(raw))])
    with pytest.raises(UnreadableScan, match=r"holds \d+ frames of 12|cannot be read|damaged frame"):
        open_scan(path)


def test_deep_clips_are_refused_not_narrowed(tmp_path, clip):
    write_mp4(tmp_path / "a.mp4", clip, codec="libx264")
    with pytest.raises(UnreadableScan, match="10 bits a channel"):
        open_scan(tmp_path / "a.mp4")


def test_the_ceiling_holds_for_all_frames_together_and_for_each(tmp_path, clip, monkeypatch):
    write_mp4(tmp_path / "a.mp4", clip)
    for most, fits in ((clip.nbytes, True), (clip.nbytes - 1, False), (32 * 48, False)):
        monkeypatch.setenv("MEDSSL_MAX_SCAN_GIB", str(most / 2**30))
        if fits:
            assert open_scan(tmp_path / "a.mp4").array.nbytes == most
        else:
            with pytest.raises(UnreadableScan, match="would take"):
                open_scan(tmp_path / "a.mp4")
