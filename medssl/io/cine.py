"""AVI and MP4 clips through PyAV."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from medssl.errors import UnreadableScan
from medssl.types import Scan


def read_cine(path: Path) -> Scan:
    """A clip as (C, T, J, I) uint8: one channel where red, green and blue agree in every pixel, else three.

    EchoNet-Dynamic's AVIs are grey stored as colour MJPEG. `frame_time` comes from the stream's average rate.
    """
    import av

    with av.open(str(path)) as container:
        if not container.streams.video:
            raise UnreadableScan("A media file without a video stream", expected="AVI or MP4 with one clip")
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        frames = [_frame(frame) for frame in container.decode(stream)]
        announced, rate = stream.frames if container.format.name == "avi" else 0, stream.average_rate
    if not frames or len(frames) < announced:
        raise UnreadableScan(
            f"The clip holds {len(frames)} frames of {announced or 'none'}",
            expected="a whole file",
            remedy="copy it again from its source",
        )
    if len({frame.shape[1:] for frame in frames}) > 1:
        raise UnreadableScan("The clip changes its frame size", expected="one size throughout")
    channels = max(len(frame) for frame in frames)
    clip = np.stack([np.broadcast_to(frame, (channels, *frame.shape[1:])) for frame in frames], axis=1)
    return Scan(clip, "cine", "OT", frame_time=float(1000 / rate) if rate else None)


def _frame(frame) -> np.ndarray:
    """(C, J, I) uint8 of one decoded frame."""
    if any(component.bits > 8 for component in frame.format.components):
        raise UnreadableScan(
            f"A clip with {frame.format.components[0].bits} bits a channel",
            expected="8 bits",
            remedy="convert it to 8 bits, or store it as DICOM",
        )
    rgb = np.moveaxis(frame.to_ndarray(format="rgb24"), -1, 0)
    return rgb[:1].copy() if (rgb == rgb[:1]).all() else rgb
