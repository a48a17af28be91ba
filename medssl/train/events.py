"""TensorBoard's event file, written record by record by the thread that asks for it.

torch's SummaryWriter leaves half a record on a full disk and dies of it in a thread of its own; its file's name also
carries the machine's.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.summary.writer.record_writer import RecordWriter
from torch.utils.tensorboard.summary import image, scalar

from medssl.files import append_whole


class Events:
    """An event file; OSError where it cannot be written, and then no record is left in part."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def begin(self, step: int) -> None:
        """What earlier files hold of `step` and later is out of date."""
        self._add(step, file_version="brain.Event:2")
        self._add(step, session_log=SessionLog(status=SessionLog.START))

    def scalars(self, step: int, figures: Mapping[str, float]) -> None:
        for name, value in figures.items():
            self._add(step, summary=scalar(name, value))

    def picture(self, step: int, name: str, picture: np.ndarray) -> None:
        self._add(step, summary=image(name, picture, dataformats="HWC"))

    def write(self, record: bytes) -> None:
        append_whole(self._path, record)

    def _add(self, step: int, **what: object) -> None:
        RecordWriter(self).write(Event(wall_time=time.time(), step=step, **what).SerializeToString())
