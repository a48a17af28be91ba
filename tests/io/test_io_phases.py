"""4-D series: every slice in its phase or clip, whatever tells them apart, and none where nothing does."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from medssl import find_scans, open_scan
from medssl.errors import AmbiguousSeries, GeometryError
from medssl.io import FoundScan, SkippedFile
from medssl.rng import stream

PLACES, TIMES = 3, 4


def write_series(folder: Path, write_slices, noise, marks, places: int = PLACES, times: int = TIMES) -> np.ndarray:
    """A series (T, K, J, I) in shuffled files; `marks(t, k)` is the header of a slice. Returns what was written."""
    series = noise(times, places, 5, 6)
    index = [(t, k) for t in range(times) for k in range(places)]
    order = list(stream("test", "order").permutation(len(index)))
    write_slices(
        folder,
        series.reshape(-1, 5, 6),
        np.array([[0.0, 0.0, 3.0 * k] for _, k in index]),
        order,
        header=[marks(t, k) for t, k in index],
        modality="MR",
    )
    return series


TOLD_APART = {
    "temporal position": lambda t, k: {"TemporalPositionIdentifier": t + 1},
    "trigger time that differs with the heart rate": lambda t, k: {"TriggerTime": 10 + t * (37.5 + k)},
    "acquisition": lambda t, k: {"AcquisitionNumber": 7 + t},
    "a clock": lambda t, k: {"AcquisitionTime": f"0959{50 + 3 * k}.{t}"},
    "echo": lambda t, k: {"EchoTime": 2.5 * (t + 1), "AcquisitionNumber": 1 + t // 2},
    "echo and time": lambda t, k: {"EchoTime": (4.0, 9.0)[t // 2], "TriggerTime": 10 + (t % 2) * (30 + k)},
    "magnitude and phase": lambda t, k: {"ImageType": ["DERIVED", "PRIMARY", "MP"[t // 2]], "AcquisitionNumber": t % 2},
}


@pytest.mark.parametrize("mark", TOLD_APART)
def test_each_phase_is_one_volume(tmp_path, write_slices, noise, mark):
    series = write_series(tmp_path, write_slices, noise, TOLD_APART[mark])
    found = list(find_scans(tmp_path))
    assert [(one.kind, one.size, one.header["phase"], one.header["phases"]) for one in found] == [
        ("volume", (PLACES, 5, 6), t + 1, TIMES) for t in range(TIMES)
    ]
    scans = [open_scan(one) for one in found]
    for scan, volume in zip(scans, series, strict=True):
        np.testing.assert_array_equal(scan.array[0], volume)
    assert [scan.header["phase"] for scan in scans] == [1, 2, 3, 4]
    with pytest.raises(AmbiguousSeries, match=r"4 × MR volume 3 × 5 × 6 \(1 of 4 phases\), 3 file\(s\), series 1.2.3"):
        open_scan(tmp_path)


def test_each_place_is_one_clip_where_times_are_asked_for_as_such(tmp_path, write_slices, noise):
    series = write_series(tmp_path, write_slices, noise, lambda t, k: {"TriggerTime": 10 + t * (37.5 + k)})
    found = list(find_scans(tmp_path, time="clips"))
    assert [(one.kind, one.size, one.header["slice"], one.header["slices"]) for one in found] == [
        ("cine", (TIMES, 5, 6), k + 1, PLACES) for k in range(PLACES)
    ]
    for k, one in enumerate(found):
        for source in (one, FoundScan(one.paths[::-1], "cine")):
            scan = open_scan(source)
            np.testing.assert_array_equal(scan.array, series[None, :, k])
            assert (scan.kind, scan.frame_time, scan.affine) == ("cine", pytest.approx(37.5 + k), None)
            assert scan.spacing == (0.7, 0.5)


def test_clips_have_no_frame_time_that_was_not_measured(tmp_path, write_slices, noise):
    write_series(tmp_path / "a", write_slices, noise, lambda t, k: {"TemporalPositionIdentifier": t})
    write_series(tmp_path / "b", write_slices, noise, lambda t, k: {"TriggerTime": (0, 30, 60, 200)[t]})
    for name in "ab":
        assert {open_scan(one).frame_time for one in find_scans(tmp_path / name, time="clips")} == {None}


def test_contrasts_are_volumes_even_among_clips(tmp_path, write_slices, noise):
    series = write_series(tmp_path, write_slices, noise, lambda t, k: {"EchoTime": 9.0 - t})
    found = list(find_scans(tmp_path, time="clips"))
    assert [one.kind for one in found] == ["volume"] * TIMES
    np.testing.assert_array_equal(open_scan(found[0]).array[0], series[3])


def test_repeats_that_nothing_tells_apart_are_refused(tmp_path, write_slices, noise):
    write_series(tmp_path, write_slices, noise, lambda t, k: {"AcquisitionNumber": 1})
    found = list(find_scans(tmp_path))
    assert len(found) == PLACES * TIMES
    assert {type(one) for one in found} == {SkippedFile}
    assert "4 times at each of 3 place(s), and nothing tells" in found[0].reason
    with pytest.raises(GeometryError, match="nothing tells consistently"):
        open_scan(tmp_path)


def test_only_an_incomplete_phase_is_skipped(tmp_path, write_slices, noise):
    series = write_series(tmp_path, write_slices, noise, lambda t, k: {"TemporalPositionIdentifier": t, "EchoTime": 1})
    last = next(one for one in find_scans(tmp_path) if one.header["phase"] == 4)
    last.paths[1].unlink()
    found = list(find_scans(tmp_path))
    assert [one.header["phase"] for one in found if isinstance(one, FoundScan)] == [1, 2, 3]
    assert [one.reason for one in found if isinstance(one, SkippedFile)] == ["Phase 4 of 4 has 2 of 3 slices"] * 2
    np.testing.assert_array_equal(open_scan(found[2]).array[0], series[2])


def test_trigger_times_alone_cannot_place_what_is_missing(tmp_path, write_slices, noise):
    write_series(tmp_path, write_slices, noise, lambda t, k: {"TriggerTime": 10 + t * (37.5 + k)})
    next(iter(find_scans(tmp_path))).paths[1].unlink()
    with pytest.raises(GeometryError, match="3 to 4 times at each of 3 place"):
        open_scan(tmp_path)


def test_one_place_at_many_times_is_one_clip(tmp_path, write_slices, noise):
    series = write_series(tmp_path, write_slices, noise, lambda t, k: {"TriggerTime": 40 * t}, places=1)
    (clip,) = find_scans(tmp_path, time="clips")
    np.testing.assert_array_equal(open_scan(clip).array[0], series[:, 0])
    assert [(one.kind, one.header["phase"]) for one in find_scans(tmp_path)] == [("image", t + 1) for t in range(TIMES)]


def test_sunnybrook_is_twenty_volumes_or_twelve_clips():
    data = os.environ.get("MEDSSL_DATA")
    if data is None:
        pytest.skip("MEDSSL_DATA names no folder of real scans")
    folder = Path(data, "cine_sunnybrook/SCD0000101")
    volumes, clips = list(find_scans(folder)), list(find_scans(folder, time="clips"))
    assert [(one.kind, one.size, one.header["phase"]) for one in volumes] == [
        ("volume", (12, 256, 256), phase) for phase in range(1, 21)
    ]
    assert [(one.kind, one.size, one.header["slice"]) for one in clips] == [
        ("cine", (20, 256, 256), place) for place in range(1, 13)
    ]
    files = [[int(path.stem) for path in one.paths] for one in clips]
    assert sorted(files) == [list(range(1 + 20 * k, 21 + 20 * k)) for k in range(12)]  # as slice_fac.csv has them
    volume, clip = open_scan(volumes[7]), open_scan(clips[3])
    assert volume.spacing == pytest.approx((10, 1.367188, 1.367188), abs=1e-3)
    assert clip.frame_time == pytest.approx(731 / 20, abs=1.5)
    np.testing.assert_array_equal(volume.array[0, 3], clip.array[0, 7])
