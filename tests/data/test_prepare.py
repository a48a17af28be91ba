"""medssl.data.prepare and decode: values after every mapping, grids, orientation, skips, and no stale cache."""

from __future__ import annotations

import os
from pathlib import Path

import nibabel
import numpy as np
import polars as pl
import pytest
from PIL import Image
from small_sets import make, write_discs

from medssl.data.manifest import Manifest
from medssl.data.prepare import Cache, PrepareConfig, prepare
from medssl.data.source import DataConfig, open_data
from medssl.errors import ConfigError, ManifestError, RunError
from medssl.io.write import write_avi, write_dicom, write_nifti, write_png
from medssl.rng import stream

VOLUMES = {"kind": "volume", "files": {"t1": "{case}/t1.nii.gz"}, "mask": "{case}/seg.nii.gz",
           "regions": {"lesion": [1]}}
IMAGES = {"kind": "image", "files": {"image": "{case}.png"}}
NESTED = ("shape", "spacing", "lost_labels")
CLIPS = {"kind": "cine", "files": {"image": "{case}.avi"}}


def prepared(manifest: Manifest, root: Path, **config) -> tuple[Cache, pl.DataFrame]:
    cache, report = prepare(manifest, root, PrepareConfig(**config), workers=0)
    return cache, report.skipped


def only(manifest: Manifest, root: Path, **config) -> np.ndarray:
    return prepared(manifest, root, **config)[0].array(manifest.cases["case_id"][0])


def volume(folder: Path, array: np.ndarray, affine: np.ndarray | None = None, name: str = "t1") -> None:
    write_nifti(folder / f"{name}.nii.gz", array, np.eye(4) if affine is None else affine)


def normal(*shape: int) -> np.ndarray:
    return stream("prepare", *shape).normal(size=shape).astype(np.float32)


def told_by(root: Path) -> str:
    """Everything that the cache writes down."""
    return "".join(pl.read_parquet(path).cast(dict.fromkeys(NESTED, pl.List(pl.String)))
                   .with_columns(pl.col(*NESTED).list.join(" ")).write_csv()
                   for path in root.rglob("index.parquet")) + " ".join(path.name for path in root.rglob("*"))


# ---------------------------------------------------------------------------------------------------------- values

@pytest.mark.parametrize(("dtype", "top", "divisor"), [(np.uint8, 200, 255), (np.uint16, 4000, 4095)])
def test_range_divides_by_the_largest_value_of_the_bits(tmp_path, dtype, top, divisor):
    image = stream("range").integers(0, top + 1, size=(6, 7)).astype(dtype)
    image[0, 0] = top
    write_png(tmp_path / "in/a.png", image)
    found = only(make(tmp_path / "in", **IMAGES), tmp_path / "cache", intensity="range")
    np.testing.assert_array_equal(found, (image[None] / np.float32(divisor)).astype(np.float16))


def test_percentile_maps_a_ramp_between_its_half_percent_marks(tmp_path):
    write_png(tmp_path / "in/a.png", np.arange(201, dtype=np.uint8).reshape(3, 67))
    found = only(make(tmp_path / "in", **IMAGES), tmp_path / "cache", intensity="percentile")
    expected = np.clip((np.arange(201) - 1.0) / 198.0, 0, 1).reshape(1, 3, 67)
    np.testing.assert_allclose(found, expected, atol=1e-3)


def test_colours_are_averaged_or_kept_for_grey_pictures_too(tmp_path):
    colours = stream("colours").integers(0, 256, size=(6, 7, 3)).astype(np.uint8)
    for folder, picture in (("rgb", colours), ("grey", colours[..., 0])):
        (tmp_path / folder).mkdir()
        Image.fromarray(picture).save(tmp_path / folder / "a.png")
    shares = colours.transpose(2, 0, 1) / np.float32(255)
    for folder, colour, expected in (("rgb", True, shares), ("rgb", False, shares.mean(axis=0, keepdims=True)),
                                     ("grey", True, shares[[0, 0, 0]]), ("grey", False, shares[:1])):
        found = only(make(tmp_path / folder, **IMAGES), tmp_path / "cache", intensity="range", colour=colour)
        np.testing.assert_allclose(found, expected, atol=1e-3)


def test_window_clips_hounsfield_units(tmp_path):
    hu = np.array([-2000, -1000, -500, 0, 500, 1000, 3000, 40], dtype=np.int16).reshape(2, 2, 2)
    volume(tmp_path / "in/a", hu)
    found = only(make(tmp_path / "in", **VOLUMES), tmp_path / "cache", intensity="window", window=(-1000, 1000))
    np.testing.assert_allclose(found[0].ravel(), [0, 0, 0.25, 0.5, 0.75, 1, 1, 0.52], atol=1e-3)


def test_zscore_of_each_channel_leaves_the_background_at_zero(tmp_path):
    files = {"kind": "volume", "files": {"t1": "{case}/t1.nii.gz", "t2": "{case}/t2.nii.gz"}}
    for name, scale in (("t1", 10.0), ("t2", 1000.0)):
        values = 5 * scale + scale * normal(4, 5, 6)
        values[0] = 0
        volume(tmp_path / "in/a", values.astype(np.float32), name=name)
    manifest = make(tmp_path / "in", **files)
    found = only(manifest, tmp_path / "cache", intensity="zscore_nonzero").astype(np.float64)
    assert (found[:, 0] == 0).all()
    np.testing.assert_allclose(found[:, 1:].mean(axis=(1, 2, 3)), 0, atol=1e-3)
    np.testing.assert_allclose(found[:, 1:].std(axis=(1, 2, 3)), 1, atol=1e-3)
    whole = only(manifest, tmp_path / "cache", intensity="zscore").astype(np.float64)
    np.testing.assert_allclose(whole.mean(axis=(1, 2, 3)), 0, atol=1e-3)
    assert (whole[:, 0] < -1).all()


def test_a_region_that_the_prepared_grid_is_too_coarse_for_is_told(tmp_path, caplog):
    small, large = np.zeros((2, 16, 16, 16), np.uint8)
    small[0, 0, 0] = large[4:12, 4:12, 4:12] = 1
    for case, mask in {"small": small, "large": large, "none": np.zeros_like(small)}.items():
        volume(tmp_path / "in" / case, normal(16, 16, 16).astype(np.float32))
        volume(tmp_path / "in" / case, mask, name="seg")
    manifest = make(tmp_path / "in", **VOLUMES)
    manifest.save(tmp_path / "m.parquet")
    coarse = PrepareConfig(size=(4, 4, 4))
    config = DataConfig(manifest=tmp_path / "m.parquet", cache=tmp_path / "cache", prepare=coarse)
    for _ in range(2):  # prepared, and found prepared
        caplog.clear()
        cache = open_data(config).cache
        (lost,) = (case_id for case_id in cache.case_ids if case_id in caplog.text)
        assert not cache.mask(lost).any()
        assert f"lesion has no voxel left in 1 of 3 cases, {lost} first" in caplog.text
    table = cache.folder / "index.parquet"
    pl.read_parquet(table).drop("lost_labels").write_parquet(table)
    caplog.clear()
    assert len(open_data(config).cases) == 3, "what an earlier version prepared is read"
    assert "no voxel left" not in caplog.text
    open_data(config.model_copy(update={"prepare": PrepareConfig(size=(16, 16, 16))}))
    assert "no voxel left" not in caplog.text


def test_clip_keeps_its_frames_and_values(tmp_path):
    clip = stream("clip").integers(0, 256, size=(5, 16, 16)).astype(np.uint8)
    write_avi(tmp_path / "in/a.avi", clip, fps=20, codec="ffv1")
    manifest = make(tmp_path / "in", **CLIPS)
    found = only(manifest, tmp_path / "cache", intensity="range")
    np.testing.assert_array_equal(found, (clip[None] / np.float32(255)).astype(np.float16))
    assert only(manifest, tmp_path / "cache", intensity="range", size=(8, 4)).shape == (1, 5, 8, 4)
    assert only(manifest, tmp_path / "cache", intensity="range", margin=0).shape == (1, 5, 16, 16)


# --------------------------------------------------------------------------------------------------------- sampling

def test_spacing_sets_size_and_what_was_reached_is_told(tmp_path):
    volume(tmp_path / "in/a", normal(4, 6, 5), np.diag([1.0, 2.0, 3.0, 1.0]))  # (k, j, i) spacing 3, 2, 1 mm
    manifest = make(tmp_path / "in", **VOLUMES)
    cache, _ = prepared(manifest, tmp_path / "cache", spacing=(1.5, 1.0, 2.0))
    sample = cache.read(manifest.cases["case_id"][0])
    assert sample.array.shape == (1, 8, 12, 2)  # 5 mm at 2 mm are 2.5 voxels, rounded to even
    np.testing.assert_allclose(sample.spacing, (1.5, 1.0, 2.5))


def test_a_ramp_is_still_that_ramp_after_resampling(tmp_path):
    ramp = np.broadcast_to(np.arange(8, dtype=np.float32)[:, None, None], (8, 6, 6)).copy()
    volume(tmp_path / "in/a", ramp * 100)
    found = only(make(tmp_path / "in", **VOLUMES), tmp_path / "cache", intensity="window", window=(0, 1000),
                 size=(16, 3, 6))
    centres = np.clip((np.arange(16) + 0.5) / 2 - 0.5, 0, 7)  # half-voxel centres; edges are repeated
    expected = np.broadcast_to((centres / 10)[:, None, None], (16, 3, 6))
    np.testing.assert_allclose(found[0], expected, atol=1e-3)


def test_shrinking_averages_and_aliases_nothing(tmp_path):
    stripes = np.zeros((64, 64), dtype=np.uint8)
    stripes[:, ::2] = 254
    write_png(tmp_path / "in/a.png", stripes)
    found = only(make(tmp_path / "in", **IMAGES), tmp_path / "cache", intensity="range", size=(8, 8))
    np.testing.assert_allclose(found[0, :, 1:-1], 127 / 255, atol=0.01)


def test_mask_is_resampled_with_its_image_and_keeps_its_labels(tmp_path):
    mask = (stream("mask").random((4, 5, 6)) < 0.4) * np.uint8(4)
    volume(tmp_path / "in/a", mask.astype(np.float32) * 25)
    volume(tmp_path / "in/a", mask, name="seg")
    manifest = make(tmp_path / "in", **VOLUMES)
    cache, _ = prepared(manifest, tmp_path / "cache", intensity="window", window=(0, 100), size=(4, 5, 12))
    case = manifest.cases["case_id"][0]
    found = cache.mask(case)
    assert found.dtype == np.uint8
    assert set(np.unique(found)) == {0, 4}
    np.testing.assert_array_equal(found == 4, cache.array(case)[0] > 0.5)


def test_margin_crops_image_and_mask_to_the_same_box(tmp_path):
    image, mask = np.zeros((9, 9, 9), np.float32), np.zeros((9, 9, 9), np.uint8)
    image[3:5, 4:7, 2:4], mask[4, 5, 3] = 100, 1
    volume(tmp_path / "in/a", image)
    volume(tmp_path / "in/a", mask, name="seg")
    manifest = make(tmp_path / "in", **VOLUMES)
    cache, _ = prepared(manifest, tmp_path / "cache", intensity="range", margin=1)
    case = manifest.cases["case_id"][0]
    assert cache.shape(case) == (1, 4, 5, 4)
    np.testing.assert_array_equal(np.argwhere(cache.mask(case)), [[2, 2, 2]])
    assert cache.array(case)[0, 2, 2, 2] > 0


# ------------------------------------------------------------------------------------------------- grids and channels

@pytest.mark.parametrize("flips", [(-1, 1, 1), (-1, -1, 1), (1, 1, -1), (-1, -1, -1)])
def test_every_orientation_becomes_the_same_case(tmp_path, flips):
    array, mask = normal(4, 5, 6), (stream("m").random((4, 5, 6)) < 0.3).astype(np.uint8)
    volume(tmp_path / "ras/a", array)
    volume(tmp_path / "ras/a", mask, name="seg")
    affine, axes = np.diag([*map(float, flips), 1.0]), tuple(2 - a for a in range(3) if flips[a] < 0)
    for a in range(3):
        affine[a, 3] = (array.shape[2 - a] - 1) if flips[a] < 0 else 0
    volume(tmp_path / "other/a", np.flip(array, axes), affine)
    volume(tmp_path / "other/a", np.flip(mask, axes), affine, name="seg")
    cases = []
    for name in ("ras", "other"):
        manifest = make(tmp_path / name, **VOLUMES)
        cache, skipped = prepared(manifest, tmp_path / "cache" / name, intensity="zscore")
        assert len(skipped) == 0
        cases.append(cache.read(manifest.cases["case_id"][0]))
    np.testing.assert_array_equal(cases[0].array, cases[1].array)
    np.testing.assert_array_equal(cases[0].mask, cases[1].mask)
    np.testing.assert_array_equal(cases[0].mask, mask)


def test_channels_stand_in_the_cards_order_also_when_it_changes(tmp_path):
    for value, name in enumerate(("a", "b", "c"), start=1):
        volume(tmp_path / "in/x", np.full((2, 3, 4), value * 10.0, np.float32), name=name)
    for order in ("abc", "acb"):
        files = {name: f"{{case}}/{name}.nii.gz" for name in order}
        manifest = make(tmp_path / "in", kind="volume", files=files)
        found = only(manifest, tmp_path / "cache", intensity="window", window=(0, 100))
        np.testing.assert_allclose(found[:, 0, 0, 0], ["_abc".index(name) / 10 for name in order], atol=1e-3)


def shifted(mm: float) -> np.ndarray:
    affine = np.eye(4)
    affine[0, 3] = mm
    return affine


@pytest.mark.parametrize(("mask", "affine", "reason"), [
    (np.zeros((4, 5, 5), np.uint8), np.eye(4), "shape (4, 5, 5)"),
    (np.zeros((4, 5, 6), np.uint8), shifted(2.0), "an affine 2 mm away"),
    (np.zeros((4, 5, 6), np.uint8), np.diag([1.0, 1.0, 1.2, 1.0]), "an affine 0.6 mm away"),
    (np.full((4, 5, 6), 0.5, np.float32), np.eye(4), "no labels"),
    (np.full((4, 5, 6), 300, np.int16), np.eye(4), "no labels"),
    (np.full((4, 5, 6), -1, np.int16), np.eye(4), "no labels"),
    (np.full((4, 5, 6), np.nan, np.float32), np.eye(4), "no labels"),
])
def test_a_mask_that_does_not_fit_is_a_listed_skip_without_a_name(tmp_path, mask, affine, reason):
    for case in ("good", "smith_john"):
        volume(tmp_path / "in" / case, normal(4, 5, 6))
        volume(tmp_path / "in" / case, np.zeros((4, 5, 6), np.uint8), name="seg")
    volume(tmp_path / "in/smith_john", mask, affine, name="seg")
    manifest = make(tmp_path / "in", **VOLUMES)
    cache, skipped = prepared(manifest, tmp_path / "cache")
    assert len(cache) == 1
    assert len(skipped) == 1
    assert skipped["case_id"][0] not in cache
    assert reason in skipped["reason"][0]
    assert "leave the case out" in skipped["remedy"][0]
    told = told_by(tmp_path / "cache")
    assert reason in told
    assert "smith" not in told
    assert str(tmp_path) not in told


def test_what_headers_round_and_floats_that_hold_labels_are_no_reason_to_skip(tmp_path):
    volume(tmp_path / "in/a", normal(4, 5, 6))
    volume(tmp_path / "in/a", np.full((4, 5, 6), 3.0, np.float32), shifted(1e-3), name="seg")
    manifest = make(tmp_path / "in", **VOLUMES)
    cache, skipped = prepared(manifest, tmp_path / "cache")
    assert len(skipped) == 0
    assert (cache.mask(manifest.cases["case_id"][0]) == 3).all()


def test_a_mask_that_does_not_say_where_it_lies_is_not_guessed(tmp_path):
    volume(tmp_path / "in/a", normal(4, 5, 6), np.diag([-1.0, 1.0, 1.0, 1.0]))
    nibabel.save(nibabel.Nifti1Image(np.zeros((6, 5, 4), np.uint8), None), tmp_path / "in/a/seg.nii.gz")
    with pytest.raises(ManifestError, match="says where it lies"):
        prepared(make(tmp_path / "in", **VOLUMES), tmp_path / "cache")


def test_a_volume_under_a_card_of_images_is_refused(tmp_path):
    volume(tmp_path / "in/a", normal(4, 5, 6))
    manifest = make(tmp_path / "in", kind="image", files={"image": "{case}/t1.nii.gz"})
    with pytest.raises(ManifestError, match="holds a volume where the manifest says image"):
        prepared(manifest, tmp_path / "cache")


def test_slices_in_a_folder_become_one_volume(tmp_path):
    slices = stream("slices").integers(0, 1000, size=(5, 8, 8)).astype(np.uint16)
    for k in (3, 0, 4, 1, 2):  # names say nothing of the order
        write_dicom(tmp_path / f"in/ct/{9 - k}", slices[k], patient_id="1", study_uid="1.2", series_uid="1.2.3",
                    instance_uid=f"1.2.3.{k + 1}", modality="CT", spacing=(0.5, 0.5), position=(0, 0, 2.0 * k),
                    orientation=(-1, 0, 0, 0, -1, 0), instance_number=k + 1)
    manifest = make(tmp_path / "in", layout="scan", modality=None, patient="{patient}")
    cache, skipped = prepared(manifest, tmp_path / "cache", intensity="window", window=(0, 1000))
    assert len(skipped) == 0
    sample = cache.read(manifest.cases["case_id"][0])
    assert sample.spacing == (2.0, 0.5, 0.5)
    np.testing.assert_allclose(sample.array[0], slices / 1000, atol=1e-3)


# -------------------------------------------------------------------------------------------------------- the cache

def pictures(folder: Path, count: int = 3) -> None:
    for number in range(count):
        write_png(folder / f"case{number}.png", np.full((4, 4), 10 * number + 10, np.uint8))


def times(root: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in root.rglob("*") if path.is_file()}


def test_a_second_run_does_nothing(tmp_path, monkeypatch):
    pictures(tmp_path / "in")
    manifest = make(tmp_path / "in", **IMAGES)
    first = prepare(manifest, tmp_path / "cache", PrepareConfig(), workers=0)[1]
    before = times(tmp_path / "cache")
    monkeypatch.setattr("medssl.data.prepare.decode", lambda *_: pytest.fail("decoded again"))
    cache, second = prepare(manifest, tmp_path / "cache", PrepareConfig(), workers=0)
    assert (first.prepared, first.reused) == (3, 0)
    assert (second.prepared, second.reused) == (0, 3)
    assert len(cache) == 3
    assert times(tmp_path / "cache") == before


def test_an_edited_file_is_read_again_and_the_others_are_not(tmp_path):
    pictures(tmp_path / "in")
    manifest = make(tmp_path / "in", **IMAGES)
    config = PrepareConfig(intensity="range")
    old = prepare(manifest, tmp_path / "cache", config, workers=0)[0]
    values = {case: old.array(case).copy() for case in manifest.cases["case_id"]}
    write_png(tmp_path / "in/case1.png", np.full((4, 4), 250, np.uint8))
    new, report = prepare(manifest, tmp_path / "cache", config, workers=0)
    changed = [case for case in values if not np.array_equal(new.array(case), values[case])]
    assert (report.prepared, report.reused) == (1, 2)
    assert len(changed) == 1
    np.testing.assert_allclose(new.array(changed[0]), 250 / 255, atol=1e-3)
    np.testing.assert_array_equal(old.array(changed[0]), values[changed[0]])  # whoever still reads the old one may


def test_unreadable_files_are_skipped_with_reasons_and_asked_again(tmp_path):
    pictures(tmp_path / "in")
    (tmp_path / "in/case1.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing more")
    manifest = make(tmp_path / "in", **IMAGES)
    (tmp_path / "in/case2.png").unlink()  # gone after the manifest was built
    cache, skipped = prepared(manifest, tmp_path / "cache")
    assert len(cache) == 1
    assert len(skipped) == 2
    assert all(skipped["reason"])
    assert all(skipped["remedy"])
    assert "case1" not in told_by(tmp_path / "cache")
    assert str(tmp_path) not in told_by(tmp_path / "cache")
    for number in (1, 2):
        write_png(tmp_path / f"in/case{number}.png", np.zeros((4, 4), np.uint8))
    cache, report = prepare(manifest, tmp_path / "cache", PrepareConfig(), workers=0)
    assert (len(cache), report.prepared, report.reused, len(report.skipped)) == (3, 2, 1, 0)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_values_that_are_no_numbers_are_refused(tmp_path, bad):
    array = normal(3, 4, 5)
    array[1, 1, 1] = bad
    volume(tmp_path / "in/a", array)
    with pytest.raises(ManifestError, match="None of 1 cases.*NaN or infinite"):
        prepared(make(tmp_path / "in", **VOLUMES), tmp_path / "cache")


def test_what_was_decoded_before_an_interruption_stays_decoded(tmp_path):
    pictures(tmp_path / "in")
    manifest = make(tmp_path / "in", **IMAGES)

    def stop(done: int, total: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare(manifest, tmp_path / "cache", PrepareConfig(), workers=0, progress=stop)
    report = prepare(manifest, tmp_path / "cache", PrepareConfig(), workers=0)[1]
    assert (report.prepared, report.reused) == (1, 2)


def test_a_sample_that_was_deleted_is_made_again(tmp_path):
    volume(tmp_path / "in/a", normal(3, 4, 5))
    volume(tmp_path / "in/a", np.ones((3, 4, 5), np.uint8), name="seg")
    manifest = make(tmp_path / "in", **VOLUMES)
    prepared(manifest, tmp_path / "cache")
    for path in (tmp_path / "cache").rglob("*.mask.npy"):
        os.unlink(path)
    assert prepare(manifest, tmp_path / "cache", PrepareConfig(), workers=0)[1].prepared == 1


def test_many_cases_are_prepared_by_processes_alike(tmp_path):
    pictures(tmp_path / "in", 17)
    manifest = make(tmp_path / "in", **IMAGES)
    one, _ = prepare(manifest, tmp_path / "one", PrepareConfig(intensity="range"), workers=0)
    two, report = prepare(manifest, tmp_path / "two", PrepareConfig(intensity="range"), workers=2)
    assert report.prepared == 17
    for case in manifest.cases["case_id"]:
        np.testing.assert_array_equal(one.array(case), two.array(case))


@pytest.mark.parametrize("wrong", [
    {"intensity": "window"}, {"intensity": "window", "window": [5, 5]}, {"window": [0, 1]},
    {"size": [4, 4, 4], "spacing": [1, 1, 1]}, {"size": [0, 4]}, {"margin": -1},
])
def test_settings_that_contradict_are_refused_before_anything_is_decoded(wrong):
    with pytest.raises(ValueError, match="1 validation error"):
        PrepareConfig.model_validate(wrong)


# --------------------------------------------------------------------------------------------------------- open_data

def test_a_machine_without_the_scans_uses_what_was_prepared(tmp_path):
    pictures(tmp_path / "in")
    make(tmp_path / "in", **IMAGES).save(tmp_path / "m.parquet")
    config = DataConfig(manifest=tmp_path / "m.parquet", cache=tmp_path / "cache")
    (tmp_path / "m.files.parquet").rename(tmp_path / "elsewhere.parquet")
    with pytest.raises(RunError, match="Nothing is prepared"):
        open_data(config)
    (tmp_path / "elsewhere.parquet").rename(tmp_path / "m.files.parquet")
    expected = open_data(config)
    (tmp_path / "m.files.parquet").unlink()
    found = open_data(config)
    assert found.cases.equals(expected.cases)
    assert len(found.skipped) == 0


def test_a_volume_has_no_colours(tmp_path):
    volume(tmp_path / "in/a", normal(4, 4, 4))
    write_nifti(tmp_path / "in/a/seg.nii.gz", np.zeros((4, 4, 4), np.uint8), np.eye(4))
    make(tmp_path / "in", **VOLUMES).save(tmp_path / "v.parquet")
    config = DataConfig(manifest=tmp_path / "v.parquet", cache=tmp_path / "cache", prepare=PrepareConfig(colour=True))
    with pytest.raises(ConfigError, match="colour is true, but each case is one volume of 1 channel.*leave"):
        open_data(config)


def test_where_keeps_the_cases_of_an_attribute_and_names_the_known_ones(tmp_path):
    discs = write_discs(tmp_path)
    kept = open_data(discs.model_copy(update={"where": {"view": ["A"]}})).cases
    assert len(kept) == 40
    assert set(kept["attr.view"]) == {"A"}
    with pytest.raises(ConfigError, match="one of kind, modality, view"):
        open_data(discs.model_copy(update={"where": {"vew": ["A"]}}))
