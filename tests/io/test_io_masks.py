"""DICOM segmentations and RT structure sets come back as the masks that they were made of, or say why not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from dicom_masks import in_patient, oblique, positions, write_image, write_segmentation, write_structure_set

from medssl import find_scans, open_scan
from medssl.errors import GeometryError, MedsslError, UnreadableScan
from medssl.io import FoundMask, open_mask
from medssl.io.geometry import to_canonical
from medssl.io.structure_set import fill_polygons
from medssl.rng import stream
from medssl.types import Scan

SHAPE = (6, 13, 11)
"""Odd, so that the bits of a frame end within a byte."""
ONE = {1: ["tumour"]}


def blobs(name: str = "blobs") -> np.ndarray:
    """A mask with empty slices at both ends and one within."""
    mask = stream("masks", name).random(SHAPE) < 0.3
    mask[[0, 3, 5]] = False
    return mask


def image(folder: Path, orientation: tuple[float, ...] = (1, 0, 0, 0, 1, 0), tilt: float = 0.0) -> Scan:
    places = positions(SHAPE[0], orientation=orientation, tilt=tilt)
    write_image(folder, np.zeros(SHAPE), places, orientation=orientation)
    return open_scan(folder)


# Segmentations


@pytest.mark.parametrize("kind", ["BINARY", "FRACTIONAL", "LABELMAP"])
@pytest.mark.parametrize(("degrees", "tilt"), [(0.0, 0.0), (20.0, 0.0), (0.0, 0.4)])
def test_a_segmentation_with_sparse_unordered_frames_comes_back_exact(tmp_path, kind, degrees, tilt) -> None:
    orientation, mask = oblique(degrees), blobs()
    scan = image(tmp_path / "image", orientation, tilt)
    places = positions(SHAPE[0], orientation=orientation, tilt=tilt)
    order = stream("masks", "order").permutation(np.flatnonzero(mask.any(axis=(1, 2))))
    assert 0 < len(order) < SHAPE[0]
    write_segmentation(tmp_path / "seg.dcm", [(1, places[k], mask[k]) for k in order], ["Tumour"], kind=kind,
                       orientation=orientation)
    found = open_mask([tmp_path / "seg.dcm"], ONE, scan, next((tmp_path / "image").iterdir()))
    assert found.array.dtype == np.uint8
    np.testing.assert_array_equal(found.array[0], mask)
    np.testing.assert_array_equal(found.affine, scan.affine)


def test_the_structure_named_first_stays_where_several_overlap(tmp_path) -> None:
    scan, places = image(tmp_path / "image"), positions(SHAPE[0])
    masks = {name: blobs(name) for name in ("GTV 1", "oedema", "GTV 2", "skin")}
    write_segmentation(tmp_path / "seg.dcm", [(n, places[k], mask[k]) for k in range(SHAPE[0])
                                              for n, mask in enumerate(masks.values(), start=1)], list(masks))
    found = open_mask([tmp_path / "seg.dcm"], {7: ["gtv.*", "x"], 2: [".*"], 3: ["oedema"]}, scan).array[0]
    both = masks["GTV 1"] | masks["GTV 2"]
    np.testing.assert_array_equal(found == 7, both)
    np.testing.assert_array_equal(found == 2, (masks["oedema"] | masks["skin"]) & ~both)
    assert not (found == 3).any()
    found = open_mask([tmp_path / "seg.dcm"], {3: ["oedema"], 7: ["gtv.*"]}, scan).array[0]
    np.testing.assert_array_equal(found == 3, masks["oedema"])
    np.testing.assert_array_equal(found == 7, both & ~masks["oedema"])


def test_a_fraction_counts_from_one_half_on(tmp_path) -> None:
    shares = np.zeros(SHAPE[1:])
    shares[0, :3] = 0.495, 0.5, 1.0
    write_segmentation(tmp_path / "seg.dcm", [(1, positions(1)[0], shares)], ["tumour"], kind="FRACTIONAL")
    found = open_mask([tmp_path / "seg.dcm"], ONE, image(tmp_path / "image")).array[0]
    assert np.argwhere(found).tolist() == [[0, 0, 1], [0, 0, 2]]


def test_a_segmentation_finds_its_voxels_in_an_image_that_is_stored_the_other_way_round(tmp_path) -> None:
    scan, places, mask = image(tmp_path / "image", oblique(20)), positions(SHAPE[0], orientation=oblique(20)), blobs()
    write_segmentation(tmp_path / "seg.dcm", [(1, p, m) for p, m in zip(places, mask, strict=True)], ["tumour"],
                       orientation=oblique(20))
    array, affine = to_canonical(scan.array, scan.affine)
    turned = open_mask([tmp_path / "seg.dcm"], ONE, Scan(array, "volume", "CT", affine=affine))
    np.testing.assert_array_equal(turned.array[0], to_canonical(mask, scan.affine)[0])


def test_a_segmentation_has_a_grid_of_its_own(tmp_path) -> None:
    mask, places = blobs(), positions(SHAPE[0], orientation=oblique(20), tilt=0.3)
    kept = np.flatnonzero(mask.any(axis=(1, 2)))  # 1, 2 and 4
    write_segmentation(tmp_path / "seg.dcm", [(1, places[k], mask[k]) for k in kept[::-1]], ["tumour"],
                       orientation=oblique(20))
    own = open_mask([tmp_path / "seg.dcm"], ONE)
    np.testing.assert_array_equal(own.array[0], mask[1:5])
    scan = image(tmp_path / "image", oblique(20), 0.3)
    first = scan.affine @ (0, 0, 1, 1)
    np.testing.assert_allclose(own.affine, np.column_stack([scan.affine[:, :3], first]), atol=1e-4)


@pytest.mark.parametrize(("change", "message"), [
    ({"shift": (0, 0, 1.0)}, "does not lie on the image's voxels"),
    ({"shift": (0.2, 0, 0)}, "does not lie on the image's voxels"),
    ({"spacing": (0.7, 0.52)}, "does not lie on the image's voxels"),
    ({"spacing": (1.4, 1.0)}, "does not lie on the image's voxels"),
    ({"orientation": oblique(5)}, "does not lie on the image's voxels"),
    ({"shift": (0, 0, -2.0)}, "reaches beyond the image"),
    ({"shift": (0, 0.7, 0)}, "reaches beyond the image"),
    ({"frame": "1.8"}, "another frame of reference"),
])
def test_a_segmentation_that_does_not_lie_on_the_image_is_refused(tmp_path, change, message) -> None:
    scan, mask = image(tmp_path / "image"), np.ones(SHAPE, dtype=bool)
    shift = np.array(change.pop("shift", (0, 0, 0)))
    write_segmentation(tmp_path / "seg.dcm", [(1, place + shift, mask[k]) for k, place in
                                              enumerate(positions(SHAPE[0]))], ["tumour"], **change)
    with pytest.raises(GeometryError, match=message) as error:
        open_mask([tmp_path / "seg.dcm"], ONE, scan, tmp_path / "image/1.2.3.0.dcm")
    assert error.value.expected
    assert error.value.remedy


def test_a_shift_below_a_tenth_of_a_voxel_is_rounding(tmp_path) -> None:
    scan, mask = image(tmp_path / "image"), blobs()
    write_segmentation(tmp_path / "seg.dcm", [(1, place + 0.04, mask[k]) for k, place in
                                              enumerate(positions(SHAPE[0]))], ["tumour"])
    np.testing.assert_array_equal(open_mask([tmp_path / "seg.dcm"], ONE, scan).array[0], mask)


# Structure sets


def circle(center: tuple[float, float], radius: float, corners: int = 720) -> np.ndarray:
    angles = np.linspace(0, 2 * np.pi, corners, endpoint=False)
    return np.column_stack([center[0] + radius * np.cos(angles), center[1] + radius * np.sin(angles)])


def square(low: float, high: float) -> np.ndarray:
    return np.array([(low, low), (high, low), (high, high), (low, high)])


@pytest.mark.parametrize(("low", "high"), [(2.5, 7.5), (2, 7), (2.2, 7.3), (-3, 4.5)])
def test_a_filled_square_has_the_area_of_the_square(low, high) -> None:
    within = min(high, 19.5) - max(low, -0.5)
    assert fill_polygons([square(low, high)], (20, 20)).sum() == round(within) ** 2
    assert fill_polygons([square(low, high)[::-1]], (20, 20)).sum() == round(within) ** 2


@pytest.mark.parametrize("radius", [3.3, 7.9, 20.4, 40.1])
def test_a_filled_circle_holds_the_pixels_whose_centres_lie_inside(radius) -> None:
    center = (50.2, 47.6)
    j, i = np.mgrid[:100, :100]
    inside = np.hypot(i - center[0], j - center[1]) < radius
    filled = fill_polygons([circle(center, radius)], (100, 100))
    assert (filled != inside).sum() <= 1  # the polygon lies within the circle by a thousandth of a pixel
    assert abs(np.sqrt(filled.sum() / np.pi) - radius) < 0.1


def test_holes_are_left_open_whether_by_an_inner_contour_or_by_a_keyhole() -> None:
    outer, inner = square(1.5, 12.5), square(4.5, 8.5)
    expected = 11**2 - 4**2
    assert fill_polygons([outer, inner], (20, 20)).sum() == expected
    keyhole = np.concatenate([outer, outer[:1], inner[::-1][-1:], inner[::-1], outer[:1]])
    np.testing.assert_array_equal(fill_polygons([keyhole], (20, 20)), fill_polygons([outer, inner], (20, 20)))
    island = square(5.5, 7.5)
    assert fill_polygons([outer, inner, island], (20, 20)).sum() == expected + 4


def test_any_polygon_agrees_with_the_crossing_number_of_each_pixel() -> None:
    corners = stream("masks", "polygon").uniform(-3, 23, size=(40, 2))  # crosses itself many times
    filled = fill_polygons([corners], (20, 20))
    after = np.roll(corners, -1, axis=0)
    for j, i in np.ndindex(20, 20):
        crossings = sum((a[1] <= j) != (b[1] <= j) and i >= a[0] + (j - a[1]) * (b[0] - a[0]) / (b[1] - a[1])
                        for a, b in zip(corners, after, strict=True))
        assert filled[j, i] == crossings % 2


def test_neighbours_share_an_edge_through_centres_and_no_pixel() -> None:
    left = np.array([(2, 3), (6, 3), (6, 9), (2, 9)])
    one, other = fill_polygons([left], (12, 12)), fill_polygons([left + (4, 0)], (12, 12))
    assert (one.sum(), other.sum(), (one & other).sum()) == (24, 24, 0)


@pytest.mark.parametrize(("degrees", "tilt"), [(0.0, 0.0), (20.0, 0.0), (0.0, 0.4)])
def test_contours_are_filled_on_the_slices_that_they_lie_on(tmp_path, degrees, tilt) -> None:
    orientation = oblique(degrees)
    scan = image(tmp_path / "image", orientation, tilt)
    places = positions(SHAPE[0], orientation=orientation, tilt=tilt)
    contours = [in_patient(square(1.5, 8.5), places[2], orientation),
                in_patient(square(3.5, 5.5), places[2], orientation),
                in_patient(square(-4, 3.5), places[4], orientation)]
    write_structure_set(tmp_path / "rt.dcm", {"Skin": [in_patient(square(0, 9), places[0], orientation)],
                                              "Tumour": contours})
    found = open_mask([tmp_path / "rt.dcm"], ONE, scan, tmp_path / "image/1.2.3.0.dcm").array[0]
    assert found.sum(axis=(1, 2)).tolist() == [0, 0, 7**2 - 2**2, 0, 4**2, 0]
    assert found[4, :4, :4].all()


def test_contours_through_voxel_centres_are_filled_alike_however_the_slices_are_turned(tmp_path) -> None:
    areas = set()
    for degrees in (0.0, 20.0, 33.0, 71.0):
        orientation = oblique(degrees)
        scan = image(tmp_path / f"{degrees:g}", orientation)
        contour = in_patient(square(2, 7), positions(1)[0], orientation)
        write_structure_set(tmp_path / "rt.dcm", {"tumour": [contour]})
        areas.add(int(open_mask([tmp_path / "rt.dcm"], ONE, scan).array.sum()))
    assert areas == {25}


def test_structures_of_one_value_are_united_and_those_of_several_keep_their_order(tmp_path) -> None:
    scan, place = image(tmp_path / "image"), positions(1)[0]
    write_structure_set(tmp_path / "rt.dcm", {"GTVp": [in_patient(square(1.5, 5.5), place)],
                                              "GTVn": [in_patient(square(3.5, 7.5), place)],
                                              "body": [in_patient(square(-0.5, 9.5), place)]})
    found = open_mask([tmp_path / "rt.dcm"], {2: ["GTV."], 1: ["body"]}, scan).array[0, 0]
    assert ((found == 2).sum(), (found == 1).sum()) == (16 + 16 - 4, 100 - 28)


@pytest.mark.parametrize(("change", "message"), [
    ({"shift": (0, 0, 1.0)}, "0.5 slices off"), ({"shift": (0, 0, -2.0)}, "beyond the image's slices"),
    ({"frame": "1.8"}, "another frame of reference"), ({"kind": "OPEN_PLANAR"}, "something else than closed contours"),
    ({"turn": 1}, "slices off"),
])
def test_contours_that_do_not_fit_the_image_are_refused(tmp_path, change, message) -> None:
    scan = image(tmp_path / "image")
    contour = in_patient(square(2, 5), positions(1)[0], oblique(20 * change.pop("turn", 0)))
    write_structure_set(tmp_path / "rt.dcm", {"tumour": [contour + change.pop("shift", 0)]}, **change)
    with pytest.raises(MedsslError, match=message):
        open_mask([tmp_path / "rt.dcm"], ONE, scan, tmp_path / "image/1.2.3.0.dcm")


# Both


def test_a_mask_is_found_with_what_it_refers_to_and_stays_no_scan(tmp_path) -> None:
    image(tmp_path)
    write_segmentation(tmp_path / "seg.dcm", [(1, positions(1)[0], np.ones(SHAPE[1:]))], ["Mr Smith's tumour", "x"])
    write_structure_set(tmp_path / "rt.dcm", {"GTV": [], "body": []}, series="1.2.4")
    masks = {found.path.name: found for found in find_scans(tmp_path) if isinstance(found, FoundMask)}
    assert masks["seg.dcm"].refers_to == {"1.2.3"}
    assert masks["seg.dcm"].structures == ("Mr Smith's tumour", "x")
    assert (masks["rt.dcm"].refers_to, masks["rt.dcm"].structures) == ({"1.2.4"}, ("GTV", "body"))
    assert "Segmentation Storage" in masks["seg.dcm"].reason
    assert not any(text in f"{found!r}" for found in masks.values() for text in ("Smith", "1.2.4"))


def test_what_is_no_mask_or_draws_nothing_or_twice_is_refused(tmp_path) -> None:
    scan, place = image(tmp_path / "image"), positions(1)[0]
    for name in ("one", "two"):
        write_segmentation(tmp_path / f"{name}.dcm", [(1, place, np.ones(SHAPE[1:]))], ["tumour"])
    write_structure_set(tmp_path / "empty.dcm", {"tumour": []})
    with pytest.raises(UnreadableScan, match="Several files draw structures of value 1"):
        open_mask([tmp_path / "one.dcm", tmp_path / "two.dcm"], ONE, scan)
    with pytest.raises(UnreadableScan, match="Nothing is drawn"):
        open_mask([tmp_path / "empty.dcm"], ONE, scan)
    with pytest.raises(UnreadableScan, match="Nothing is drawn"):
        open_mask([tmp_path / "one.dcm"], {1: ["liver"]}, scan)
    with pytest.raises(UnreadableScan, match="no DICOM segmentation"):
        open_mask([tmp_path / "image/1.2.3.0.dcm"], ONE, scan)
    with pytest.raises(GeometryError, match="does not say where it lies"):
        open_mask([tmp_path / "one.dcm"], ONE, Scan(scan.array, "volume", "CT"))


def test_a_damaged_mask_ends_in_a_named_reason(tmp_path) -> None:
    scan, mask = image(tmp_path / "image"), blobs()
    write_segmentation(tmp_path / "seg.dcm", [(1, place, mask[k]) for k, place in enumerate(positions(SHAPE[0]))],
                       ["tumour"])
    whole = (tmp_path / "seg.dcm").read_bytes()
    for length in range(0, len(whole) - 2, 61):
        (tmp_path / "cut.dcm").write_bytes(whole[:length])
        with pytest.raises(MedsslError):
            open_mask([tmp_path / "cut.dcm"], ONE, scan)
