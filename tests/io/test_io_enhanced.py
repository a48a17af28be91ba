"""Multi-frame objects: a frame with a place is a slice like any other; without one, nothing is guessed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset

from medssl import find_scans, open_scan
from medssl.errors import AmbiguousSeries, GeometryError, UnreadableScan
from medssl.io import FoundScan, SkippedFile
from medssl.io.write import write_dicom

AXIAL = (1, 0, 0, 0, 1, 0)
CORONAL = (1, 0, 0, 0, 0, -1)
IDS = {"patient_id": "P1", "study_uid": "1.2", "series_uid": "1.2.3", "instance_uid": "1.2.3.4"}


def group(**sequences: dict) -> Dataset:
    """A functional group: {sequence: {attribute: value}}, one item each; a dict as a value nests."""
    made = Dataset()
    for keyword, attributes in sequences.items():
        item = Dataset()
        for name, value in attributes.items():
            setattr(item, name, [group_item(value)] if isinstance(value, dict) else value)
        setattr(made, keyword, [item])
    return made


def group_item(attributes: dict) -> Dataset:
    item = Dataset()
    for name, value in attributes.items():
        setattr(item, name, value)
    return item


def place(z: float, orientation=AXIAL, **more: dict) -> Dataset:
    return group(
        PlanePositionSequence={"ImagePositionPatient": [-10.0, 20.0, z]},
        PlaneOrientationSequence={"ImageOrientationPatient": list(orientation)},
        **more,
    )


def write_enhanced(path: Path, frames: np.ndarray, per_frame: list[Dataset], shared: Dataset | None = None,
                   modality: str = "MR", syntax: str = "explicit", **top) -> None:  # fmt: skip
    """frames (N, J, I) with a functional group each."""
    write_dicom(path, frames[0], **IDS, modality=modality if modality in ("CT", "MR") else "CT")
    data = dcmread(path)
    data.SOPClassUID = data.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.4.1"
    data.Modality = modality
    for keyword in ("RescaleSlope", "RescaleIntercept"):
        if keyword in data:
            delattr(data, keyword)
    data.NumberOfFrames, data.PixelData = len(frames), frames.tobytes()
    data.PerFrameFunctionalGroupsSequence = per_frame
    measures = {"PixelMeasuresSequence": {"PixelSpacing": [0.7, 0.5], "SliceThickness": 2}}
    data.SharedFunctionalGroupsSequence = [group(**measures) if shared is None else shared]
    for keyword, value in top.items():
        setattr(data, keyword, value)
    if syntax == "rle":
        data.compress("1.2.840.10008.1.2.5", encoding_plugin="pydicom", generate_instance_uid=False)
    data.save_as(path)


@pytest.mark.parametrize("syntax", ["explicit", "rle"])
def test_frames_are_stacked_by_their_places(tmp_path, noise, syntax):
    frames, heights = noise(5, 6, 7), [6.0, 0.0, 8.0, 2.0, 4.0]
    write_enhanced(tmp_path / "a", frames, [place(z) for z in heights], syntax=syntax)
    scan = open_scan(tmp_path / "a")
    assert (scan.kind, scan.modality, scan.spacing) == ("volume", "MR", pytest.approx((2.0, 0.7, 0.5)))
    np.testing.assert_array_equal(scan.array[0], frames[np.argsort(heights)])
    np.testing.assert_allclose(scan.affine @ [2, 1, 3, 1], [10 - 2 * 0.5, -20 - 0.7, 6, 1])
    (found,) = find_scans(tmp_path)
    assert (found.kind, found.size, found.part, len(found.paths)) == ("volume", (5, 6, 7), None, 1)


def test_an_enhanced_file_agrees_with_simpleitk(tmp_path, noise):
    sitk = pytest.importorskip("SimpleITK")
    frames = noise(4, 6, 7)
    scaled = {"PixelValueTransformationSequence": {"RescaleSlope": 2, "RescaleIntercept": -5}}
    groups = [place(2.5 * k, CORONAL) for k in range(4)]
    for k, one in enumerate(groups):
        one.PlanePositionSequence[0].ImagePositionPatient = [-10.0, 20.0 + 2.5 * k, 7.0]
    shared = group(PixelMeasuresSequence={"PixelSpacing": [0.7, 0.5], "SliceThickness": 2.5,
                                          "SpacingBetweenSlices": 2.5}, **scaled)  # fmt: skip
    write_enhanced(tmp_path / "a.dcm", frames, groups, shared)
    ours, theirs = open_scan(tmp_path / "a.dcm"), sitk.ReadImage(str(tmp_path / "a.dcm"))
    for index in [(0, 0, 0), (6, 5, 3), (2, 3, 1)]:
        lps = np.array(theirs.TransformContinuousIndexToPhysicalPoint([float(n) for n in index]))
        i, j, k = np.rint(np.linalg.inv(ours.affine) @ [*(lps * [-1, -1, 1]), 1])[:3].astype(int)
        assert ours.array[0, k, j, i] == theirs[index]
        np.testing.assert_allclose((ours.affine @ [i, j, k, 1])[:3], lps * [-1, -1, 1], atol=1e-3)


def test_every_frame_has_its_own_scale(tmp_path, noise):
    frames = noise(3, 6, 7)
    scales = [{"RescaleSlope": k + 1, "RescaleIntercept": -k} for k in range(3)]
    groups = [place(2.0 * k, PixelValueTransformationSequence=scale) for k, scale in enumerate(scales)]
    write_enhanced(tmp_path / "a", frames, groups, modality="PT")
    array = open_scan(tmp_path / "a").array[0]
    assert array.dtype == np.float32
    np.testing.assert_array_equal(array, [(k + 1) * frames[k].astype(float) - k for k in range(3)])


def test_phases_of_one_file_are_opened_by_their_part(tmp_path, noise):
    frames = noise(3, 4, 6, 7)  # (T, K, J, I)
    groups = [place(2.0 * k, FrameContentSequence={"TemporalPositionIndex": t + 1, "StackID": "1",
                                                   "InStackPositionNumber": k + 1})
              for t in range(3) for k in range(4)]  # fmt: skip
    write_enhanced(tmp_path / "a", frames.reshape(12, 6, 7), groups)
    found = list(find_scans(tmp_path))
    assert [(one.part, one.header["phase"], one.size) for one in found] == [
        (1, 1, (4, 6, 7)), (5, 2, (4, 6, 7)), (9, 3, (4, 6, 7))
    ]  # fmt: skip
    for volume, one in zip(frames, found, strict=True):
        np.testing.assert_array_equal(open_scan(one).array[0], volume)
        bare = FoundScan(one.paths, "volume", part=one.part)  # as a manifest keeps it
        np.testing.assert_array_equal(open_scan(bare).array[0], volume)
    clips = list(find_scans(tmp_path, time="clips"))
    assert [one.part for one in clips] == [1, 2, 3, 4]
    np.testing.assert_array_equal(open_scan(FoundScan(clips[2].paths, "cine", part=3)).array[0], frames[:, 2])
    with pytest.raises(AmbiguousSeries, match=r"The file holds 3 scans:\n  3 × MR volume 4 × 6 × 7"):
        open_scan(tmp_path / "a")


def test_stacks_of_one_file_are_told_apart_by_direction(tmp_path, noise):
    frames = noise(5, 6, 7)
    oblique = (1, 0, 0, 0, 0.8, 0.6)
    groups = [place(2.0 * k) for k in range(3)] + [place(3.0 * k, oblique) for k in range(2)]
    write_enhanced(tmp_path / "a", frames, groups)
    found = list(find_scans(tmp_path))
    assert [(one.kind, one.part, one.size[0]) for one in found] == [("volume", 1, 3), ("volume", 4, 2)]
    np.testing.assert_array_equal(open_scan(found[1]).array[0], frames[3:])


def test_frames_that_only_an_index_tells_apart(tmp_path, noise):
    frames = noise(4, 6, 7)
    dimensions = [group_item({"DimensionIndexPointer": 0x00200032}), group_item({"DimensionIndexPointer": 0x00189004})]
    groups = [place(2.0 * k, FrameContentSequence={"DimensionIndexValues": [k + 1, kind + 1]})
              for kind in range(2) for k in range(2)]  # fmt: skip
    write_enhanced(tmp_path / "a", frames, groups, DimensionIndexSequence=dimensions)
    first, second = find_scans(tmp_path)
    np.testing.assert_array_equal(open_scan(first).array[0], frames[:2])
    np.testing.assert_array_equal(open_scan(second).array[0], frames[2:])


def test_echoes_in_nested_groups_come_as_header_fields(tmp_path, noise):
    groups = [place(2.0 * k, MREchoSequence={"EffectiveEchoTime": echo}) for echo in (4.5, 2.5) for k in range(2)]
    write_enhanced(tmp_path / "a", noise(4, 6, 7), groups)
    assert [one.header["echo_time"] for one in find_scans(tmp_path)] == [2.5, 4.5]


def test_a_missing_frame_is_refused_as_a_missing_slice_is(tmp_path, noise):
    write_enhanced(tmp_path / "a", noise(5, 6, 7), [place(z) for z in (0, 2, 4, 8, 10)])
    with pytest.raises(GeometryError, match="Slices 3 and 4 of 5, at 4.00 and 8.00 mm .*: 1 missing between them"):
        open_scan(tmp_path / "a")
    (skipped,) = find_scans(tmp_path)
    assert isinstance(skipped, SkippedFile)
    assert "Slices 3 and 4 of 5" in skipped.reason


def test_an_ultrasound_volume_knows_its_shape_and_not_its_place(tmp_path, noise):
    frames = noise(3, 6, 7, bits=8, dtype=np.uint8)
    groups = [
        group(
            PlanePositionVolumeSequence={"ImagePositionVolume": [0.0, 0.0, 1.5 * k]},
            PlaneOrientationVolumeSequence={"ImageOrientationVolume": list(AXIAL)},
        )
        for k in range(3)
    ]
    write_enhanced(tmp_path / "a", frames, groups, modality="US")
    scan = open_scan(tmp_path / "a")
    assert (scan.kind, scan.affine, scan.spacing) == ("volume", None, pytest.approx((1.5, 0.7, 0.5)))
    np.testing.assert_array_equal(scan.array[0], frames)


def test_frames_of_an_angiogram_stay_times(tmp_path, noise):
    frames = noise(3, 6, 7)
    groups = [group(FrameContentSequence={"FrameAcquisitionNumber": n}) for n in range(3)]
    write_enhanced(tmp_path / "a", frames, groups, modality="XA", FrameTime=66.6)
    scan = open_scan(tmp_path / "a")
    assert (scan.kind, scan.frame_time) == ("cine", 66.6)
    np.testing.assert_array_equal(scan.array[0], frames)


@pytest.mark.parametrize(
    ("groups", "top", "reason"),
    [
        (3, {}, "Functional groups for 3 of 4 frames"),
        (4, {"InConcatenationNumber": 2, "InConcatenationTotalNumber": 3}, "Part 2 of 3"),
        (0, {}, "slices or times"),
    ],
)
def test_frames_without_a_certain_place_are_refused(tmp_path, noise, groups, top, reason):
    write_enhanced(tmp_path / "a", noise(4, 6, 7), [place(2.0 * k) for k in range(groups)], **top)
    with pytest.raises(UnreadableScan, match=reason):
        open_scan(tmp_path / "a")


@pytest.mark.parametrize("step", [3.0, -3.0])
def test_reconstructed_nuclear_medicine_is_stacked_along_its_normal(tmp_path, noise, step):
    frames = noise(4, 6, 7)
    detector = group_item({"ImagePositionPatient": [-10.0, 20.0, 5.0], "ImageOrientationPatient": list(AXIAL)})
    tomo = {"DetectorInformationSequence": [detector], "SpacingBetweenSlices": step, "PixelSpacing": [0.7, 0.5],
            "FrameIncrementPointer": 0x00540080, "SliceVector": [1, 2, 3, 4]}  # fmt: skip
    write_enhanced(tmp_path / "a", frames, [], modality="NM", **tomo)
    scan = open_scan(tmp_path / "a")
    np.testing.assert_array_equal(scan.array[0], frames if step > 0 else frames[::-1])
    np.testing.assert_allclose(scan.affine @ [0, 0, 0, 1], [10, -20, 5 if step > 0 else -4, 1])
    assert scan.spacing == pytest.approx((3.0, 0.7, 0.5))
    write_enhanced(tmp_path / "b", frames, [], modality="NM", **(tomo | {"SliceVector": [1, 1, 2, 2]}))
    with pytest.raises(UnreadableScan, match="slices or times"):
        open_scan(tmp_path / "b")
