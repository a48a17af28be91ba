"""AVI and MP4 clips through PyAV."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from medssl.errors import UnreadableScan
from medssl.io.limits import CUT, most_bytes, require_room
from medssl.types import Scan

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.frame import VideoFrame

UNEVEN = 0.1
"""Share of the mean interval by which one interval may differ before a clip's frame rate counts as variable."""


def read_cine(path: Path) -> Scan:
    """A clip as (C, T, J, I) uint8: one channel where red, green and blue agree in every pixel, else three.

    EchoNet-Dynamic's AVIs are grey stored as colour MJPEG. `frame_time` is the mean interval between frames; where they
    differ, header["frame_rate"] is "variable". A clip that is marked to be shown turned by quarters or mirrored, as
    telephones do, is turned and mirrored.
    """
    import av

    with open(path, "rb") as file:  # named, since FFmpeg would take a playlist, too, and follow it elsewhere
        kind = "avi" if file.read(4) == b"RIFF" else "mp4"
    with av.open(f"file:{path}", format=kind) as container:
        if not container.streams.video:
            raise UnreadableScan("A media file without a video stream", expected="AVI or MP4 with one clip")
        frames, times, matrix = _decoded(container)
        rate = container.streams.video[0].average_rate
    if len({frame.shape[1:] for frame in frames}) > 1:
        raise UnreadableScan("The clip changes its frame size", expected="one size throughout")
    channels = max(len(frame) for frame in frames)
    clip = np.stack([np.broadcast_to(frame, (channels, *frame.shape[1:])) for frame in frames], axis=1)
    frame_time, header = _timing(rate, times)
    clip = np.ascontiguousarray(_upright(clip, matrix))
    return Scan(clip, "cine", "OT", frame_time=frame_time, header=header)


def _decoded(container: InputContainer) -> tuple[list[np.ndarray], list[Fraction], np.ndarray | None]:
    """Frames (C, J, I), the second at which each is shown, and how they are to be turned (ISO/IEC 14496-12, 6.2.2).

    UnreadableScan as soon as they take more memory than one scan may, and where packets are missing: the file is cut.
    """
    stream = container.streams.video[0]
    require_room(stream.width * stream.height * 3)
    stream.thread_type = "AUTO"
    stream.codec_context.options = {"max_pixels": str(min(most_bytes() // 3, 2**31 - 1))}
    frames, times, matrix, packets, held = [], [], None, 0, 0
    for packet in container.demux(stream):
        packets += packet.size > 0
        for frame in packet.decode():
            frames.append(_pixels(frame))
            times += [] if frame.pts is None else [frame.pts * frame.time_base]
            matrix = frame.side_data.get("DISPLAYMATRIX", matrix)
            held += frames[-1].nbytes
            require_room(held)
    if not frames or packets < stream.frames:
        raise UnreadableScan(
            f"The clip holds {packets} frames of {stream.frames or 'none'}",
            expected="a whole file",
            remedy=CUT,
        )
    times = times if len(times) == len(frames) else []
    return frames, times, None if matrix is None else np.frombuffer(matrix, np.int32).reshape(3, 3)


def _pixels(frame: VideoFrame) -> np.ndarray:
    """(C, J, I) uint8 of one decoded frame."""
    if frame.is_corrupt:
        raise UnreadableScan("A damaged frame", expected="a whole file", remedy=CUT)
    if any(component.bits > 8 for component in frame.format.components):
        raise UnreadableScan(
            f"A clip with {frame.format.components[0].bits} bits a channel",
            expected="8 bits",
            remedy="convert it to 8 bits, or store it as DICOM",
        )
    rgb = np.moveaxis(frame.to_ndarray(format="rgb24"), -1, 0)
    return rgb[:1].copy() if (rgb == rgb[:1]).all() else rgb


def _timing(rate: Fraction | None, times: list[Fraction]) -> tuple[float | None, dict[str, str]]:
    """Milliseconds between frames, and what the Scan's header says of them; the announced rate is for want of times."""
    if len(times) < 2 or times[-1] <= times[0]:
        return float(1000 / rate) if rate else None, {}
    mean = (times[-1] - times[0]) / (len(times) - 1)
    uneven = max(abs(later - time - mean) for time, later in pairwise(times)) > UNEVEN * mean
    return float(1000 * mean), {"frame_rate": "variable"} if uneven else {}


def _upright(clip: np.ndarray, matrix: np.ndarray | None) -> np.ndarray:
    """(..., J, I) as it is to be shown: the matrix takes a row (i, j, 1) to its place on the screen."""
    if matrix is None:
        return clip
    (a, b), (c, d) = matrix[:2, :2]
    if (a == 0) != (d == 0) or (b == 0) != (c == 0) or (a == 0) == (b == 0):
        raise UnreadableScan("A clip to be shown at an angle", expected="quarter turns", remedy="turn it for good")
    if a == 0:
        clip, a, d = clip.swapaxes(-1, -2), c, b
    return clip[..., :: 1 if d > 0 else -1, :: 1 if a > 0 else -1]
