"""What shapes cannot tell: a policy for other cases than the manifest's is refused, with a remedy that holds."""

import re
from types import SimpleNamespace

import polars as pl
import pytest

from medssl.augment import PolicyConfig
from medssl.augment.suitable import require_drawable, require_suitable, strange
from medssl.config import validate
from medssl.data.decode import PrepareConfig
from medssl.data.loader import BoxConfig
from medssl.errors import ConfigError

CLIP, VOLUME, XRAY = ("cine", "US"), ("volume", "MR"), ("image", "DX")
SHIFT = {"name": "hu_shift", "shift": 10}
WINDOW = {"intensity": "window", "window": [-160, 240]}


def data_of(kind: str, modality: str, prepare: dict, planar: bool):
    config = SimpleNamespace(prepare=validate(PrepareConfig, prepare, "prepare"), box=BoxConfig(planar=planar))
    return SimpleNamespace(config=config, cases=pl.DataFrame({"kind": [kind], "modality": [modality]}))


def check(policy: dict, case: tuple[str, str], prepare: dict | None = None, planar: bool = False) -> None:
    require_suitable(validate(PolicyConfig, policy, "recipe"), data_of(*case, prepare or {}, planar))


def of(**config) -> dict:
    return {"intensity": [config]}


@pytest.mark.parametrize(("policy", "case", "prepare", "told"), [
    ({"temporal": {"shift": 0.5}}, VOLUME, {}, "each case is one volume.*leave augment.temporal out"),
    ({"temporal": {"frames": 4}}, XRAY, {}, "each case is one image"),
    ({"spatial": {"axes": "volume", "flip": {"k": 0.5}}}, CLIP, {}, "first axis is time.*axes to plane, and leave k"),
    (of(name="slice_thickness", slices=2), CLIP, {}, "slice_thickness on clips.*leave slice_thickness out"),
    (of(name="bias_field", strength=0.3), CLIP, {}, "bias_field on clips"),
    (of(name="anisotropy", thickening=2), CLIP, {}, r"anisotropy.axes is \['k', 'j', 'i'\].*axes to \[j, i\]"),
    (of(name="blur", sigma=1, axes="volume"), CLIP, {}, "blur.axes is volume.*axes to plane"),
    ({"spatial": {"keep_sector": True}}, XRAY, {}, "modality DX.*Expected ultrasound.*leave augment.spatial.keep_sec"),
    ({"spatial": {"keep_sector": True}}, CLIP, {"intensity": "zscore"}, "intensity zscore.*prepare.intensity to range"),
    (of(**SHIFT), XRAY, {}, "intensity percentile, which have no HU.*set data.prepare.intensity to window"),
    (of(**SHIFT, window=[0, 80]), VOLUME, WINDOW, r"\[0.0, 80.0\], data.prepare.window \[-160.0, 240"),
])
def test_what_is_not_for_such_cases_is_refused_with_a_remedy(policy, case, prepare, told):
    with pytest.raises(ConfigError, match=told):
        check(policy, case, prepare)


@pytest.mark.parametrize(("config", "told"), [
    ({"name": "colour_drop", "share": 1.0}, "colour_drop on images of 1 channel.*data.prepare.colour=true"),
    ({"name": "colour_jitter", "hue": 0.2, "saturation": 0.8}, "of 1 channel.*data.prepare.colour=true"),
    ({"name": "slice_thickness", "slices": 2}, "slice_thickness on images of 2 axes"),
    ({"name": "anisotropy", "thickening": 2, "axes": ["k"]}, "anisotropy"),
])
def test_what_is_not_for_the_views_is_refused_however_seldom_it_would_act(config, told):
    policy = validate(PolicyConfig, of(**config, probability=0.001), "recipe")
    with pytest.raises(ConfigError, match=told):
        require_drawable(policy, (1, 16, 16))


@pytest.mark.parametrize(("policy", "case", "prepare", "planar"), [
    ({"temporal": {"shift": 0.5}, "spatial": {"keep_sector": True}}, CLIP, {}, False),
    ({"spatial": {"keep_sector": True}}, ("image", "OT"), {"intensity": "range"}, False),
    ({"spatial": {"axes": "volume", "flip": {"k": 0.5}}}, VOLUME, {}, False),
    (of(name="bias_field", strength=0.3), VOLUME, {"intensity": "zscore"}, False),
    (of(name="bias_field", strength=0.3), ("cine", "MR"), {}, True),  # frame by frame
    (of(name="anisotropy", thickening=2, axes=["j", "i"]), CLIP, {}, False),
    (of(name="blur", sigma=1), CLIP, {}, False),
    (of(**SHIFT), VOLUME, WINDOW, False),
    (of(**SHIFT, window=[-160, 240]), VOLUME, WINDOW, False),
    (of(**SHIFT, window=[0, 1]), VOLUME, WINDOW, False),  # the default, as a saved recipe has it
])
def test_what_is_for_such_cases_is_taken(policy, case, prepare, planar):
    check(policy, case, prepare, planar)


@pytest.mark.parametrize(("config", "case", "told"), [
    ({"name": "ghosting", "intensity": 0.5}, XRAY, "ghosting is made for MR, not for DX"),
    ({"name": "bias_field", "strength": 0.3}, CLIP, "bias_field on clips"),
    ({"name": "ghosting", "intensity": 0.5}, VOLUME, "^$"),
    ({"name": "blur", "sigma": 1}, XRAY, "^$"),
])
def test_what_no_scanner_makes_is_strange(config, case, told):
    policy = validate(PolicyConfig, of(**config), "recipe")
    assert re.search(told, strange(policy, data_of(*case, {}, planar=False)))


def test_whole_clips_are_not_corrupted_across_their_frames_however_they_are_read():
    policy = validate(PolicyConfig, of(name="bias_field", strength=0.3), "recipe")
    assert strange(policy, data_of("cine", "MR", {}, planar=True))
